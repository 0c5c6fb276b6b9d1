"""An answer to a request that is not read: what every server holds to, and the relay.

Caddy (Go's net/http) drops up to 256 KiB of a request over HTTP/1.1 when it begins to answer it, unless it was told
``enable_full_duplex``. It still sends us the rest, finds then that the length is wrong, and cuts what is left of our
answer. What it has sent by then it cannot drop. Therefore:

* an answer waits for the rest of its request before it begins, as long as that comes and for a bounded time: what an
  app may still read is kept up to a bound, and where the whole answer is there already, all of it is dropped;
* an answer that began all the same keeps its last byte until nearly all has come, as long as that comes and for a
  bounded time: Go ends a connection half a second after an answer, and who sends all before it reads would find it
  reset. Nearly: what is left stays in the sockets, so that Caddy does not find the length wrong before it has all;
* behind an answer, the rest is read when the client has read all of that. Go waits 50 ms for it to leave, and ends the
  connection then;
* a client that takes nothing of an answer may be one that sends all before it reads: what no app has asked for is read
  and dropped then, so that neither side waits for ever.

Over HTTP/2 and 3 Caddy drops nothing and ends no connection. There an answer still waits for content that says how much
it is, for the sake of clients that send all before they read; but not for content that may be half of a conversation.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

from ..http1.forwarded import last_member
from ..http1.request import RequestHead

KEPT_MAX_BYTES = 1 << 20
"""Content that is kept for an app that may still read it; and ``END_BYTES`` more where that is all of it."""

DROPPED_MAX_BYTES = 64 << 20
"""Content that is read only to be dropped; beyond it the connection ends. Dropping is needed: Caddy takes an end in the
middle of its own sending for a failure, whatever has been answered."""

LARGE_BYTES = 64 * 1024
"""Content below this has left Caddy at once, all of it."""

SETTLE_S = 0.005
"""Caddy has sent its last byte before it has found the end of what it sends: so long an answer waits behind a large
request that it does not read."""

IDLE_S = 1.0
TOTAL_S = 1.0
"""How long an answer waits for more of its request, and for all of it, unless more time is enough (``wait_s``)."""

END_S = 10.0
"""How long an answer waits for all of its request that comes fast enough for that, and its last byte in any case."""

END_BYTES = 3 << 19
"""So much of a request is not waited for then: what Caddy has dropped, and what fits into sockets, and a relay, on the
way."""

STALL_S = 1.0
"""Who takes nothing of an answer for so long may be waiting for us to read."""

LOOK_S = 0.002
"""How often is looked whether a client has read everything."""


def may_converse(head: RequestHead) -> bool:
    """Whether content without a length comes over HTTP/2 or 3, as gRPC's does: who sends it may wait for an answer to
    its beginning. Caddy says so in the last Via (2.6 says nothing).
    """
    if not head.chunked:
        return False
    via = b",".join(value for name, value in head.headers if name == b"via")
    return last_member(via).startswith((b"2", b"3"))


def is_near_end(head: RequestHead, received: int) -> bool:
    """Whether no more than ``END_BYTES`` are missing of a request, of whose content ``received`` bytes have come."""
    return head.content_length is not None and head.content_length - received <= END_BYTES


def most_s(left_s: float | None) -> float:
    """How long an answer waits at most, for whose request ``left_s`` are left; None: there is no limit."""
    return END_S if left_s is None else min(END_S, left_s / 2)


def wait_s(head: RequestHead, received: int, waited_s: float, keeps: bool, most_s: float) -> float:
    """How much longer an answer waits that has waited for ``waited_s``: ``most_s`` in all where that is enough, as fast
    as the ``received`` bytes have come. Content that does not say how much it is may be half of a conversation:
    an answer that is there whole (not ``keeps``) waits for it.
    """
    length = head.content_length
    is_enough = not keeps if length is None else length * waited_s <= received * most_s
    return (most_s if is_enough else min(TOTAL_S, most_s)) - waited_s


def unread_bytes(sock: socket.socket) -> int:
    """What the other side has not read yet of what the kernel took (unix(7), tcp(7): SIOCOUTQ); 0 if unknown."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
