"""Requests of an event loop that wait while as many as may be are being answered (``max_in_flight``)."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from ...channel.settings import Settings
from ...http1.errors import ProtocolError
from ...http1.request import RequestHead
from ..in_flight import full, is_exempt


class Server(Protocol):
    """What answers."""

    active: int
    header: memoryview


class Client(Protocol):
    """A connection."""

    def pause_reading(self) -> None:
        """Take no more from the client."""

    def refuse(self, error: ProtocolError) -> None:
        """Answer the request that no app will see, and end."""

    def take_turn(self, head: RequestHead) -> None:
        """Call the app."""


class Bound:
    """At most ``most`` calls of the app at a time, WebSockets among them until they are open."""

    def __init__(self, context: Server, settings: Settings, most: int) -> None:
        self._context = context
        self._settings = settings
        self._most = most
        self._waiting: deque[tuple[Client, RequestHead]] = deque()

    def admits(self, connection: Client, head: RequestHead) -> bool:
        """Whether the app may be called now; else ``connection`` waits for its turn, or has been refused."""
        if (self._context.active < self._most and not self._waiting) or is_exempt(self._settings, head):
            return True
        if len(self._waiting) >= self._settings.max_waiting:
            connection.refuse(full(self._settings, self._context.header))
        else:
            self._waiting.append((connection, head))
            connection.pause_reading()
        return False

    def go_on(self) -> None:
        """One has ended: it is the turn of those that have waited longest."""
        while self._waiting and self._context.active < self._most:
            connection, head = self._waiting.popleft()
            connection.take_turn(head)
