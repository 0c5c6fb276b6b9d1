"""What runs beside the workers, as text: the tables of processes and schedules in `status`. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

_ROWS_MAX = 40


def processes(apps: Sequence[Mapping[str, Any]], clock: float) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and the rows of the table of processes; no rows when there are none."""
    rows: list[tuple[str, ...]] = []
    for app in apps:
        for each in app["processes"]:
            end = each["last_end"]
            state = "leaving" if each["is_leaving"] else each["state"]
            last = "-" if end is None else f"{span(clock - end['at'])} ago: {_first_line(end['reason'])}"
            pid = str(each["pid"] or "-")
            since = span(clock - each["since_at"])
            rows.append((app["name"], each["name"], state, pid, since, str(each["restarts"]), last))
    return ("APP", "PROCESS", "STATE", "PID", "SINCE", "RESTARTS", "LAST END"), rows[:_ROWS_MAX]


def schedules(owners: Sequence[Mapping[str, Any]], clock: float) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and the rows of the table of schedules, of apps and templates; no rows when there are none."""
    rows: list[tuple[str, ...]] = []
    for owner in owners:
        for each in owner["schedules"]:
            run = each["last_run"]
            last = "-"
            if run is not None:
                last = f"{span(clock - run['at'])} ago, {run['seconds']:.1f} s: {_first_line(run['reason'])}"
            if each["running"]:
                last = f"runs now ({', '.join(map(str, each['running'][:3]))})"
            next_at = each["next_at"]
            upcoming = "never" if next_at is None else time.strftime("%F %H:%M", time.localtime(next_at))
            left_out = str(each["skipped"] + each["missed"])
            rows.append((owner["name"], each["name"], each["cron"], upcoming, last, left_out))
    return ("APP", "SCHEDULE", "CRON", "NEXT", "LAST RUN", "LEFT OUT"), rows[:_ROWS_MAX]


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:60]


def span(seconds: float) -> str:
    """``45s``, ``3m12s``, ``5h02m``, ``12d04h``."""
    whole = max(int(seconds), 0)
    for length, unit, rest, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= length:
            return f"{whole // length}{unit}{whole % length // rest:02d}{below}"
    return f"{whole}s"
