"""Asks the log process what went wrong in processes whose output it reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from ....logs import orders
from ....logs.sources import GROUP_S

_PATIENCE_S = 1.0
_MARGIN_S = 0.1


class Asking:
    """``send(frame)`` gives it an order."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._number = 0
        self._open: dict[int, asyncio.Future[tuple[int, str]]] = {}

    def heard(self, order: bytes, content: dict[str, Any]) -> None:
        """Take an answer."""
        asked = self._open.get(content["number"]) if order == orders.TROUBLE else None
        if asked is not None and not asked.done():
            asked.set_result((content["times"], content["text"]))

    async def foremost(self, app: str, pids: Iterable[int]) -> tuple[int, str]:
        """Return how often the most frequent traceback of these processes came, and its text; 0 when there was none,
        or nobody answers. Waits until what was printed just now is known to be whole.
        """
        await asyncio.sleep(GROUP_S + _MARGIN_S)
        self._number += 1
        number = self._number
        asked: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._open[number] = asked
        try:
            self._send(orders.frame(orders.TROUBLE, {"number": number, "app": app, "pids": [*pids]}))
            async with asyncio.timeout(_PATIENCE_S):
                return await asked
        except TimeoutError:
            return 0, ""
        finally:
            del self._open[number]
