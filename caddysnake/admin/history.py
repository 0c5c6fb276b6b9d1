"""The last quarter of an hour, for the live page: a sample every few seconds, of the whole and of each app or template.

Kept in memory, also over an upgrade of the daemon, of so many apps and no more points than are shown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from itertools import starmap
from operator import sub
from typing import Any, Literal, NamedTuple

import orjson

from ..channel import vitals
from ..channel.vitals import quantile
from ..daemon.apps.app import App
from ..daemon.apps.counters import Counters
from ..daemon.main import Daemon
from . import survey
from .models import HistoryModel, MarkModel, SeriesModel

log = logging.getLogger("caddysnake.admin")

EVERY_S = 5.0
KEPT = 180
_LABELS_MAX = 200
"""So many apps have points of their own; the whole has those of all."""
_MARKS_MAX = 1000
_WHOLE = ""
_LATENCIES = slice(vitals.CELL_LATENCY, vitals.CELL_LATENCY + len(vitals.LATENCY_BOUNDS_S) + 1)
_QUEUES = slice(vitals.CELL_QUEUE, vitals.CELL_QUEUE + len(vitals.QUEUE_BOUNDS_S) + 1)
_ERRORS = vitals.CELL_CLASS_1XX + 4


class Point(NamedTuple):
    """A few seconds, as ``SeriesModel`` has them. None where nothing was answered."""

    requests_per_s: float
    errors_per_s: float
    median_s: float | None
    p95_s: float | None
    queue_s: float | None
    memory_bytes: int
    workers: int


class _Group(NamedTuple):
    """An app, or a template with all that was made of it."""

    label: str
    ledger: Counters
    apps: Sequence[App]
    builds: tuple[int, int]
    """How many were accepted, and refused."""


class History:
    """Of one daemon; ``run`` samples until it is cancelled."""

    def __init__(self, daemon: Daemon, saved: str = "") -> None:
        """``saved``: what another image of the daemon has left."""
        self._daemon = daemon
        self._at: deque[float] = deque(maxlen=KEPT)
        self._points: dict[str, deque[Point]] = {}
        self._marks: deque[MarkModel] = deque(maxlen=_MARKS_MAX)
        self._before: dict[str, list[int]] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._sampled_at = 0.0
        try:
            self._resume(orjson.loads(saved or "{}"))
        except (ValueError, TypeError, KeyError):  # of a version that has another form
            log.warning("the live page's history begins anew")

    def snapshot(self) -> str:
        """All of it, for another image of the daemon."""
        told = {
            "at": list(self._at),
            "points": {label: list(map(tuple, points)) for label, points in self._points.items()},
            "marks": [mark.model_dump() for mark in self._marks],
            "before": self._before,
            "seen": self._seen,
            "sampled_at": self._sampled_at,
        }
        return orjson.dumps(told).decode()

    def _resume(self, told: dict[str, Any]) -> None:
        if told:
            points = {label: [Point(*point) for point in each] for label, each in told["points"].items()}
            self._marks.extend([MarkModel(**mark) for mark in told["marks"]])
            self._before = {label: each for label, each in told["before"].items() if len(each) == vitals.CELLS}
            self._seen = {label: tuple(each) for label, each in told["seen"].items()}
            self._sampled_at = told["sampled_at"]
            self._at.extend(told["at"])
            self._points = {label: deque(each, maxlen=KEPT) for label, each in points.items()}

    async def run(self) -> None:
        """Sample, again and again."""
        while True:
            try:
                await self._sample()
            except Exception:  # a picture is not worth a daemon
                log.exception("the live page's history has a gap")
            await asyncio.sleep(EVERY_S)

    def model(self) -> HistoryModel:
        """What is kept."""
        # From a thread, while more may come: each copy is one step.
        at = list(self._at)
        copies = {label: list(points)[: len(at)] for label, points in list(self._points.items())}
        at = at[: min(map(len, copies.values()), default=0)]
        series = {
            label: SeriesModel(**{name: [getattr(point, name) for point in points] for name in Point._fields})
            for label, points in copies.items()
        }
        marks = [mark for mark in list(self._marks) if at and mark.at >= at[0]]
        return HistoryModel(every_s=EVERY_S, at=at, series=series, marks=marks)

    async def _sample(self) -> None:
        now, clock = time.monotonic(), time.time()
        passed = now - self._sampled_at if self._sampled_at else 0.0
        self._sampled_at = now
        groups = self._groups()
        seen = survey.glance(self._daemon)
        pids = {row.worker.pid for rows in seen.rows.values() for row in rows}
        usage = await survey.usage_of([*pids, os.getpid()])
        whole = [0] * vitals.CELLS
        points: dict[str, Point] = {}
        ready = 0
        for number, group in enumerate(groups):
            await asyncio.sleep(0)
            rows = [row for app in group.apps for row in seen.rows.get(app, [])]
            cells = list(seen.gone.get(group.ledger, ([], 0.0))[0]) or [0] * vitals.CELLS
            for row in rows:
                cells = list(map(vitals.plus, cells, survey.cells_of(row.worker)))
            lost = survey.lost(group.ledger)
            cells[vitals.CELL_REQUESTS] += lost
            cells[_ERRORS] += lost
            whole = list(map(vitals.plus, whole, cells))
            workers = sum(len(app.pool.ready) for app in group.apps)
            ready += workers
            self._mark(group, clock)
            if number < _LABELS_MAX:
                used = sum(usage[pid].memory_bytes for pid in {row.worker.pid for row in rows} if pid in usage)
                points[group.label] = self._point(group.label, cells, passed, used, workers)
        memory = sum(each.memory_bytes for each in usage.values())
        points[_WHOLE] = self._point(_WHOLE, whole, passed, memory, ready)
        if passed:
            self._keep(clock, points)
        for label in self._seen.keys() - {group.label for group in groups}:
            del self._seen[label]

    def _groups(self) -> list[_Group]:
        running = self._daemon.running
        found = [
            _Group(name, app.ledger, [app], (app.builds.times_accepted, app.builds.times_refused))
            for name, app in running.apps.items()
        ]
        for tenants in running.templates.values():
            apps = list(tenants.all_apps())
            renewed = sum(max(app.builds.times_accepted - 1, 0) for app in apps)  # the first is that it wakes
            refused = sum(app.builds.times_refused for app in apps)
            found.append(_Group(tenants.spec.name, tenants.ledger, apps, (renewed, refused)))
        return found

    def _point(self, label: str, cells: list[int], passed: float, memory: int, workers: int) -> Point:
        before = self._before.get(label)
        self._before[label] = cells
        if before is None or not passed:
            return Point(0.0, 0.0, None, None, None, memory, workers)
        grown = [max(0, each) for each in starmap(sub, zip(cells, before, strict=True))]
        return Point(
            round(grown[vitals.CELL_REQUESTS] / passed, 3),
            round(grown[_ERRORS] / passed, 3),
            quantile(0.5, vitals.LATENCY_BOUNDS_S, grown[_LATENCIES]),
            quantile(0.95, vitals.LATENCY_BOUNDS_S, grown[_LATENCIES]),
            quantile(0.95, vitals.QUEUE_BOUNDS_S, grown[_QUEUES]),
            memory,
            workers,
        )

    def _mark(self, group: _Group, clock: float) -> None:
        now = (*group.builds, group.ledger.restarts["crashed"])
        before = self._seen.get(group.label)
        self._seen[group.label] = now
        if before is not None:
            kinds: tuple[Literal["build", "refused", "crash"], ...] = ("build", "refused", "crash")
            for kind, was, count in zip(kinds, before, now, strict=True):
                if count > was:
                    self._marks.append(MarkModel(at=clock, app=group.label, what=kind, count=count - was))

    def _keep(self, clock: float, points: dict[str, Point]) -> None:
        self._at.append(clock)
        for label in self._points.keys() - points.keys():
            del self._points[label]
        for label in self._before.keys() - points.keys():
            del self._before[label]
        nothing = Point(0.0, 0.0, None, None, None, 0, 0)
        for label, point in points.items():
            kept = self._points.get(label)
            if kept is None:  # it is new: what was before is told as nothing
                kept = self._points[label] = deque([nothing] * (len(self._at) - 1), maxlen=KEPT)
            kept.append(point)
