"""Look for what is wrong with this machine and a Caddyfile's place on it, and say how to fix it.

Looks at the file itself, whether the daemon, its apps and Caddy run and what has crashed, the sockets and whether
Caddy's user gets to them, limits, versions, the isolation of apps and what a daemon that is gone has left. What is
worst comes first. Nothing is changed, and no code of an app is run. Ask as root, or as the user that the daemon runs
as. Exits with 1 when something does not work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import orjson

from ..config.check.commands import missing_commands
from ..config.check.sandbox import sandboxes
from ..config.language.adapt import ConfigErrors
from ..config.plan.fence import unwalled
from ..config.plan.isolation import shared
from ..config.plan.plan import Plan
from ..doctor.findings import Finding, Level, Silence, Topic
from ..doctor.front import find_front, upstreams
from ..doctor.machine import check_machine, isolating
from ..doctor.reach import Who, of_database
from ..doctor.running import check_apps, check_beside, check_daemon, check_front, check_reach
from ..doctor.service import Runner, in_container, runner_of
from ..doctor.sockets import check_sockets, check_upstreams, holder_of
from ..doctor.software import check_software
from ..logs.records import printable_json
from .calling import CallFailed, call
from .finding import file_asked_for, find
from .planning import planned
from .reading import DEFAULT_FILE, CommandFailed, ReadError, read

_ASK_S = 5.0
_FILE, _ISOLATION = Topic("file"), Topic("isolation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-c", "--config", metavar="FILE", help="the Caddyfile (default: ./Caddyfile, if there is one)")
    parser.add_argument("--caddy", action="store_true", help="look at it as run --caddy would read it")
    parser.add_argument("--caddy-user", metavar="USER", help="the user Caddy runs as (default: found out)")
    parser.add_argument("--json", action="store_true", help="print findings as JSON")


def main(args: argparse.Namespace) -> int:
    """Examine; 1 when something does not work, else 0."""
    try:
        front = None if args.caddy else find_front(args.caddy_user)
    except LookupError:
        raise CommandFailed(f"there is no user {args.caddy_user}") from None
    if front is not None and front.is_guess and in_container():
        front = None  # it is in a container of its own, with users of its own
    file = _file_of(args)
    status, why_not, silence = _ask(file)
    runner = runner_of(file, None if status is None else status["daemon"]["pid"])
    plan, findings = _read(args, runner)
    if file is not None:
        holders = [holder_of(each.path) for each in (() if plan is None else plan.listeners)]
        holder = next(filter(None, holders), None)
        findings += check_daemon(status, why_not, file, runner, holder, silence, args.caddy)
    if status is not None:
        findings += [*check_apps(status), *check_beside(status)]
    # Under --caddy the daemon's own child connects: whether it is there, and may, is not in question.
    findings += [] if args.caddy else check_front(front, plan, runner)
    findings += check_software(plan, os.environ)
    findings += check_machine(plan, runner=runner)
    if plan is not None:
        if not args.caddy:
            findings += check_sockets(plan.listeners, front, runner)
            named = upstreams() if front is not None and front.pid is not None else None
            findings += check_upstreams(plan.listeners, named, file or "Caddyfile")
        findings += check_reach(plan, runner, _users(plan))
        findings += _isolation(plan, runner)
    findings.sort(key=lambda finding: list(Level).index(finding.level), reverse=True)
    (_print_json if args.json else _print)(findings)
    return 1 if any(finding.level is Level.BAD for finding in findings) else 0


def _file_of(args: argparse.Namespace) -> str | None:
    """The absolute path of the file, if there is one."""
    try:
        return file_asked_for(args.config) if args.config or os.path.exists(DEFAULT_FILE) else None
    except CallFailed:
        return None


def _ask(file: str | None) -> tuple[dict[str, Any] | None, str, Silence]:
    """What the daemon of ``file`` says of itself, or why it says nothing."""
    if file is None:
        return None, "", Silence.UNKNOWN
    try:
        return call(find(None, file), "GET", "/status", _ASK_S), "", Silence.UNKNOWN
    except CallFailed as exc:
        return None, str(exc).partition("\n")[0], exc.silence


def _users(plan: Plan) -> dict[str, Who]:
    """Those that blocks name, as far as they are there."""
    found = {}
    for name in {app.block.user for app in plan.apps if app.block.user and not app.block.placeholders}:
        with contextlib.suppress(LookupError):
            found[name] = of_database(name)
    return found


def _read(args: argparse.Namespace, runner: Runner) -> tuple[Plan | None, list[Finding]]:
    """The plan of the file, if there is one that can be read, and what is wrong with it."""
    if args.config is None and not os.path.exists(DEFAULT_FILE):
        text = f"no {DEFAULT_FILE} here: only the machine is looked at"
        return None, [_FILE.doubt(text, "caddysnake doctor --config FILE")]
    try:
        source = read(args.config)
    except ReadError as exc:
        return None, [_FILE.bad(str(exc))]
    try:
        socket_dir = None if runner.unit is None else runner.unit.socket_dir
        plan, errors = planned(source, with_caddy=args.caddy, socket_dir=socket_dir)[1:3]
    except ConfigErrors as exc:
        fix = f"caddysnake validate -c {source.file}"
        return None, [_FILE.bad(str(error), fix) for error in exc.errors]
    if not args.caddy:  # what is said of sockets knows who makes their folders, and how
        elsewhere = ["create it: mkdir"] + ["not writable for the daemon's user"] * (runner.who.uid != os.geteuid())
        errors = [each for each in errors if not any(words in str(each) for words in elsewhere)]
    errors = [*errors, *missing_commands(plan, os.environ)]
    if errors:
        told = [(str(error).removesuffix(f" ({error.hint})"), error.hint or "") for error in errors]
        return plan, [_FILE.bad(*each) for each in told]
    return plan, [_FILE.good(f"{source.file} can be run")]


def _isolation(plan: Plan, runner: Runner) -> Iterator[Finding]:
    walled = {app.name for app in plan.apps} - set(unwalled(plan))
    found = [each for each in shared(plan, runner.who.uid) if not walled.issuperset(each.apps)]
    for each in found:
        yield _ISOLATION.doubt(str(each), isolating(runner, each.uid))
    for text in sandboxes(plan):
        yield _ISOLATION.good(text)
    if not walled and not found and len(plan.apps) > 1:
        yield _ISOLATION.good("each app has a user of its own")


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{finding.level.value:5}  {finding.topic:{width}}  {finding.text}")
        if finding.fix:
            print(f"{'':5}  {'':{width}}    fix: {finding.fix}")


def _print_json(findings: list[Finding]) -> None:
    rows = [{**finding._asdict(), "level": finding.level.value} for finding in findings]
    print(printable_json(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode()))
