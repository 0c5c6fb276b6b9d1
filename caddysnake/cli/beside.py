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
            last = "-" if end is None else f"{_ago(clock - end['at'])} ago: {_first_line(end['reason'])}"
            pid = str(each["pid"] or "-")
            since = _ago(clock - each["since_at"])
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
                last = f"{_ago(clock - run['at'])} ago, {run['seconds']:.1f} s: {_first_line(run['reason'])}"
            if each["running"]:
                last = f"runs now ({', '.join(map(str, each['running'][:3]))})"
            next_at = each["next_at"]
            upcoming = "never" if next_at is None else time.strftime("%F %H:%M", time.localtime(next_at))
            left_out = str(each["skipped"] + each["missed"])
            rows.append((owner["name"], each["name"], each["cron"], upcoming, last, left_out))
    return ("APP", "SCHEDULE", "CRON", "NEXT", "LAST RUN", "LEFT OUT"), rows[:_ROWS_MAX]


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:60]


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
