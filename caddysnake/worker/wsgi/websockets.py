"""WebSockets of a threaded worker. A library of the app's speaks the protocol, and holds a thread for each: one that is
not a request's.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...channel import records
from ...channel.vitals import WORD_WEBSOCKETS
from ...http1.errors import ProtocolError
from ...http1.fields import tokens
from ...http1.request import RequestHead
from ..websocket.handshake import full
from .connection import Connection
from .counters import Counters

if TYPE_CHECKING:
    from .call.upgrade import Upgrading

SPREAD_S = 2.0
"""Clients that are told to connect anew are told at random moments within this time."""


def is_websocket(head: RequestHead) -> bool:
    """``head``, which asks for an upgrade, asks for one to WebSocket."""
    return head.method == "GET" and not head.has_body and b"websocket" in tokens(head.upgrade or b"")


class WebSockets:
    """At most ``most`` calls of the app for WebSockets. ``header``: the header words of the page. ``counters``: theirs,
    which all share. ``on_end``: called, from any thread, when one has ended.
    """

    def __init__(self, app: str, most: int, header: memoryview, counters: Counters, on_end: Callable[[], None]) -> None:
        self._app = app
        self._most = most
        self._header = header
        self._counters = counters
        self._on_end = on_end
        self._records = records.current()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[Upgrading, float] = {}
        """Each with the monotonic seconds at which its client is to be told to leave; 0: not yet."""
        self._admitted = 0
        self._is_leaving = False
        self._is_orphaned = False

    @property
    def count(self) -> int:
        """How many calls run."""
        return self._admitted

    def admit(self) -> bool:
        """Whether there is room for one more, which is then taken."""
        with self._lock:
            if self._admitted < self._most:
                self._admitted += 1
                self._header[WORD_WEBSOCKETS] = self._admitted
                return True
        return False

    def full(self) -> ProtocolError:
        """The answer where there is none."""
        return full(self._app, self._most)

    def begin(self, call: Upgrading, run: Callable[[Counters], None]) -> None:
        """Run one that was admitted. Raises ``RuntimeError`` when there can be no thread."""
        thread = threading.Thread(
            target=self._run, args=(call, run), name=f"websocket-{next(self._numbers)}", daemon=True
        )
        with self._lock:
            self._open[call] = self._moment() if self._is_leaving else 0.0
        try:
            thread.start()
        except BaseException:
            self._ended(call)
            raise

    def _run(self, call: Upgrading, run: Callable[[Counters], None]) -> None:
        records.speak_for_thread(self._records)
        try:
            run(_Shared(self._counters, self._lock))  # type: ignore[arg-type]
        finally:
            self._ended(call)

    def _ended(self, call: Upgrading) -> None:
        with self._lock:
            self._open.pop(call, None)
            self._admitted -= 1
            self._header[WORD_WEBSOCKETS] = self._admitted
        self._on_end()

    # For the controller.

    def leave(self, is_orphaned: bool) -> None:
        """Have every client told to connect anew, at some moment of the next ``SPREAD_S``."""
        with self._lock:
            self._is_leaving = True
            self._is_orphaned = is_orphaned
            for call, moment in self._open.items():
                self._open[call] = moment or self._moment()

    def taken(self) -> list[Connection]:
        """The connections that the app has for itself."""
        with self._lock:
            return [call.socket.connection for call in self._open if call.socket.is_taken]

    def look(self, now: float) -> None:
        """Tell those whose moment has come; ``now``: monotonic seconds."""
        with self._lock:
            due = [call for call, moment in self._open.items() if 0 < moment <= now]
        for call in due:
            if call.socket.tell_end(self._is_orphaned):
                with self._lock:
                    if call in self._open:
                        self._open[call] = float("inf")

    def _moment(self) -> float:
        return time.monotonic() + random.random() * SPREAD_S


class _Shared:
    """Counters that several threads write, one at a time."""

    def __init__(self, counters: Counters, lock: threading.Lock) -> None:
        self._counters = counters
        self._lock = lock

    def begin(self) -> float:
        """The time. That it runs is not shown: a WebSocket that lasts is no request that hangs."""
        return time.monotonic()

    def fail(self) -> None:
        """As ``Counters.fail``."""
        with self._lock:
            self._counters.fail()

    def end(self, start: float, status: int, sent_bytes: int) -> None:
        """As ``Counters.end``; the time that it was open is nobody's latency."""
        with self._lock:
            self._counters.end(time.monotonic() if status == 101 else start, status, sent_bytes)
            self._counters.write()
