"""How fast one client is read and written at the relay: what is held for it counts, and its app pays for work."""

from __future__ import annotations

import asyncio
import select
import socket

from ..aio.connection import Connection
from ..aio.transport import ConnectionPhase
from ..channel.vitals import SLOT_HEAD_SENT, SLOT_READING
from .context import RelayContext
from .link_connection import WRITE_HIGH_BYTES
from .link_pool import AppId
from .turns import COPY_SHIFT, CREDIT_UNITS, EVENT_UNITS

DENSE_SHIFT = 8
"""Bytes, shifted so: as many chunks are no more than an honest client sends."""

# Why reading is paused; it goes on when no reason is left.
LINK_FULL = 1
"""The worker does not take what was written to its link."""
BODY_HELD = 2
"""Enough of the request waits for a link."""
NEXT_HELD = 4
"""The next request has begun."""
CLIENT_FULL = 8
"""The client does not take what was written to it, and would ask for more."""
PUT_OFF = 16
"""Its app has had its share of this turn of the loop."""
ANSWER_UNREAD = 32
"""It has an answer to read before the rest of its request is."""

_IDLE = ConnectionPhase.IDLE


class ClientFlow(Connection):
    """Reads as long as there is no reason not to."""

    __slots__ = ("_counted", "_debt", "_holds", "_view", "app_id")

    context: RelayContext

    def __init__(self, context: RelayContext, sock: socket.socket, slot: int, is_last: bool) -> None:
        super().__init__(context, sock, slot, is_last)
        self.app_id: AppId = (0, "")
        """Whose the request is that is being forwarded, or was last."""
        self._view = context.head_view
        self._holds = 0
        self._debt = 0
        """Units of work for content that its app has not been charged for."""
        self._counted = 0
        """What is held for the client, which does not read."""

    def _client_drained(self) -> None:
        """The client takes more again."""
        raise NotImplementedError

    def _client_full(self) -> None:
        """The client takes no more for now."""
        raise NotImplementedError

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there."""
        super().connection_made(transport)
        self._transport.set_write_buffer_limits(WRITE_HIGH_BYTES)

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the transport is closed."""
        self._count_held(0)
        self._let_go()
        super().connection_lost(exc)

    def _is_gone(self) -> bool:
        """The client has closed its socket, not just its side of it: nobody would read an answer. Asks the kernel."""
        poller = select.poll()
        poller.register(self._sock, 0)
        return bool(poller.poll(0))  # POLLHUP and POLLERR come unasked (poll(2))

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to put what arrives. ``sizehint`` is not needed."""
        # Called before the recv: should we die in between, the daemon knows that something may have been read.
        if self.phase is _IDLE:
            context = self.context
            context.slots[self.slot] = SLOT_READING
            self._view = context.head_view
        return self._view

    def pause_writing(self) -> None:
        """asyncio: ``WRITE_HIGH_BYTES`` wait for the client. The link is read no more, and the write deadline runs."""
        super().pause_writing()
        self._count_held(self._write_left)
        self._client_full()

    def resume_writing(self) -> None:
        """asyncio: the client has read enough."""
        self.is_write_paused = False
        self._count_held(0)
        self._client_drained()

    def _count_held(self, size: int) -> None:
        self.context.backlog.change(size - self._counted)
        self._counted = size

    # Writing and reading

    def write(self, output: bytes, content_bytes: int = 0) -> None:
        """Write a piece of a response; what of it is content is not known."""
        context = self.context
        context.slots[self.slot] = SLOT_HEAD_SENT
        context.counters.bytes_out += len(output)
        self._transport.write(output)

    def _hold(self, reason: int) -> None:
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= reason

    def _unhold(self, reason: int) -> None:
        if self._holds & reason:
            self._holds &= ~reason
            if not self._holds and not self._transport.is_closing():
                self._transport.resume_reading()

    def pause_reading(self) -> None:
        """Read no more until the client has read."""
        self.is_reading_paused = True
        self._hold(ANSWER_UNREAD)

    def resume_reading(self) -> None:
        """Read, whatever the reasons not to."""
        self.is_reading_paused = False
        self._unhold(self._holds)

    def read_less(self) -> None:
        """Memory has become tight, or no longer is."""
        self._view = self.context.head_view

    # What it costs

    def _content_came(self, size: int) -> None:
        """Charge for ``size`` bytes of content that were parsed. A client chooses how many chunks there are in them:
        as long as there are many, less is read at a time.
        """
        chunks = len(self.parser.body)
        context = self.context
        self._view = context.backlog.view if chunks <= size >> DENSE_SHIFT else context.chunks_view
        self._owes((size >> COPY_SHIFT) + chunks)

    def _owes(self, units: int) -> None:
        """Charge for an event of so much work; when its app has had its share, read on when it is its turn."""
        self._debt += EVENT_UNITS + units
        if self._debt < CREDIT_UNITS:
            return
        turns = self.context.turns
        if turns.may(self.app_id):
            turns.spend(self.app_id, self._debt)
            self._debt = 0
        else:
            self._hold(PUT_OFF)
            turns.later(self.app_id, self._go_on)

    def _go_on(self) -> None:
        self.context.turns.spend(self.app_id, self._debt)
        self._debt = 0
        self._unhold(PUT_OFF)
