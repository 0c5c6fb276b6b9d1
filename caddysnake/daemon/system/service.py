"""The daemon's conversation with a service manager: ready, reloading, stopping, alive, and how things are.

sd_notify(3) and sd_watchdog_enabled(3). Without a service manager all of it says nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from .notify import Notifier

# How long starting, reloading and stopping may take is ours to say: the apps have time limits of their own.
_EXTEND_EVERY_S: Final = 5.0
_EXTENSION_S: Final = 30.0
_STATUS_EVERY_S: Final = 2.0
_STATUS_MAX: Final = 300


class Service:
    """Says in which state this process is. ``summary()`` gives a line about what is served, when it is asked for."""

    def __init__(
        self,
        notifier: Notifier,
        watchdog_s: float | None = None,
        summary: Callable[[], str] = lambda: "",
    ) -> None:
        self._notifier = notifier
        self._summary = summary
        self._is_starting = True
        self._is_stopping = False
        self._reloads = 0
        self._trouble = ""
        self._said = ""
        self._said_at = self._extended_at = self._alive_at = float("-inf")
        self.watchdog_s = watchdog_s
        """For so long it may be silent, in seconds; ``None``: for ever."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], notifier: Notifier, summary: Callable[[], str]) -> Service:
        """As the service manager has asked for it in ``environ``."""
        return cls(notifier, _watchdog_s(environ), summary)

    def ready(self) -> None:
        """Everything serves: ``READY=1`` and ``MAINPID`` of sd_notify(3)."""
        self._is_starting = False
        self._notifier.send("READY=1", f"MAINPID={os.getpid()}", self._status(time.monotonic()))

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """While another configuration is made to run. An exception is the reason why the old one goes on."""
        self._reloads += 1
        if self._reloads == 1:
            now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=Reloading")
        try:
            yield
        except BaseException as exc:
            first = (str(exc).splitlines() or [type(exc).__name__])[0]
            self._trouble = f"Reload at {time.strftime('%H:%M:%S')} refused: {first}"
            raise
        else:
            self._trouble = ""
        finally:
            self._reloads -= 1
            if not self._reloads and not self._is_stopping:
                self._notifier.send("READY=1", self._status(time.monotonic()))

    def stopping(self) -> None:
        """What is in flight is finished, nothing new is begun."""
        self._is_stopping = True
        self._notifier.send("STOPPING=1", "STATUS=Stopping: finishing what is in flight")

    def failed(self, why: str) -> None:
        """It will not serve; ``why`` is the status that is shown, cut to one line."""
        self._notifier.send(f"STATUS={_line('Error: ' + why)}")

    def beat(self) -> None:
        """To be called every second or so, by a daemon that is well."""
        if not self._notifier:
            return
        now = time.monotonic()
        assignments = []
        if self.watchdog_s is not None and now - self._alive_at >= self.watchdog_s / 4:
            self._alive_at = now
            assignments.append("WATCHDOG=1")
        is_busy = self._is_starting or self._is_stopping or self._reloads > 0
        if is_busy and now - self._extended_at >= _EXTEND_EVERY_S:
            self._extended_at = now
            assignments.append(f"EXTEND_TIMEOUT_USEC={int(_EXTENSION_S * 1e6)}")
        if not is_busy and now - self._said_at >= _STATUS_EVERY_S:
            said, status = self._said, self._status(now)
            if status != said:
                assignments.append(status)
        if assignments:
            self._notifier.send(*assignments)

    def _status(self, now: float) -> str:
        self._said_at = now
        self._said = "STATUS=" + _line("; ".join(filter(None, (self._summary(), self._trouble))))
        return self._said


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Seconds from ``WATCHDOG_USEC``, unless ``WATCHDOG_PID`` says that it is for another process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


def _line(text: str) -> str:
    """One line, of bounded length, that a terminal may be shown."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= _STATUS_MAX else shown[: _STATUS_MAX - 1] + "…"
