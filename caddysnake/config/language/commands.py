"""The subdirectives of ``python`` for what runs beside the workers: ``release``, ``process`` and ``schedule``."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Any

from ...caddyfile.dispenser import Dispenser
from . import cron, values
from .directives import SUBDIRECTIVES, AppDraft
from .models import EnvVar, ProcessLine, ReleaseLine, ScheduleLine
from .registry import arguments, block_fields, one, position_of
from .values import InvalidValue
from .variables import check_name, check_value

_subdirective = SUBDIRECTIVES.register

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TIMEOUT = ("timeout_s", one(values.positive_duration))
_SHELLS = ("|", "||", "&&", ">", ">>", "2>&1")
_LEFT_ALONE = re.compile(r"\$\{|\{\}")
"""Braces that are for the command: a shell's ``${NAME}``, and the ``{}`` of ``find`` and ``xargs``."""


@_subdirective("release <command>... [{ timeout <duration> }]", repeatable=True)
def release(d: Dispenser, app: AppDraft) -> None:
    """A command that must succeed before the first worker of a build, such as `python manage.py migrate --noinput`; of
    several, one after the other. A start of the daemon, a reload and a `POST /load` run it, for an app with
    placeholders before its first worker since then. If it fails, or takes longer than `timeout` (5m), the build is
    refused. It is executed as the app is, with its `python` first in `PATH`, no shell, and nothing on its standard
    input. A word may hold placeholders, as the value of `env_var` may; `${NAME}` and `{}` are left to the command."""
    position = position_of(d.token())
    command = _command(_words(d, app), app)
    app.add("releases", ReleaseLine(command=command, **block_fields(d, timeout=_TIMEOUT), position=position))


@_subdirective(
    "process <name> <command>... [{ count <n>, stop_signal <signal>, stop_timeout <duration>, "
    "restart always|on_failure|never, overlap on|off, env_var <name> <value> }]",
    repeatable=True,
)
def process(d: Dispenser, app: AppDraft) -> None:
    """A process that runs beside the workers, such as a queue's; started when they are ready, started again when it
    ends, and executed as `release` is. In the block: `count` of them (1); `restart` says whether one that ended is
    started again (`always`; `on_failure`: unless its exit status was 0). At a reload the old get `stop_signal` (TERM)
    once the new workers serve, and have `stop_timeout` (the `grace_period`) to end; the new start when they have, or
    before with `overlap on`. `env_var` adds to its environment."""
    name, words = _named(d, app, "processes")
    position = position_of(d.token())
    fields: dict[str, Any] = {"name": name, "command": _command(words, app)}
    fields |= block_fields(
        d,
        count=("count", one(values.count, most=1024)),
        stop_signal=("stop_signal", one(_signal)),
        stop_timeout=("stop_timeout_s", one(values.positive_duration)),
        restart=("restart", one(values.choice, ("always", "on_failure", "never"))),
        overlap=("overlap", one(values.on_off)),
        env_var=("env_vars", lambda inner: (_variable(inner, app),)),
    )
    app.add("processes", ProcessLine(**fields, position=position))


@_subdirective(
    "schedule <name> <cron> <command>... "
    "[{ overlap skip|allow, timeout <duration>, jitter <duration>, timezone <name> }]",
    repeatable=True,
)
def schedule(d: Dispenser, app: AppDraft) -> None:
    """A command that runs at certain times, once for the app and not for each worker, executed as `release` is.
    `<cron>` is in quotes: five fields as in crontab(5), with names, or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    `@yearly`. Daylight saving time is handled as by Vixie cron: a time that is skipped runs right after, one that comes
    twice runs once. What is missed while the daemon is down is logged, not made up for. In the block: `overlap skip`,
    the default, skips a run while the last one is not done; `timeout` stops a run; `jitter` begins up to so much later;
    `timezone` is one such as `Europe/Berlin`, by default the machine's."""
    name, words = _named(d, app, "schedules")
    position = position_of(d.token())
    if len(words) < 2:
        raise InvalidValue("takes a name, a cron line in quotes, and a command")
    fields: dict[str, Any] = {"name": name, "cron": words[0], "command": _command(words[1:], app)}
    cron.check(words[0])
    fields |= block_fields(
        d,
        overlap=("overlap", one(lambda text: values.choice(text, ("skip", "allow")) == "allow")),
        timeout=_TIMEOUT,
        jitter=("jitter_s", one(values.positive_duration)),
        timezone=("timezone", one(cron.check_zone)),
    )
    app.add("schedules", ScheduleLine(**fields, position=position))


def _variable(line: Dispenser, app: AppDraft) -> EnvVar:
    name, value = arguments(line, 2, 2)
    check_name(name)
    check_value(value)
    return EnvVar(name, app.template(value))


def _named(d: Dispenser, app: AppDraft, field: str) -> tuple[str, list[str]]:
    words = _words(d, app)
    if not words or not _NAME.fullmatch(words[0]):
        what = "takes a name first" if not words else f"{words[0]!r} is no name"
        raise InvalidValue(what, "a name has letters, digits, _, . and -, and begins with a letter or digit")
    for other in app.fields.get(field, ()):
        if other.name == words[0]:
            raise InvalidValue(f"{words[0]} is there twice, first on line {other.position.line}", "rename one of them")
    return words[0], words[1:]


def _words(d: Dispenser, app: AppDraft) -> list[str]:
    """The arguments of this line. What stands in single quotes, which mean nothing to Caddy, is one, as in a shell."""
    found: list[str] = []
    inside: list[str] | None = None
    while d.next_arg():
        token = d.token()
        text = token.text
        if text in _SHELLS and not token.quote and inside is None:
            app.warnings.append(d.error(f"{text} is a word of the command: no shell reads it", "write sh -c '…'"))
        if inside is None:
            if token.quote or not text.startswith("'"):
                found.append(text)
                continue
            inside, text = [], text[1:]
        elif token.quote:
            raise InvalidValue("a quote within single quotes", "put the whole word into `backquotes` instead")
        inside.append(text.removesuffix("'"))
        if text.endswith("'"):
            found.append(" ".join(inside))
            inside = None
    if inside is not None:
        raise InvalidValue("a word in single quotes does not end", "close it, or put the word into `backquotes`")
    return found


def _command(words: Sequence[str], app: AppDraft) -> tuple[str, ...]:
    if not words or not words[0]:
        raise InvalidValue("names no command")
    if any("\0" in word for word in words):
        raise InvalidValue("a word of the command holds a NUL character")
    return tuple(app.template(_LEFT_ALONE.sub(_escaped, word)) for word in words)


def _escaped(found: re.Match[str]) -> str:
    return found[0].replace("{", "\\{").replace("}", "\\}")


def _signal(text: str) -> str:
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in signal.Signals.__members__:
        raise InvalidValue(f"{text!r} is no signal", "write one such as TERM, INT, QUIT or USR1")
    return name
