"""When a quiet client is pinged, and when it has been quiet for too long (RFC 6455 section 5.5.2)."""

from __future__ import annotations

from enum import Enum


class Due(Enum):
    """What is to be done now."""

    NOTHING = "nothing"
    PING = "ping"
    FAIL = "fail"


class KeepAlive:
    """Pings one client after ``interval_s`` of quiet, 0 for never, and expects something within ``timeout_s``."""

    __slots__ = ("_interval_s", "_pinged_at", "_timeout_s")

    def __init__(self, interval_s: float, timeout_s: float) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._pinged_at = 0.0

    def look(self, now: float, heard_at: float, is_writable: bool) -> Due:
        """Return what is due ``now`` for a client last ``heard_at``; one that is not ``is_writable`` has no ping."""
        if self._pinged_at > heard_at:
            return Due.FAIL if now - self._pinged_at > self._timeout_s else Due.NOTHING
        if not self._interval_s or now - heard_at <= self._interval_s or not is_writable:
            return Due.NOTHING
        self._pinged_at = now
        return Due.PING
