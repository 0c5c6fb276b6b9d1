"""What an outage is made of: whether the daemon runs, what of its apps does not, and what has crashed how often."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..config.plan.plan import Plan
from ..daemon.system.cgroups import runs_systemd
from .findings import Finding, Level
from .front import Front
from .reach import Who, entering, may
from .service import Runner, in_container, last_words

TOPIC = "daemon"
_APPS = "apps"
_CRASHES = ("crashed", "memory", "deadline")
_REASON_MAX = 200


def check_daemon(status: Mapping[str, Any] | None, why_not: str, file: str, runner: Runner) -> Iterator[Finding]:
    """Whether the daemon of ``file`` answers (``status``); else ``why_not``."""
    quoted, unit = shlex.quote(file), runner.unit
    if status is not None:
        daemon = status["daemon"]
        where = f", {unit.name}" if unit is not None else ""
        text = f"process {daemon['pid']} runs {file} as {runner.who.name}{where}: {daemon['phase']}"
        yield Finding(Level.GOOD, TOPIC, text)
        if daemon["refused"] is not None:
            text = f"it runs an older configuration: the last reload was refused ({daemon['refused']['code']})"
            mend = f"correct what caddysnake validate --config {quoted} names; caddysnake reload --config {quoted}"
            yield Finding(Level.BAD, TOPIC, f"{text}: {_end(daemon['refused']['error'])}", mend)
        return
    if unit is not None and (unit.is_down or unit.restarts):
        again = f" and has been started {unit.restarts} times again" if unit.restarts else ""
        words = last_words(unit)
        said = f": {words[:_REASON_MAX]}" if words else f" ({unit.result})"
        yield Finding(Level.BAD, TOPIC, f"{unit.name} is {unit.state}{again}{said}", unit.log)
        return
    if unit is not None:
        yield Finding(Level.BAD, TOPIC, f"{unit.name} does not run", f"systemctl start {unit.name}")
        return
    yield Finding(Level.DOUBT, TOPIC, f"no daemon runs {file}: {why_not}", f"caddysnake run --config {quoted}")
    text = "whether its apps can be imported is not known while none runs it"
    yield Finding(Level.DOUBT, _APPS, text, f"caddysnake validate --import --config {quoted}")


def check_apps(status: Mapping[str, Any]) -> Iterator[Finding]:
    """What of the apps does not run, or has failed."""
    is_well = True
    for app in status["apps"]:
        name, failure, refused = app["name"], app["last_failure"], app["refused"]
        again = f"caddysnake reload --app {shlex.quote(app['key'])}"
        crashes = {cause: count for cause, count in app["restarts"].items() if cause in _CRASHES}
        told = ", ".join(f"{cause} {count}" for cause, count in sorted(crashes.items()))
        if app["state"] in ("failing", "broken") or (not app["workers_ready"] and failure is not None):
            why = refused or failure
            reason = f" ({why['code']}): {_end(why['error'])}" if why is not None else ""
            yield Finding(Level.BAD, _APPS, f"{name} has no worker{reason}", f"correct that; {again}")
        elif refused is not None:
            text = f"{name}: its newest code does not start ({refused['code']}): {_end(refused['error'])}"
            yield Finding(Level.BAD, _APPS, text, f"correct that; {again}")
        elif crashes:
            level = Level.DOUBT if failure is None or failure["over_at"] is not None else Level.BAD
            last = f"; the last: {_end(failure['error'])}" if failure is not None else ""
            yield Finding(level, _APPS, f"workers of {name} have ended unasked: {told}{last}", _of_crashes(crashes))
        else:
            continue
        is_well = False
    for listener in status["listeners"]:
        if listener.get("trouble"):
            text = f"nobody can connect to {listener['address']}: {listener['trouble']}"
            yield Finding(Level.BAD, _APPS, text, "the daemon makes it anew within seconds; else `caddysnake reload`")
            is_well = False
    if is_well and status["apps"]:
        yield Finding(Level.GOOD, _APPS, f"{len(status['apps'])} up, and none has crashed")


def check_beside(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Processes that end again and again, and schedules whose last run has failed."""
    for owner in (*status["apps"], *status["templates"]):
        name = owner["name"]
        log = f"caddysnake logs {shlex.quote(name) if 'key' in owner else ''} --process".replace("  ", " ")
        for each in owner.get("processes", ()):
            if each["state"] == "failed":
                text = f"process {each['name']} of {name} ends again and again: {_end(each['last_end']['reason'])}"
                yield Finding(Level.BAD, _APPS, text, f"{log} {each['name']}")
        for each in owner["schedules"]:
            run = each["last_run"]
            if run is not None and not run["ok"]:
                when = time.strftime("%F %H:%M", time.localtime(run["at"]))
                text = f"schedule {each['name']} of {name}: its last run, {when}, failed: {_end(run['reason'])}"
                yield Finding(Level.BAD, _APPS, text, f"{log} {each['name']}")


def _of_crashes(causes: Mapping[str, int]) -> str:
    if "crashed" in causes:
        return "`caddysnake logs --level error` has the signal or the exit status of each"
    return "raise `limits { memory }`" if "memory" in causes else "`caddysnake logs --level error` has its stacks"


def check_interpreters(plan: Plan, runner: Runner, users: Mapping[str, Who]) -> Iterator[Finding]:
    """Whether each app's user gets to its interpreter. ``users``: those that blocks name."""
    for app in plan.apps:
        if app.block.placeholders or not app.python:
            continue
        who = users.get(app.block.user or "", runner.who)
        real = os.path.realpath(app.python)
        obstacle = entering(who, os.path.dirname(real)) or entering(who, os.path.dirname(app.python))
        try:
            is_barred = obstacle is None and not may(who, os.stat(real), 1)
        except OSError:
            continue  # the file's own check has said so
        if obstacle is not None or is_barred:
            where = real if obstacle is None else obstacle.path
            text = f"{app.name}: user {who.name} cannot execute {app.python}: it may not enter, or execute, {where}"
            venv = os.path.dirname(os.path.dirname(app.python))
            mend = f"/usr/bin/python3 -m venv --clear {shlex.quote(venv)}, and install its packages again"
            yield Finding(Level.BAD, "software", text, mend)


def check_front(front: Front | None) -> Iterator[Finding]:
    """Whether a Caddy runs."""
    if front is not None and front.pid is not None:
        yield Finding(Level.GOOD, "caddy", f"Caddy runs: process {front.pid}, user {front.who.name}")
    elif runs_systemd():
        yield Finding(Level.BAD, "caddy", "no Caddy runs on this machine", "systemctl start caddy")
    else:
        mend = "let its container be in the socket's group: --group-add GID" if in_container() else ""
        yield Finding(Level.DOUBT, "caddy", "no Caddy can be seen here; in a container of its own it cannot be", mend)


def _end(text: str) -> str:
    """What a traceback says in the end."""
    return text.rstrip().rpartition("\n")[2].strip()[:_REASON_MAX]
