"""Since when a request has waited that was there before its worker looked at it.

The daemon says since when a connection waits for a worker (``TAKE_SINCE_SHIFT``): since it was accepted, or given back.
A request that was on it when it was taken has waited for as long; without one the connection was idle, and says
nothing.
"""

from __future__ import annotations

import socket

from ..channel.messages import TAKE_COUNTED, TAKE_LINK, TAKE_SINCE_SHIFT

_SOON_S = 0.05
"""A link is made for a request, which comes on it so soon."""

_LEAST_MS = 2
"""Less is not asked about: that is a system call."""

_WRAPS_MS = 1 << 24
_SECONDS_MAX = 1e10
_STAMP_MAX = 1e20
_LONGEST_S = 3600.0
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


def arrival(flags: int, sock: socket.socket, now: float) -> tuple[float, float]:
    """Monotonic seconds at which the first request on ``sock``, taken at ``now``, arrived, 0 when that is not known;
    and until when it must have been begun for this to hold. ``flags`` are those of ``Take``.
    """
    since_ms = 0 if flags & TAKE_COUNTED else flags >> TAKE_SINCE_SHIFT
    if not since_ms:
        return 0.0, 0.0
    waited_ms = (int(now * 1000) - since_ms) % _WRAPS_MS
    if not _LEAST_MS <= waited_ms < _WRAPS_MS // 2:
        return 0.0, 0.0
    if has_input(sock):
        return now - waited_ms / 1000, float("inf")
    return (now - waited_ms / 1000, now + _SOON_S) if flags & TAKE_LINK else (0.0, 0.0)


def has_input(sock: socket.socket) -> bool:
    """Whether there is something to read."""
    try:
        return bool(sock.recv(1, _PEEK))
    except OSError:
        return False


def waited_since(stamp: bytes | str, now: float) -> float:
    """How long ago, at ``now`` (seconds since 1970), a proxy says in ``X-Request-Start`` that it got a request; 0 for
    what is no such time. ``t=1796040176944``: seconds, milliseconds or microseconds, as their size tells.
    """
    try:
        at = float(stamp[2:] if stamp[:2] in ("t=", b"t=") else stamp)
    except ValueError:
        return 0.0
    while _SECONDS_MAX < at < _STAMP_MAX:
        at /= 1000
    waited = now - at
    return waited if 0 < waited < _LONGEST_S else 0.0
