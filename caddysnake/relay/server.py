"""The relay's server: connections and links come over the channel, and idle connections go back over it."""

from __future__ import annotations

import asyncio
import faulthandler
import socket

from ..aio.agent import FAREWELL_S, STDERR, Agent
from ..channel import messages
from ..channel.endpoint import Endpoint
from ..channel.records import say
from ..channel.settings import RelaySettings
from ..channel.vitals import KNOWS_TAKES, WORD_GUEST, WORD_TICK, Page
from ..matchers.router import Router
from .client_connection import ClientConnection
from .context import RelayContext
from .link_broker import LinkBroker

CUT_S = 1.0
"""What connections that were cut may take to go."""


class RelayServer(Agent[ClientConnection]):
    """Forwards until told to drain. ``endpoint`` is the relay's end of its channel, ``page`` its vital signs."""

    context: RelayContext

    def __init__(
        self, settings: RelaySettings, endpoint: Endpoint, page: Page, router: Router, loop: asyncio.AbstractEventLoop
    ) -> None:
        context = RelayContext(settings, page, router, loop, self._ended, self._read_less)
        super().__init__(context, endpoint, keep_s=settings.tunnel_keep_s, cut_s=CUT_S, end_s=FAREWELL_S)
        self._broker = LinkBroker(context, self._tell)

    async def run(self) -> int:
        """Serve, drain; the process's exit status."""
        self.context.header[WORD_GUEST] = KNOWS_TAKES
        self._listen()
        self._ready(type(self._loop).__module__)
        await self._left
        self.context.header[WORD_TICK] = 0
        self._broker.close()
        self._tell_lost()
        await self._farewell(messages.Drained())
        return 0

    def _obey(self, message: messages.Message, descriptors: list[int]) -> None:
        if isinstance(message, messages.Link):
            self._broker.take(message.need, descriptors[0])
        elif isinstance(message, messages.Tied):
            self._broker.take(message.need, descriptors[0], message)
        elif isinstance(message, messages.Left):
            self._broker.left(message.worker)
        elif isinstance(message, messages.Refused):
            self._broker.refused(message)
        else:
            super()._obey(message, descriptors)

    def _connection_for(self, take: messages.Take, sock: socket.socket) -> ClientConnection:
        flags = take.flags
        return ClientConnection(
            self.context,
            self._broker,
            sock,
            take.slot,
            flags >> messages.TAKE_LISTENER_SHIFT,
            is_trusted=bool(flags & messages.TAKE_TRUSTED),
            is_borrowed=bool(flags & messages.TAKE_BORROWED),
            is_last=bool(flags & messages.TAKE_LAST),
        )

    def _read_less(self) -> None:
        for connection in self._connections.values():
            connection.read_less()

    def _orphaned(self) -> None:
        for connection in list(self._connections.values()):
            connection.ends_after_answer()
        self._broker.give_up()

    def _cut(self, connections: list[ClientConnection], kept: list[ClientConnection]) -> None:
        if connections:
            say("warn", "the grace period is over: connections are cut", connections=len(connections))
        for connection in connections:
            connection.cut()

    def _dump(self) -> None:
        faulthandler.dump_traceback(STDERR, all_threads=True)
        say("info", "stacks dumped to standard error", links=repr(self._broker), connections=len(self._connections))

    def _look(self, now: float) -> None:
        self.context.now = now
        super()._look(now)
        self._broker.expire()
        self.context.affinity.sweep(now)
        self._tell_lost()

    def _tell_lost(self) -> None:
        lost = self.context.lost
        for (route, key, code), count in lost.items():
            self._tell(messages.Lost(count, route, key, code))
        lost.clear()
