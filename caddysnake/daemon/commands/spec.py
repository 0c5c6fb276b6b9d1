"""What an app has beside its workers, as its file says it, with every placeholder resolved."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import NamedTuple

from ...config.language.models import PythonApp, ScheduleLine
from ...config.language.values import unescaped


class ReleaseCommand(NamedTuple):
    """What must succeed before a build's first worker."""

    command: tuple[str, ...]
    timeout_s: float


class ProcessSpec(NamedTuple):
    """A process that is kept up. ``restart``: ``always``, ``on_failure`` or ``never``."""

    name: str
    command: tuple[str, ...]
    copies: int
    stop_signal: int
    stop_timeout_s: float
    restart: str = "always"
    overlap: bool = False
    """It starts before the one of the build before has ended."""
    environ: tuple[tuple[str, str], ...] = ()
    stays: bool = False
    """One that is the same in the next build goes on; it is there before a build's first worker."""
    is_asked_for: bool = False
    """By the app: it goes on, too, where a build does not say it."""


class Commands(NamedTuple):
    """All of them."""

    release: tuple[ReleaseCommand, ...] = ()
    processes: tuple[ProcessSpec, ...] = ()
    schedules: tuple[ScheduleLine, ...] = ()

    @classmethod
    def of(cls, block: PythonApp, grace_s: float, store: ProcessSpec | None = None) -> Commands:
        """Return those of ``block``, in which no placeholders are left. ``grace_s``: for what says no ``stop_timeout``.
        ``store``: what its workers share.
        """
        return cls(
            tuple(ReleaseCommand(_words(each.command), each.timeout_s) for each in block.releases),
            tuple(
                ProcessSpec(
                    each.name,
                    _words(each.command),
                    each.count,
                    int(signal.Signals[each.stop_signal]),
                    grace_s if each.stop_timeout_s is None else each.stop_timeout_s,
                    each.restart,
                    each.overlap,
                    tuple((pair.name, unescaped(pair.value)) for pair in each.env_vars),
                )
                for each in block.processes
            )
            + (() if store is None else (store,)),
            tuple(
                each if (words := _words(each.command)) is each.command else replace(each, command=words)
                for each in block.schedules
            ),
        )


def _words(command: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(map(unescaped, command))
    return command if words == command else words
