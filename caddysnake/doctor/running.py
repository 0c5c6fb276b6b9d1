"""What an outage is made of: whether the daemon runs, what of its apps does not, and what has crashed how often."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..config.plan.plan import Plan
from ..daemon.system.cgroups import runs_systemd
from .findings import Finding, Silence, Topic, stuck
from .front import Front
from .reach import Who, entering, group_of, may
from .service import Runner, in_container, last_words, shortened, units

TOPIC = Topic("daemon")
_APPS, _SOFTWARE, _CADDY = Topic("apps"), Topic("software"), Topic("caddy")
_CRASHES = ("crashed", "memory", "deadline")
_ERRORS = 20
"""One request in so many may fail without a word."""


def check_daemon(
    status: Mapping[str, Any] | None,
    why_not: str,
    file: str,
    runner: Runner,
    holder: int | None = None,
    silence: Silence = Silence.UNKNOWN,
    with_caddy: bool = False,
) -> Iterator[Finding]:
    """Whether the daemon of ``file`` answers (``status``); else ``why_not``. ``holder``: of its sockets.
    ``with_caddy``: it is, or would be, `run --caddy`.
    """
    quoted, unit = shlex.quote(file), runner.unit
    start = f"caddysnake run{' --caddy' if with_caddy else ''} --config {quoted}"
    if status is not None:
        daemon = status["daemon"]
        where = f", {unit.name}" if unit is not None else ""
        yield TOPIC.good(f"process {daemon['pid']} runs {file} as {runner.who.name}{where}: {daemon['phase']}")
        if daemon["refused"] is not None:
            text = f"it runs an older configuration: the last reload was refused ({daemon['refused']['code']})"
            fix = _then(f"caddysnake reload --config {quoted}")
            yield TOPIC.bad(f"{text}: {_end(daemon['refused']['error'])}", fix)
        return
    hangs = silence is Silence.HANGS
    pid = holder or (0 if unit is None else unit.pid)
    if silence is Silence.STOPPED and pid:
        yield TOPIC.bad(f"process {pid} runs {file}, but has been stopped", f"kill -CONT {pid}")
    elif unit is not None and (unit.state != "active" or hangs):
        yield TOPIC.bad(*unit.silence())
    elif unit is not None:
        yield TOPIC.doubt(f"{unit.name} runs, and cannot be asked: {why_not}")
    elif hangs and holder is not None:
        text = f"process {holder} runs {file}, but does not answer: it hangs"
        yield TOPIC.bad(text, f"kill -KILL {holder} && {start}")
    elif silence is Silence.DENIED:
        yield TOPIC.doubt(f"it cannot be asked: {why_not}", f"sudo caddysnake doctor --config {quoted}")
    elif holder is not None and silence is not Silence.ABSENT:
        yield TOPIC.doubt(f"it cannot be asked: {why_not}", f"caddysnake status --config {quoted}")
    else:
        why = "" if silence is Silence.ABSENT else f": {why_not}"
        yield TOPIC.doubt(f"no daemon runs {file}{why}", start)
        text = "whether its apps can be imported is not known while none runs it"
        yield _APPS.doubt(text, f"caddysnake validate --import --config {quoted}")


def check_apps(status: Mapping[str, Any]) -> Iterator[Finding]:
    """What of the apps does not run, or has failed."""
    is_well, file = True, shlex.quote(status["daemon"]["file"])
    logs = f"caddysnake logs --level error --config {file}"
    for app in status["apps"]:
        name, failure, refused = app["name"], app["last_failure"], app["refused"]
        again = f"caddysnake reload --app {shlex.quote(app['key'])} --config {file}"
        crashes = {cause: count for cause, count in app["restarts"].items() if cause in _CRASHES}
        told = ", ".join(f"{cause} {count}" for cause, count in sorted(crashes.items()))
        if app["state"] in ("failing", "broken") or (not app["workers_ready"] and failure is not None):
            why = refused or failure
            reason = f" ({why['code']}): {_end(why['error'])}" if why is not None else ""
            yield _APPS.bad(f"{name} has no worker{reason}", _then(again))
        elif refused is not None:
            text = f"{name}: its newest code does not start ({refused['code']}): {_end(refused['error'])}"
            yield _APPS.bad(text, _then(again))
        elif crashes:
            told_of = _APPS.doubt if failure is None or failure["over_at"] is not None else _APPS.bad
            last = f"; the last: {_end(failure['error'])}" if failure is not None else ""
            yield told_of(f"workers of {name} failed: {told}{last}", _of_crashes(crashes, last, logs))
        if (found := stuck(app)) is not None:
            text, pid = found
            fix = f"`caddysnake dump {pid} --config {file}` shows what it waits for; request_timeout bounds it"
            yield _APPS.bad(f"{name}: {text}", fix)
        errors, requests = app["traffic"]["errors"], app["traffic"]["requests"]
        fails = errors * _ERRORS > requests
        if fails:
            text = f"{name}: {errors} of {requests} requests since the daemon's start were answered with 5xx, or cut"
            yield _APPS.doubt(text, f"`{logs}` has the exceptions, and the codes")
        is_well = is_well and not (crashes or found or refused or fails) and app["state"] == "serving"
    for listener in status["listeners"]:
        if listener.get("trouble"):
            text = f"nobody can connect to {listener['address']}: {listener['trouble']}"
            yield _APPS.bad(text, "the daemon makes it anew within seconds; else `caddysnake reload`")
            is_well = False
    if is_well and status["apps"]:
        yield _APPS.good(f"{len(status['apps'])} up, and none has crashed")


def check_beside(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Processes that end again and again, and schedules whose last run has failed."""
    command = f"caddysnake logs --config {shlex.quote(status['daemon']['file'])}"
    for owner in (*status["apps"], *status["templates"]):
        name = owner["name"]
        log = f"{command}{f' {shlex.quote(name)}' if 'key' in owner else ''} --process"
        for each in owner.get("processes", ()):
            if each["state"] == "failed":
                text = f"process {each['name']} of {name} ends again and again: {_end(each['last_end']['reason'])}"
                yield _APPS.bad(text, f"{log} {each['name']}")
        for each in owner["schedules"]:
            run = each["last_run"]
            if run is not None and not run["ok"]:
                when = time.strftime("%F %H:%M", time.localtime(run["at"]))
                text = f"schedule {each['name']} of {name}: its last run, {when}, failed: {_end(run['reason'])}"
                yield _APPS.bad(text, f"{log} {each['name']}")


def _of_crashes(causes: Mapping[str, int], last: str, logs: str) -> str:
    if "SIGKILL" in last:
        return "`journalctl --dmesg --grep 'out of memory'` says whether the kernel did it; `max_memory` acts before"
    if "memory" not in causes:
        return f"`{logs}` has the signal or the exit status, and the stacks, of each"
    if "service" in last:
        return "raise MemoryMax= of the unit, or replace workers before it is reached: `max_memory` in the block"
    return "raise `limits { memory }`, or replace workers before it is reached: `max_memory` in the block"


def check_reach(plan: Plan, runner: Runner, users: Mapping[str, Who]) -> Iterator[Finding]:
    """Whether each app's user gets to its interpreter and its folder. ``users``: those that blocks name."""
    for app in plan.apps:
        if app.block.placeholders or not app.python:
            continue
        who = users.get(app.block.user or "", runner.who)
        real, venv = os.path.realpath(app.python), os.path.dirname(os.path.dirname(app.python))
        closed = _closed(who, real, os.path.dirname(real), 1)
        if closed is not None:
            text = f"{app.name}: user {who.name} cannot execute {app.python}: it may not enter, or execute, {closed}"
            is_venv = os.path.isfile(os.path.join(venv, "pyvenv.cfg"))
            anew = f"/usr/bin/python3 -m venv --clear {shlex.quote(venv)}, and install its packages again"
            yield _SOFTWARE.bad(text, anew if is_venv else _let_in(who, closed))
            continue
        files = [os.path.join(app.working_dir, name) for name in app.block.env_files]
        for path in (os.path.dirname(app.python), app.working_dir, *files):
            closed = _closed(who, path, os.path.dirname(path) if path in files else path, 4 if path in files else 5)
            if closed is not None:
                verb = "enter" if os.path.isdir(closed) else "read"
                yield _APPS.bad(f"{app.name}: user {who.name} may not {verb} {closed}", _let_in(who, closed))
                break


def _let_in(who: Who, path: str) -> str:
    """The group of ``who``, and nobody else."""
    bits = "rx" if os.path.isdir(path) or os.access(path, os.X_OK) else "r"
    return f"chgrp {shlex.quote(group_of(who))} {shlex.quote(path)} && chmod g+{bits} {shlex.quote(path)}"


def _closed(who: Who, path: str, folder: str, bits: int) -> str | None:
    """What keeps ``who`` from doing ``bits`` with ``path``, which is or is in ``folder``; None also of what is not
    there: the file's own check says so.
    """
    obstacle = entering(who, folder)
    if obstacle is not None:
        return obstacle.path if obstacle.info is not None else None
    with contextlib.suppress(OSError):
        info = os.stat(path)
        return None if all(may(who, info, bit) for bit in (1, 4) if bits & bit) else path
    return None


def check_front(front: Front | None, plan: Plan | None, runner: Runner) -> Iterator[Finding]:
    """Whether a Caddy runs, where the file has a socket that only one on this machine can connect to."""
    if front is not None and front.pid is not None:
        yield _CADDY.good(f"Caddy runs: process {front.pid}, user {front.who.name}")
        if runs_systemd() and any(unit.state != "active" for unit in units("caddy.service")):
            text = f"caddy.service does not run; process {front.pid} is another Caddy"
            yield _CADDY.doubt(text, "if the service is to be in front: systemctl start caddy")
    elif plan is not None and not any(listener.path for listener in plan.listeners):
        return
    elif not runs_systemd():
        fix = f"let its container be in the socket's group: --group-add {runner.gid}" if in_container() else ""
        yield _CADDY.doubt("no Caddy can be seen here; in a container of its own it cannot be", fix)
    elif not (found := units("caddy.service")):
        text = "no Caddy runs on this machine, and there is no caddy.service"
        yield _CADDY.bad(text, "start yours, or apt-get install caddy")
    elif found[0].is_down:
        words = shortened(last_words(found[0]))
        fix = _then("systemctl restart caddy") if words else found[0].log
        yield _CADDY.bad(f"caddy.service is down: {words or found[0].result}", fix)
    else:
        yield _CADDY.bad("no Caddy runs on this machine", "systemctl start caddy")


def _then(command: str) -> str:
    return f"correct that, then `{command}`"


def _end(text: str) -> str:
    """What a traceback says in the end: the exception, with the advice that follows it in parentheses."""
    lines = [line.strip() for line in text.strip().splitlines()]
    is_advice = len(lines) > 1 and lines[-1].startswith("(")
    return shortened(" ".join(lines[-2:] if is_advice else lines[-1:]))
