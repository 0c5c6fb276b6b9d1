"""A driver that lets so many requests run at a time (``max_in_flight``): further ones wait, and hold no thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from ...channel.settings import Settings
from ...http1.errors import ProtocolError
from ...http1.request import RequestHead
from ..in_flight import full, is_exempt
from .connection import READING, Connection
from .connection_table import ConnectionTable
from .counters import Counters
from .driver import Driver

_ENDLESS = float("inf")


class BoundDriver(Driver):
    """``header``: the header words of the page. A connection that waits for its turn is nobody's, and is not parked."""

    def __init__(self, app: Any, settings: Settings, table: ConnectionTable, header: memoryview, *rest: Any) -> None:
        super().__init__(app, settings, table, *rest)
        self._settings = settings
        self._most = settings.max_in_flight or 1
        self._header = header
        self._running = 0
        self._waiting: deque[Connection] = deque()
        self._invited: set[Connection] = set()
        """Those whose turn it is: their place is taken."""
        self._lock = threading.Lock()

    def _call(self, connection: Connection, head: RequestHead, counters: Counters) -> bool:
        if is_exempt(self._settings, head):
            return super()._call(connection, head, counters)
        connection.deadline = 0.0
        connection.state = READING
        refusal: ProtocolError | None = None
        with self._lock:
            if connection in self._invited:
                self._invited.remove(connection)
                may_run = True
            else:
                may_run = self._running < self._most and not self._waiting
                self._running += may_run
                if not may_run and len(self._waiting) >= self._settings.max_waiting:
                    refusal = full(self._settings, self._header)
                elif not may_run:
                    if connection.arrival is None or connection.arrival[1] < _ENDLESS:
                        connection.arrival = time.monotonic(), _ENDLESS
                    self._waiting.append(connection)  # from here on it is another thread's
        if refusal is not None:
            self._turn_away(connection, refusal, counters)
        if not may_run:
            return False
        try:
            return super()._call(connection, head, counters)
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """One has ended: it is the turn of who has waited longest."""
        with self._lock:
            following = self._waiting.popleft() if self._waiting else None
            if following is None:
                self._running -= 1
            else:
                self._invited.add(following)
        if following is not None:
            self._table.kick(following)
