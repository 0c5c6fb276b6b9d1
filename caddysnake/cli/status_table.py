"""The daemon's status as text for a terminal. Pure: the API's answer, and one from before it for rates, to lines."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..channel.vitals import quantile
from ..doctor.findings import stuck
from . import beside
from .beside import span

Status = Mapping[str, Any]

_NAME_MAX = 44
_REASON_MAX = 100
_TRACEBACK_LINES = 8
_APPS_LEAST = 5
_LEAST_WIDTH = 8
_APPS_SPARED = (3, 11, 9, 6, 4, 12, 10, 8)
"""Of the table of apps: which build it is and how large, then how busy, how often replaced, how fast."""


class Columns(NamedTuple):
    """A table: its head, its rows, and which columns are numbers."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[int]
    spared: tuple[int, ...] = ()
    """Columns that give way where there is no room, the least urgent first."""


def overview(
    now: Status,
    before: Status | None = None,
    passed_s: float = 0.0,
    lines_max: int | None = None,
    width: int | None = None,
) -> list[str]:
    """Everything at a glance. With ``before``, ``passed_s`` seconds ago, rates and durations are of that time.

    Where that makes more than ``lines_max`` lines, apps give way, those first that nobody asks for and nothing ails.
    Lines are no longer than ``width``: columns give way, names are cut, text goes on in the next line.
    """
    clock = time.time()
    above = wrapped([*_daemon(now["daemon"], clock), ""], width)
    below = ["", *table(_listeners(now), width)]
    if now["templates"]:
        below += ["", *table(_templates(now), width)]
    if notes := _notes(now, clock):
        below += ["", *wrapped(notes, width)]
    earlier = {} if before is None else {app["key"]: app for app in before["apps"]}
    apps, left_out = now["apps"], 0
    if lines_max is not None and len(above) + 1 + len(apps) + len(below) > lines_max:
        # Less the table's head, and the line that says that there are more.
        apps = _foremost(apps, earlier, max(lines_max - len(above) - len(below) - 2, _APPS_LEAST))
        left_out = len(now["apps"]) - len(apps)
    below = [*_beside(now, clock, width), *below]
    more = [f"  … and {left_out} more"] if left_out else []
    rows = table(_apps(apps, now, earlier, passed_s, before is not None), width)
    return [*above, *rows, *more, *below]


def one_app(now: Status, key: str, width: int | None = None) -> list[str]:
    """The app of ``key`` at a glance: its workers, where it listens, and what ails it."""
    app = next(each for each in now["apps"] if each["key"] == key)
    clock = time.time()
    alone = {**now, "apps": [app], "listeners": [each for each in now["listeners"] if app["name"] in each["apps"]]}
    workers = Columns(
        ("PID", "STATE", "UP", "CONNECTIONS", "IN FLIGHT", "MEMORY", "CPU", "RUNS"),
        [
            (
                str(each["pid"]),
                each["state"],
                span(each["age_s"]),
                str(each["connections"]),
                str(each["in_flight"]),
                size(each["memory_bytes"]),
                f"{each['cpu_s']:.1f} s",
                each["runs"],
            )
            for each in app["workers"]
        ],
        frozenset((0, 2, 3, 4, 5, 6)),
        (7, 3, 6),
    )
    lines = [*table(_apps([app], now, {}, 0.0, with_rates=False), width), ""]
    lines += wrapped([f"folder {app['working_dir']}", f"python {app['python']}"], width)
    lines += ["", *table(workers, width), *_beside({**alone, "templates": []}, clock, width)]
    lines += ["", *table(_listeners(alone), width)]
    notes = wrapped(_notes(alone, clock), width)
    return [*lines, *([""] if notes else []), *notes]


def _beside(now: Status, clock: float, width: int | None) -> list[str]:
    """Processes and schedules, where there are any."""
    found: list[str] = []
    for head, rows in (
        beside.processes(now["apps"], clock),
        beside.schedules([*now["apps"], *now["templates"]], clock),
    ):
        if rows:
            short = [(cut(row[0]), *row[1:]) for row in rows]
            found += ["", *table(Columns(head, short, frozenset((3, 5)) if "PID" in head else frozenset()), width)]
    return found


def _foremost(apps: Sequence[Status], earlier: Mapping[str, Status], most: int) -> list[Status]:
    """Those with trouble, then the busiest, in the order that they were in."""

    def rank(app: Status) -> tuple[bool, int]:
        former = earlier[app["key"]]["traffic"]["requests"] if app["key"] in earlier else 0
        is_ill = app["state"] != "serving" or app["refused"] is not None or app["waiting"] > 0
        return is_ill, app["traffic"]["requests"] - former

    chosen = {app["key"] for app in sorted(apps, key=rank, reverse=True)[:most]}
    return [app for app in apps if app["key"] in chosen]


def _daemon(daemon: Status, clock: float) -> list[str]:
    up = span(clock - daemon["started_at"])
    lines = [
        f"caddysnake {daemon['version']} on {daemon['python']}, process {daemon['pid']}: {daemon['phase']}, up {up}",
        f"runs {daemon['file']}"
        + (f", as it was read {span(clock - daemon['build']['since_at'])} ago" if daemon["build"] else ""),
        f"memory {size(daemon['memory_bytes'])}   cpu {daemon['cpu_s']:.1f} s   connections {daemon['connections']}   "
        f"files {daemon['open_files']} of {daemon['open_files_limit']}",
        f"admin {daemon['admin']}",
    ]
    if daemon["memory_budget_bytes"] is not None:
        used = "-" if daemon["memory_used_bytes"] is None else size(daemon["memory_used_bytes"])
        lines.append(f"memory_budget {size(daemon['memory_budget_bytes'])}, of which workers have {used}")
    refused = daemon["refused"]
    if refused is not None:
        lines += ["", f"! The last reload was refused {span(clock - refused['last_at'])} ago{_tries(refused)}:"]
        lines += _excerpt(refused["error"])
    return lines


def _tries(refused: Status) -> str:
    return f", and {refused['tries'] - 1} before it" if refused["tries"] > 1 else ""


def _apps(
    apps: Sequence[Status], now: Status, earlier: Mapping[str, Status], passed_s: float, with_rates: bool
) -> Columns:
    last = "REQ/S" if with_rates else "REQUESTS"
    busy = ("ERRORS", "IN FLIGHT", "QUEUE", "QUEUE TIME", "MEDIAN", "P95")
    head = ("APP", "STATE", "WORKERS", "BUILD", last, *busy, "MEMORY", "RESTARTS")
    rows = []
    for app in apps:
        traffic, former = app["traffic"], earlier.get(app["key"], {}).get("traffic")
        latencies, queues = traffic["latencies"], traffic["queues"]
        count = str(traffic["requests"])
        if with_rates:
            since = traffic["requests"] - (former["requests"] if former else 0)
            count = f"{max(since, 0) / passed_s:.1f}" if passed_s else "0"
            if former:
                latencies = [max(a - b, 0) for a, b in zip(latencies, former["latencies"], strict=True)]
                queues = [max(a - b, 0) for a, b in zip(queues, former["queues"], strict=True)]
        rows.append(
            (
                ("  " if app["template"] else "") + cut(app["name"]),
                app["state"] + ("!" if app["refused"] else ""),
                f"{app['workers_ready']}/{app['workers_wanted']}" + _range(app),
                str(app["build"]["number"]) if app["build"] else "-",
                count,
                str(traffic["errors"]),
                str(app["in_flight"]),
                str(app["waiting"]),
                milliseconds(quantile(0.95, now["queue_bounds_s"], queues)),
                milliseconds(quantile(0.5, now["latency_bounds_s"], latencies)),
                milliseconds(quantile(0.95, now["latency_bounds_s"], latencies)),
                size(app["memory_bytes"]),
                str(sum(app["restarts"].values())),
            )
        )
    return Columns(head, rows, frozenset(range(2, len(head))), _APPS_SPARED)


def _range(app: Status) -> str:
    return f" ({app['workers_least']}-{app['workers_most']})" if app["workers_most"] > app["workers_least"] else ""


def _listeners(now: Status) -> Columns:
    rows = [(each["address"], each["mode"], cut(", ".join(each["apps"])), each["reason"]) for each in now["listeners"]]
    return Columns(("LISTENER", "MODE", "APPS", "WHY"), rows, frozenset(), (3, 1))


def _templates(now: Status) -> Columns:
    rows = [
        (
            cut(each["name"]),
            f"{each['live']} of {each['capacity']}",
            str(each["starting"]),
            str(each["leaving"]),
            str(each["traffic"]["requests"]),
            str(sum(each["restarts"].values())),
            ", ".join(f"{code} {count}" for code, count in sorted(each["refusals"].items())) or "-",
        )
        for each in now["templates"]
    ]
    head = ("TEMPLATE", "LIVE", "STARTING", "LEAVING", "REQUESTS", "RESTARTS", "REFUSED")
    return Columns(head, rows, frozenset(range(1, 6)), (3, 2, 5))


def _notes(now: Status, clock: float) -> list[str]:
    """What somebody should know who was woken up."""
    found = [
        f"! {each['address']}: its socket is gone, nobody can connect: {each['trouble']}"
        for each in now["listeners"]
        if each.get("trouble")
    ]
    for app in now["apps"]:
        name, refused, failure = cut(app["name"]), app["refused"], app["last_failure"]
        if refused is not None:
            runs = f"build {app['build']['number']} keeps serving" if app["build"] else "nothing serves"
            when = span(clock - refused["last_at"])
            what = f"build {refused['number']} was refused {when} ago ({refused['code']}{_tries(refused)}); {runs}"
            found += [f"! {name}: {what}", *_excerpt(refused["error"])]
        if (held := stuck(app)) is not None:
            found.append(f"! {name}: {held[0]} (caddysnake dump {held[1]})")
        found += _builds(name, app, clock)
        if app["scaled"]:
            fixed = ", until the next reload" if app["workers_asked_for"] else ""
            since, why = span(clock - app["scaled"]["at"]), app["scaled"]["reason"]
            found.append(f"- {name}: {app['scaled']['workers']} workers since {since} ({why}{fixed})")
        if app["restarts"]:
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(app["restarts"].items()))
            found.append(f"- {name}: workers replaced: {causes}")
        if failure is not None:
            found += _failure(name, failure, clock, is_told=refused is not None)
    found += _memory_limits(now)
    open_ones = [app for app in now["apps"] if app.get("sandbox", "off") != "walled"]
    shared = {tuple(sorted((app["template"] or app["name"], *app["shared_with"]))) for app in open_ones}
    for names in sorted(names for names in shared if len(names) > 1):
        found.append(f"- not isolated, they run as one user: {', '.join(map(cut, names))}")
    kinds = {(app["sandbox"], app["sandbox_holds"]) for app in now["apps"] if app.get("sandbox", "off") != "off"}
    for kind, holds in sorted(kinds):
        walled = [app for app in now["apps"] if (app["sandbox"], app["sandbox_holds"]) == (kind, holds)]
        found.append(f"- {kind}: {_names(walled)}: {holds}")
    alone = [app for app in open_ones if not app["isolated"] and not app["shared_with"]]
    if own := _names([app for app in alone if app["user"] is None]):
        found.append(f"- not isolated from the daemon, as whose user they run: {own}")
    return found


def _names(apps: Sequence[Status]) -> str:
    """Of apps; of those of a template, its own."""
    return ", ".join(sorted({cut(app["template"] or app["name"]) for app in apps}))


def _failure(name: str, failure: Status, clock: float, *, is_told: bool) -> list[str]:
    """One that is over is a line; of one that is not, the reason too, unless it ``is_told`` already."""
    line = f"- {name}: a worker failed {span(clock - failure['at'])} ago ({failure['code']})"
    if failure["over_at"] is not None:
        last = cut(failure["error"].rstrip().rpartition("\n")[2].strip(), _REASON_MAX)
        return [f"{line}, over since {span(clock - failure['over_at'])}: {last}"]
    return [line, *([] if is_told else _excerpt(failure["error"]))]


def _builds(name: str, app: Status, clock: float) -> list[str]:
    """Builds beside the one that serves."""
    found = []
    trial, kept = app["trial"], app["kept"]
    if trial is not None:
        left = span(max(0.0, trial["ends_at"] - clock))
        found.append(f"- {name}: a new build is on trial with {trial['share']:.1%} of the requests, {left} left")
        for which in ("new", "old"):
            each = trial[which]
            p95 = milliseconds(each["p95_s"])
            found.append(f"    {which}: {each['requests']} requests, {each['errors']} errors, p95 {p95}")
    if kept is not None:
        workers = f"{kept['workers']} worker{'' if kept['workers'] == 1 else 's'}, which are not replaced"
        left = span(max(0.0, kept["until_at"] - clock))
        found.append(f"- {name}: build {kept['build']} is kept for {left} ({workers}): caddysnake rollback")
    return found


def _memory_limits(now: Status) -> list[str]:
    """What `limits { memory }` is worth here."""

    def whose(limit: str, kind: str) -> str:
        return _names([app for app in now["apps"] if any(each.get(limit) == kind for each in app["workers"])])

    found = []
    if names := whose("memory_limit", "cgroup"):
        found.append(f"- memory is limited for a worker with all that it has started (cgroup): {names}")
    if names := whose("memory_limit", "rlimit"):
        why = now["daemon"].get("no_cgroup_because")
        found.append(f"- memory is limited for each process by itself (RLIMIT_DATA): {names}")
        found += [f"    no cgroup: {why}"] if why else []
    if names := whose("cpu_limit", "none"):
        found.append(f"! processor time is not limited, whatever limits {{ cpu }} says: {names}")
        found.append(f"    {now['daemon'].get('no_cpu_limit_because') or 'its cgroup could not be made'}")
    return found


def _excerpt(text: str) -> list[str]:
    """The end of a traceback, where the reason is."""
    lines = text.rstrip().splitlines()
    shown = lines[-_TRACEBACK_LINES:]
    return ["    …"] * (len(shown) < len(lines)) + [f"    {line}" for line in shown]


def table(columns: Columns, width: int | None = None) -> list[str]:
    """Its lines, no longer than ``width`` if that can be."""
    rows = [columns.head, *columns.rows]
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns.head))]
    kept = _fitting(widths, columns.spared, width)
    if width is not None and (excess := _taken(widths, kept) - width) > 0:
        _shorten(widths, [number for number in kept if number not in columns.numbers], excess)
    lines = []
    for row in rows:
        cells = []
        for number in kept:
            cell = cut(row[number], widths[number])
            cells.append(cell.rjust(widths[number]) if number in columns.numbers else cell.ljust(widths[number]))
        lines.append("  ".join(cells).rstrip())
    return lines if columns.rows else [*lines, "none"]


def _taken(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[number] for number in kept) + 2 * (len(kept) - 1)


def _fitting(widths: Sequence[int], spared: Sequence[int], width: int | None) -> list[int]:
    """The columns that are shown: those that are spared go, the first of them first, until there is room."""
    kept = list(range(len(widths)))
    for number in spared:
        if width is None or _taken(widths, kept) <= width:
            break
        kept.remove(number)
    return kept


def _shorten(widths: list[int], texts: Sequence[int], excess: int) -> None:
    """Take ``excess`` characters from the widest of the columns ``texts``."""
    for _ in range(excess):
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= _LEAST_WIDTH:
            return
        widths[widest] -= 1


def wrapped(lines: Sequence[str], width: int | None) -> list[str]:
    """``lines``, those that are too long going on in the next, further in."""
    if width is None:
        return list(lines)
    found = []
    for line in lines:
        if len(line) <= width:
            found.append(line)
            continue
        indent = len(line) - len(line.lstrip())
        further = " " * (indent + (2 if line[indent : indent + 2] in ("! ", "- ") else 4))
        found += textwrap.wrap(line, width, subsequent_indent=further, break_on_hyphens=False)
    return found


def milliseconds(seconds: float | None) -> str:
    """``3.2ms``, ``120ms``, ``2.5s``."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.1f}s"
    return f"{seconds * 1000:.1f}ms" if seconds < 0.01 else f"{seconds * 1000:.0f}ms"


def size(count: int) -> str:
    """``58.9 MB``."""
    if count < 1000:
        return f"{count} B"
    power = min(int(math.log10(count) // 3), 4)
    return f"{count / 1000**power:.1f} {'kMGT'[power - 1]}B"


def cut(text: str, most: int = _NAME_MAX) -> str:
    """``text``, no longer than a column. An address keeps its end, which is what tells it from others."""
    if len(text) <= most:
        return text
    return f"…{text[len(text) - most + 1 :]}" if text.startswith(("unix/", "/")) else f"{text[: most - 1]}…"
