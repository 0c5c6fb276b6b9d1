"""``http.response.pathsend``: a file from the page cache to the socket.

Its parts are written to the socket itself, so everything the transport still holds must be out first; and since the
event loop refuses a second watcher on a transport's descriptor, its duplicate is watched. (uvloop has no
``loop.sendfile``, and asyncio's would not let us bound a slow reader.)
"""

from __future__ import annotations

import asyncio
import os
import stat
from time import monotonic

from ....http1.errors import ResponseError
from ...file_parts import send_part
from .cycle import ClientDisconnected, CycleTransport


def open_file(path: object) -> tuple[int, int]:
    """Descriptor (the caller's) and size of the regular file at ``path``. Raises ``OSError``, ``ResponseError``."""
    if not isinstance(path, (str, os.PathLike)):
        raise ResponseError(f"the path of http.response.pathsend must be text, not {type(path).__name__}")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ResponseError(f"http.response.pathsend: {os.fspath(path)} is not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd, found.st_size


async def send_file(connection: CycleTransport, file: int, size: int) -> None:
    """Send ``size`` bytes of ``file``. Raises ``ClientDisconnected``; ``ResponseError``: it has become shorter."""
    await connection.flush()
    turns = connection.context.turns
    out = os.dup(connection.fileno())
    is_tcp = connection.peer.local is not None
    try:
        sent = 0
        while sent < size:
            try:
                count = send_part(out, file, sent, size - sent, is_tcp)
            except BlockingIOError:
                await _writable(connection, out)
                continue
            except OSError as exc:
                raise ClientDisconnected(str(exc)) from exc
            if count == 0:
                raise ResponseError(f"a file became {size - sent} bytes shorter while it was sent")
            sent += count
            if turns.is_over(monotonic()):
                await turns.give_way()
    finally:
        os.close(out)


async def _writable(connection: CycleTransport, fd: int) -> None:
    loop = connection.context.loop
    ready = loop.create_future()
    loop.add_writer(fd, _resolve, ready)
    try:
        # A connection that is lost is shut down, which makes it writable as well.
        await asyncio.wait_for(ready, connection.context.settings.write_timeout_s)
    except asyncio.TimeoutError:
        raise ClientDisconnected("the client does not read") from None
    finally:
        loop.remove_writer(fd)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
