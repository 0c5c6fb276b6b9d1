"""An answer that comes line by line: what release commands write while somebody waits for a change, and the outcome.

JSON lines: ``{"app": …, "line": …}`` as they come, ``{}`` now and then, and at last ``{"status": …, "answer": {…}}``
with what would have been the whole answer. Who does not read along loses lines, and delays nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import orjson

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


async def stream(lines: Along, work: asyncio.Future[tuple[int, bytes]]) -> AsyncGenerator[bytes, None]:
    """What is told while ``work`` is under way, and then what it returns: a status, and JSON."""
    while not work.done():
        if said := await lines.take(work):
            yield said
    status, body = work.result()
    yield await lines.take(work) + b'{"status":%d,"answer":%s}\n' % (status, body.strip())
