"""Which code of an app runs since when, and which was refused: what `status` tells after a deploy.

A build is what a start of an app's workers found: the code and settings of that moment. Its number counts up with every
one that is tried, refused ones too, and starts at 1 with the daemon.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from ...channel.codes import today
from ..system.state import BuildsSnapshot, RefusedBuildSnapshot

TEXT_MAX = 16 * 1024
"""A traceback is kept for as long as nothing else is tried: long ones are cut at their beginning."""


class Build(NamedTuple):
    """What runs. ``since``: ``time.time()`` when it took over."""

    number: int
    since: float


class RefusedBuild(NamedTuple):
    """What does not start. A fixed build, or the next one that is refused, takes its place."""

    number: int
    """Of the last one that was tried."""
    since: float
    """``time.time()`` of the first refusal since something was accepted."""
    at: float
    """``time.time()`` of the last refusal."""
    tries: int
    """Refusals since ``since``."""
    code: str
    """Why: one of ``codes.FAILURES``; of a configuration, one of the admin API's."""
    text: str
    """Why: usually the app's traceback."""


class Builds:
    """Of one app."""

    def __init__(self) -> None:
        self.running: Build | None = None
        """None until the first is up, and while requests are told that the code is broken (autoreload)."""
        self.refused: RefusedBuild | None = None
        """None when the last that was tried runs."""
        self.times_accepted = 0
        self.times_refused = 0
        self.verdicts: Counter[str] = Counter()
        """How often a build that was tried was promoted, or returned; and rolled back."""
        self._number = 0

    def accepted(self) -> None:
        """The one that was tried last has taken over."""
        self._number += 1
        self.times_accepted += 1
        self.running = Build(self._number, time.time())
        self.refused = None

    def was_refused(self, code: str, text: str) -> None:
        """The one that was tried last does not start."""
        self._number += 1
        self.times_refused += 1
        now = time.time()
        since, tries = (self.refused.since, self.refused.tries) if self.refused is not None else (now, 0)
        self.refused = RefusedBuild(self._number, since, now, tries + 1, code, text[-TEXT_MAX:])

    def rolled_back(self, number: int) -> None:
        """The build of this ``number``, which was kept, has taken over again."""
        now, former = time.time(), self.running
        self.running = Build(number, now)
        what = "rolled back: until the next reload, or restart"
        self.refused = None if former is None else RefusedBuild(former.number, now, now, 1, "rolled-back", what)

    def stopped(self) -> None:
        """Nothing serves any more, though what was refused does not either."""
        self.running = None

    def snapshot(self) -> BuildsSnapshot:
        """For another image of the daemon."""
        refused = None if self.refused is None else RefusedBuildSnapshot(**self.refused._asdict())
        return BuildsSnapshot(
            number=self._number,
            running=self.running,
            refused=refused,
            verdicts=self.verdicts,
            times_accepted=self.times_accepted,
            times_refused=self.times_refused,
        )

    def restore(self, saved: BuildsSnapshot) -> None:
        """Go on where ``saved`` says."""
        self._number = saved.number
        self.verdicts = Counter(saved.verdicts)
        self.times_accepted, self.times_refused = saved.times_accepted, saved.times_refused
        self.running = None if saved.running is None else Build(*saved.running)
        if saved.refused is not None:
            refused = RefusedBuild(**saved.refused.model_dump())
            self.refused = refused._replace(code=today(refused.code))
