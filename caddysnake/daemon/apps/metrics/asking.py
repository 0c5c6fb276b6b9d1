"""The daemon's side: what all apps count, asked of a helper when somebody scrapes. The daemon passes on what that says,
and keeps what it is to remember, without a look at either.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from ....channel.throttle import Throttle
from ....config.plan.accounts import Account
from ....installation import PACKAGE
from ...system.log.fields import FieldLog
from .merging import SERIES_MAX

log = FieldLog("caddysnake.app")

FOLDER = "metrics"
"""Of an app's private folder."""

_PATIENCE_S = 10.0
_ANSWER_MAX = 128 << 20


class MetricsPlace(NamedTuple):
    """A private folder. ``label``: of its app, or the template that was made of."""

    label: str
    path: str
    account: Account | None


class Counted(NamedTuple):
    """What apps count. ``text``: without an end; ``left_out``: by label, how many values are not among it."""

    text: bytes
    left_out: Mapping[str, int]


_NOTHING = Counted(b"", {})


class AppMetrics:
    """Asks. One question at a time: a reader merges files away."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._remembered = b""
        self._throttle = Throttle()
        self._live: set[int] = set()

    def pids(self) -> set[int]:
        """Return the processes that read, which are reaped here."""
        return set(self._live)

    def snapshot(self) -> str:
        """Return what is remembered, for another image of the daemon."""
        return self._remembered.decode()

    def restore(self, saved: str) -> None:
        """Go on with it."""
        self._remembered = saved.encode()

    async def collect(self, places: Iterable[MetricsPlace], renewed: Collection[str], is_open: bool) -> Counted:
        """What cannot be read is left out, and told. ``renewed``: labels of which places come and go."""
        async with self._lock:
            there = await asyncio.to_thread(_with_files, list(places))
            if not there and not self._remembered:
                return _NOTHING
            told = self._understood(await self._ask(there, renewed, is_open))
            for label, count in told.left_out.items():
                if count:
                    self._warn("some of what an app counts is left out", app=label, count=count, most=SERIES_MAX)
            return told

    async def _ask(self, places: list[MetricsPlace], renewed: Collection[str], is_open: bool) -> bytes:
        jobs: dict[str, Any] = {}
        for place in places:
            user = place.account and (place.account.uid, place.account.gid, place.account.groups)
            job = jobs.setdefault(place.label, {"label": place.label, "folders": []})
            job["folders"].append((f"{place.path}/{FOLDER}", user))
        asked = {"jobs": list(jobs.values()), "renewed": list(renewed), "is_open": is_open}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-m", f"{__package__}.helper",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                cwd="/", env={"PYTHONPATH": str(PACKAGE.parent), "PYTHONSAFEPATH": "1"}, start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            self._warn("apps' metrics cannot be read", error=exc.strerror)
            return b""
        self._live.add(process.pid)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                said, _ = await process.communicate(json.dumps(asked).encode() + b"\n" + self._remembered)
            return said if len(said) <= _ANSWER_MAX else b""
        except TimeoutError:
            self._warn("apps' metrics were not read in time")
            return b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            self._live.discard(process.pid)

    def _understood(self, said: bytes) -> Counted:
        try:
            end = said.index(b"\n") + 1
            head = json.loads(said[:end])
            behind = end + int(head["text"])
            self._remembered = said[behind:].removeprefix(b"{}")
            return Counted(said[end:behind], head["left_out"])
        except (ValueError, TypeError, KeyError):
            return _NOTHING

    def _warn(self, what: str, **fields: Any) -> None:
        if self._throttle.is_due((what, fields.get("app")), time.monotonic()):
            log.warning(what, **fields)


def _with_files(places: list[MetricsPlace]) -> list[MetricsPlace]:
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
