"""An answer that comes line by line: what release commands write while somebody waits for a change, and the outcome.

JSON lines: ``{"app": …, "line": …}`` as they come, ``{}`` now and then, and at last ``{"status": …, "answer": {…}}``
with what would have been the whole answer. Who does not read along loses lines, and delays nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

import orjson
from aiohttp import web

from .journal import MEDIA_TYPE

__all__ = ["MEDIA_TYPE", "Along", "stream"]

_LINES_MAX = 1000
_ALIVE_S = 10.0


class Along:
    """What is to be sent. It may be lost, when nobody reads."""

    def __init__(self) -> None:
        self._lines: deque[dict[str, object]] = deque(maxlen=_LINES_MAX)
        self._news = asyncio.Event()

    def tell(self, app: str, line: str) -> None:
        """Have ``line`` of ``app`` sent."""
        self._lines.append({"app": app, "line": line})
        self._news.set()

    async def take(self, until: asyncio.Future[tuple[int, bytes]]) -> bytes:
        """Wait for lines, or for ``until``, but not for long."""
        waiting = asyncio.ensure_future(self._news.wait())
        await asyncio.wait((waiting, until), timeout=_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._news.clear()
        lines, found = self._lines, b""
        while lines:
            found += orjson.dumps(lines.popleft(), option=orjson.OPT_APPEND_NEWLINE)
        return found or (b"" if until.done() else b"{}\n")


async def stream(request: web.Request, lines: Along, answer: Awaitable[tuple[int, bytes]]) -> web.StreamResponse:
    """Send ``lines`` as they come, and then ``answer``: its status and its JSON."""
    response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPE})
    await response.prepare(request)
    work = asyncio.ensure_future(answer)
    try:
        while not work.done():
            await response.write(await lines.take(work))
        status, body = work.result()
        await response.write(await lines.take(work))
        await response.write(b'{"status":%d,"answer":%s}\n' % (status, body.strip()))
        await response.write_eof()
    except ConnectionError:
        pass  # whoever asked has left
    finally:  # what was begun is carried out
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
    return response
