"""The daemon's status as text for a terminal. Pure: the API's answer, and one from before it for rates, to lines."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Status = Mapping[str, Any]

_NAME_MAX = 44
_TRACEBACK_LINES = 8
_APPS_LEAST = 5


class Columns(NamedTuple):
    """A table: its head, its rows, and which columns are numbers."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: frozenset[int]


def overview(
    now: Status, before: Status | None = None, passed_s: float = 0.0, lines_max: int | None = None
) -> list[str]:
    """Everything at a glance. With ``before``, ``passed_s`` seconds ago, rates and durations are of that time.

    Where that makes more than ``lines_max`` lines, apps give way, those first that nobody asks for and nothing ails.
    """
    clock = time.time()
    above = [*_daemon(now["daemon"], clock), ""]
    below = ["", *_table(_listeners(now))]
    if now["templates"]:
        below += ["", *_table(_templates(now))]
    if notes := _notes(now, clock):
        below += ["", *notes]
    earlier = {} if before is None else {app["key"]: app for app in before["apps"]}
    apps, left_out = now["apps"], 0
    if lines_max is not None and len(above) + 1 + len(apps) + len(below) > lines_max:
        # Less the table's head, and the line that says that there are more.
        apps = _foremost(apps, earlier, max(lines_max - len(above) - len(below) - 2, _APPS_LEAST))
        left_out = len(now["apps"]) - len(apps)
    more = [f"  … and {left_out} more"] if left_out else []
    return [*above, *_table(_apps(apps, now["latency_bounds_s"], earlier, passed_s, before is not None)), *more, *below]


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
        f"files {daemon['open_files']} of {daemon['open_files_limit']}   admin {daemon['admin']}",
    ]
    refused = daemon["refused"]
    if refused is not None:
        lines += ["", f"! The last reload was refused {span(clock - refused['last_at'])} ago{_tries(refused)}:"]
        lines += _excerpt(refused["error"])
    return lines


def _tries(refused: Status) -> str:
    return f", and {refused['tries'] - 1} before it" if refused["tries"] > 1 else ""


def _apps(
    apps: Sequence[Status], bounds: Sequence[float], earlier: Mapping[str, Status], passed_s: float, with_rates: bool
) -> Columns:
    last = "REQ/S" if with_rates else "REQUESTS"
    head = ("APP", "STATE", "WORKERS", "BUILD", last, "ERRORS", "BUSY", "WAIT", "P50", "P95", "MEMORY", "RESTARTS")
    rows = []
    for app in apps:
        traffic, former = app["traffic"], earlier.get(app["key"], {}).get("traffic")
        latencies = traffic["latencies"]
        count = str(traffic["requests"])
        if with_rates:
            since = traffic["requests"] - (former["requests"] if former else 0)
            count = f"{max(since, 0) / passed_s:.1f}" if passed_s else "0"
            if former:
                latencies = [max(a - b, 0) for a, b in zip(latencies, former["latencies"], strict=True)]
        rows.append(
            (
                ("  " if app["template"] else "") + cut(app["name"]),
                app["state"] + ("!" if app["refused"] else ""),
                f"{app['workers_ready']}/{app['workers_wanted']}",
                str(app["build"]["number"]) if app["build"] else "-",
                count,
                str(traffic["errors"]),
                str(app["in_flight"]),
                str(app["waiting"]),
                milliseconds(quantile(0.5, bounds, latencies)),
                milliseconds(quantile(0.95, bounds, latencies)),
                size(app["memory_bytes"]),
                str(sum(app["restarts"].values())),
            )
        )
    return Columns(head, rows, frozenset(range(2, len(head))))


def _listeners(now: Status) -> Columns:
    rows = [(each["address"], each["mode"], cut(", ".join(each["apps"])), each["reason"]) for each in now["listeners"]]
    return Columns(("LISTENER", "MODE", "APPS", "WHY"), rows, frozenset())


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
    return Columns(head, rows, frozenset(range(1, 6)))


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
            runs = f"build {app['build']['number']} serves on" if app["build"] else "nothing serves"
            when = span(clock - refused["last_at"])
            what = f"build {refused['number']} was refused {when} ago ({refused['code']}{_tries(refused)}); {runs}"
            found += [f"! {name}: {what}", *_excerpt(refused["error"])]
        if app["restarts"]:
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(app["restarts"].items()))
            found.append(f"- {name}: workers replaced: {causes}")
        if failure is not None:
            found.append(f"- {name}: a worker failed {span(clock - failure['at'])} ago ({failure['code']})")
            found += _excerpt(failure["error"]) if refused is None else []
    found += _memory_limits(now)
    open_ones = [app for app in now["apps"] if app.get("sandbox", "off") == "off"]
    shared = {tuple(sorted((app["template"] or app["name"], *app["shared_with"]))) for app in open_ones}
    for names in sorted(names for names in shared if len(names) > 1):
        found.append(f"- not isolated, they run as one user: {', '.join(map(cut, names))}")
    walled: dict[str, set[str]] = {}
    for app in now["apps"]:
        if app.get("sandbox", "off") != "off":
            walled.setdefault(app["sandbox_holds"], set()).add(cut(app["template"] or app["name"]))
    found += [f"- walled: {', '.join(sorted(names))}: {holds}" for holds, names in sorted(walled.items())]
    alone = [app for app in open_ones if not app["isolated"] and not app["shared_with"]]
    own = sorted({app["template"] or app["name"] for app in alone if app["user"] is None})
    if own:
        found.append(f"- not isolated from the daemon, as whose user they run: {', '.join(map(cut, own))}")
    return found


def _memory_limits(now: Status) -> list[str]:
    """What `limits { memory }` is worth here."""
    kinds: dict[str, set[str]] = {"cgroup": set(), "rlimit": set()}
    for app in now["apps"]:
        for worker in app["workers"]:
            if worker.get("memory_limit"):
                kinds[worker["memory_limit"]].add(cut(app["template"] or app["name"]))
    found = []
    if kinds["cgroup"]:
        names = ", ".join(sorted(kinds["cgroup"]))
        found.append(f"- memory is limited for a worker with all that it has started (cgroup): {names}")
    if kinds["rlimit"]:
        names, why = ", ".join(sorted(kinds["rlimit"])), now["daemon"].get("no_cgroup_because")
        found.append(f"- memory is limited for each process by itself (RLIMIT_DATA): {names}")
        found += [f"    no cgroup: {why}"] if why else []
    return found


def _excerpt(text: str) -> list[str]:
    """The end of a traceback, where the reason is."""
    lines = text.rstrip().splitlines()
    shown = lines[-_TRACEBACK_LINES:]
    return ["    …"] * (len(shown) < len(lines)) + [f"    {line}" for line in shown]


def _table(columns: Columns) -> list[str]:
    rows = [columns.head, *columns.rows]
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns.head))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if number in columns.numbers else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines if columns.rows else [*lines, "none"]


def quantile(wanted: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Seconds below which ``wanted`` of the requests were answered, from a histogram; None without any.

    Between two bounds, in proportion, as Prometheus' ``histogram_quantile`` does; beyond the last, the last.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below, lower = wanted * total, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return bounds[-1]


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


def span(seconds: float) -> str:
    """``45s``, ``3m12s``, ``5h02m``, ``12d04h``."""
    whole = max(int(seconds), 0)
    for length, unit, rest, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= length:
            return f"{whole // length}{unit}{whole % length // rest:02d}{below}"
    return f"{whole}s"


def cut(name: str) -> str:
    """``name``, no longer than a column."""
    return name if len(name) <= _NAME_MAX else name[: _NAME_MAX - 1] + "…"
