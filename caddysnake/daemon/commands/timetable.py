"""When a schedule is due. Pure: the clock is an argument, and may jump.

A time is due once, within its minute. What was slept through, or jumped over, is missed: it is told, and not made up
for. A clock that was set back, by up to three hours, comes to no time again that it had before; one that was set back
further was wrong, and what it says now is believed: so Vixie cron has it. Daylight saving is the time zone's, and the
library's that reads the line.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import NamedTuple

from ...config.language import cron

WITHIN_S = 60.0
"""So long after its time a command is still begun."""
CORRECTED_S = 3 * 3600.0
"""A clock that is set back so far was wrong."""
_MISSED_MAX = 1000


class Look(NamedTuple):
    """What is to be done: ``due``: the time that is to be begun now, None: none. ``missed``: how many were."""

    due: float | None = None
    missed: int = 0


_NOTHING = Look()


class Timetable:
    """The times of one line. All times are those of ``time.time()``."""

    __slots__ = ("_latest", "_line", "_zone", "last", "next")

    def __init__(self, line: str, zone: tzinfo, now: float, last: float | None = None) -> None:
        """``last``: the time that was begun last, if that is known."""
        self._line = line
        self._zone = zone
        self._latest = now
        self.last = last
        self.next = self._after(now if last is None else max(now, last))
        """The time that is due next; None: there is none."""

    def is_like(self, other: Timetable) -> bool:
        """Both have the same line, in the same time zone."""
        return (self._line, str(self._zone)) == (other._line, str(other._zone))

    def restore(self, upcoming: float | None, last: float | None) -> None:
        """Go on where another of the same line was: its times up to ``upcoming`` have been looked at."""
        self.next, self.last = upcoming, last

    def look(self, now: float) -> Look:
        """Say what is due at ``now``."""
        if now < self._latest - CORRECTED_S:
            self._latest = now
            self.next = self._after(now)
            if self.next is not None and self.next == self.last:
                self.next = self._after(self.next)
        self._latest = max(now, self._latest)
        if self.next is None or now < self.next:
            return _NOTHING
        passed, upcoming = self._passed(self.next, now)
        self.next = upcoming
        due = passed[-1] if now - passed[-1] < WITHIN_S else None
        self.last = due if due is not None else self.last
        return Look(due, len(passed) - (due is not None))

    def _passed(self, first: float, now: float) -> tuple[list[float], float | None]:
        """The times from ``first`` on that have come, and the next."""
        found = [first]
        following = self._after(first)
        while following is not None and following <= now:
            if len(found) >= _MISSED_MAX:
                return [*found, now - WITHIN_S], self._after(now)
            found.append(following)
            following = self._after(following)
        return found, following

    def _after(self, moment: float) -> float | None:
        found = cron.next_time(self._line, datetime.fromtimestamp(moment, self._zone))
        return None if found is None else found.timestamp()
