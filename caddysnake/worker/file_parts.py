"""Parts of a file on their way to a socket.

To a unix socket, Caddy's, the kernel sends them by itself (sendfile(2)). Over TCP the small pages of its cache cost the
client so much that the server waits for it: there they go through a buffer of ours, in half the time.
"""

from __future__ import annotations

import os
import threading

PART_BYTES = 512 * 1024
"""At most so much at once: an event loop turns after it."""
BUFFER_BYTES = 256 * 1024


class _Buffer(threading.local):
    """One for each thread that sends files over TCP."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BUFFER_BYTES))


_buffer = _Buffer()


def send_part(out: int, file: int, offset: int, most: int, is_tcp: bool) -> int:
    """Send at most ``most`` bytes of ``file``, from ``offset`` on, to the socket ``out``; how many: 0 at its end.

    Where ``file`` itself stands, which the app may share, does not change. Raises ``OSError``: ``BlockingIOError`` when
    the reader takes no more for now.
    """
    if not is_tcp:
        return os.sendfile(out, file, offset, min(most, PART_BYTES))
    view = _buffer.view
    count = os.preadv(file, [view[:most]], offset)
    return os.write(out, view[:count]) if count else 0
