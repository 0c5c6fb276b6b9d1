"""The Date field, made once a second."""

from __future__ import annotations

import time

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_cached: tuple[float, bytes] = (0.0, b"")


def http_date(seconds: int) -> bytes:
    """IMF-fixdate of RFC 9110 section 5.6.7, whatever the locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    ).encode()


def date_line() -> bytes:
    """``\\r\\ndate: …`` for now. Threads may call it: a tuple is replaced at once or not at all."""
    global _cached
    now = time.time()
    until, line = _cached
    if until - 1.0 <= now < until:
        return line
    seconds = int(now)
    line = b"\r\ndate: " + http_date(seconds)
    _cached = (seconds + 1.0, line)
    return line
