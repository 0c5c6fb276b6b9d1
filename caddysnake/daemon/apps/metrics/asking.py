"""The daemon's side: what all apps count, asked of a helper when somebody scrapes, and now and then when nobody does.

Of what comes and goes (tenants that sleep) no counter goes back: what is missing is added from then on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ....channel.throttle import Throttle
from ....config.plan.accounts import Account
from ....installation import PACKAGE
from .merging import SERIES_MAX

log = logging.getLogger("caddysnake.app")

FOLDER = "metrics"
"""Of an app's private folder."""

_PATIENCE_S = 10.0
_ANSWER_MAX = 64 << 20
_COUNTS = ("_total", "_bucket", "_sum", "_count")


class Place(NamedTuple):
    """A private folder. ``label``: of its app, or the template that was made of."""

    label: str
    path: str
    account: Account | None


class Sample(NamedTuple):
    """One series of an app."""

    type: str
    metric: str
    help: str
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class Counted(NamedTuple):
    """What the apps of one label count. ``left_out``: values that are not among it."""

    samples: list[Sample]
    left_out: int


class AppMetrics:
    """Asks. One question at a time: a reader merges files away."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._highest: dict[str, dict[tuple[str, Any], tuple[float, float]]] = {}
        """By label and series: what it came to last, and what is added to it."""
        self._throttle = Throttle()

    async def collect(self, places: Iterable[Place], labels: Iterable[str]) -> Mapping[str, Counted]:
        """By label, of which ``labels`` are all that there are. What cannot be read is left out, and told."""
        async with self._lock:
            for label in self._highest.keys() - set(labels):
                del self._highest[label]
            there = await asyncio.to_thread(_with_files, list(places))
            return await asyncio.to_thread(self._understood, await self._ask(there)) if there else {}

    async def _ask(self, places: list[Place]) -> bytes:
        jobs: dict[str, Any] = {}
        for place in places:
            user = place.account and (place.account.uid, place.account.gid, place.account.groups)
            job = jobs.setdefault(place.label, {"label": place.label, "folders": []})
            job["folders"].append((f"{place.path}/{FOLDER}", user))
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-m", f"{__package__}.helper",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                cwd="/", env={"PYTHONPATH": str(PACKAGE.parent), "PYTHONSAFEPATH": "1"}, start_new_session=True,
                limit=_ANSWER_MAX,
            )  # fmt: skip
        except OSError as exc:
            self._warn("apps' metrics cannot be read", error=exc.strerror)
            return b""
        _live.add(process.pid)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                said, _ = await process.communicate(json.dumps(list(jobs.values())).encode())
            return said if len(said) <= _ANSWER_MAX else b""
        except TimeoutError:
            self._warn("apps' metrics were not read in time")
            return b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            _live.discard(process.pid)

    def _understood(self, said: bytes) -> dict[str, Counted]:
        try:
            told = json.loads(said) if said else {}
        except ValueError:
            return {}
        found = {}
        for label, each in told.items():
            samples = [
                Sample(kind, metric, about, name, tuple((a, b) for a, b in labels), value)
                for kind, metric, about, name, labels, value in each["samples"]
            ]
            highest = self._highest.setdefault(label, {})
            found[label] = Counted([_kept_up(sample, highest) for sample in samples], each["left_out"])
            if each["left_out"]:
                self._warn("some of what an app counts is left out", app=label, count=each["left_out"], most=SERIES_MAX)
        return found

    def _warn(self, what: str, **fields: Any) -> None:
        if self._throttle.is_due((what, fields.get("app")), time.monotonic()):
            log.warning(what, extra={"fields": fields})


_live: set[int] = set()


def pids() -> set[int]:
    """Return the processes that read: whoever reaps strays leaves them alone."""
    return set(_live)


def _kept_up(sample: Sample, highest: dict[tuple[str, Any], tuple[float, float]]) -> Sample:
    if sample.type == "gauge" or not sample.name.endswith(_COUNTS):
        return sample
    key = (sample.name, sample.labels)
    last, added = highest.get(key, (0.0, 0.0))
    if sample.value < last:
        added += last - sample.value
    highest[key] = sample.value, added
    return sample._replace(value=sample.value + added)


def _with_files(places: list[Place]) -> list[Place]:
    """Those that have any. Names alone are looked at."""
    return [place for place in places if _has_files(f"{place.path}/{FOLDER}")]


def _has_files(root: str) -> bool:
    try:
        with os.scandir(root) as found:
            for each in found:
                if each.name.endswith(".json"):
                    return True
                if each.is_dir(follow_symlinks=False):
                    with os.scandir(each.path) as files:
                        if next(files, None) is not None:
                            return True
    except OSError:
        pass
    return False
