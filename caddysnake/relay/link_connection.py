"""The relay's end of one link: a ``BufferedProtocol`` that serves one client's request at a time, or none.

The relay is the client of a link, so it may end one whenever it likes. A link that says anything while no request is
on it is not used again. What a worker sends is read as fast as its app's share of the loop allows (``turns``): the rest
waits here, and the link is read no further.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Hashable
from typing import Any, Protocol

from .context import READ_BYTES, RelayContext
from .exchange import Answer
from .link_pool import AppId, TiedId
from .turns import CREDIT_UNITS

WRITE_HIGH_BYTES = 8 * 1024
"""What may wait to be written, on either side, before its source is read no further: so much, and one read more. Only
what is more counts as held for a slow reader (``backlog``).
"""

FLUSH_S = 30.0
"""How long a worker may take to read what was written to a link that is over."""

# Why reading is paused; it goes on when no reason is left.
CLIENT_FULL = 1
"""The client does not take what was written to it."""
PUT_OFF = 2
"""What was read waits for its app's turn."""


class LinkUser(Hashable, Protocol):
    """Whoever has a request for a link, or waits for one."""

    app_id: AppId

    def cut(self) -> None:
        """End: there is nothing more to be had."""

    def linked(self, link: LinkConnection) -> None:
        """There is a link for the request."""

    def refused(self, answer: Answer) -> None:
        """There will be no link."""

    def link_data(self, data: bytes) -> None:
        """The worker has sent ``data``."""

    def link_step(self, data: bytes) -> None:
        """Go on with what the worker has sent, and was put off."""

    def link_ended(self, is_orderly: bool) -> None:
        """The link has ended; ``is_orderly``: by the worker's end of file, not by an error."""

    def link_full(self) -> None:
        """The worker does not read."""

    def link_drained(self) -> None:
        """The worker reads again."""


class LinkOwner(Protocol):
    """Whoever knows what links there are."""

    def link_made(self, link: LinkConnection) -> None:
        """``link`` can be used."""

    def link_over(self, link: LinkConnection) -> None:
        """``link`` is not to be used any more."""

    def link_closed(self, link: LinkConnection) -> None:
        """``link`` is closed for good."""


class LinkConnection(asyncio.BufferedProtocol):
    """``client`` is whose request it carries, None while it is idle."""

    __slots__ = (
        "_begun",
        "_context",
        "_counted",
        "_debt",
        "_ending",
        "_holds",
        "_is_over",
        "_is_put_off",
        "_owner",
        "_sock",
        "_transport",
        "_unread",
        "client",
        "is_left",
        "is_write_paused",
        "need",
        "owner",
    )

    def __init__(
        self, context: RelayContext, owner: LinkOwner, sock: socket.socket, need: int, app_id: TiedId | None = None
    ) -> None:
        self.client: LinkUser | None = None
        self.is_left = False
        """The worker that it is tied to gives up such links: it is good for the present request only."""
        self.is_write_paused = False
        self.need = need
        self.owner = app_id
        """Whose it is, where that is a worker."""
        self._context = context
        self._owner = owner
        self._sock = sock
        self._transport: Any = None
        self._is_over = False
        self._holds = 0
        self._debt = 0
        """Units of work that its app has not been charged for."""
        self._is_put_off = False
        self._unread = b""
        """What was read and put off altogether."""
        self._begun = 0
        """Bytes of a head that is not whole."""
        self._counted = 0
        """What is held for the worker, which does not read."""
        self._ending: bool | None = None
        """It has ended while something was put off; whether orderly."""

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there, and whoever waits for a link may have this one."""
        self._transport = transport
        self._transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        self._owner.link_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to put what arrives. ``sizehint`` is not needed."""
        return self._context.backlog.view

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: ``nbytes`` have arrived. On an idle link they answer nothing: that is discarded."""
        client = self.client
        if client is not None:
            client.link_data(bytes(self._context.backlog.view[:nbytes]))
        else:
            self.discard()

    def eof_received(self) -> bool:
        """asyncio: the worker ends. False: so does our side."""
        self._ended(is_orderly=True)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the transport is closed. Its client, if it has one, hears of it first."""
        self._ended(is_orderly=exc is None)
        self._context.backlog.change(-self._counted)
        self._counted = 0
        self._owner.link_closed(self)

    def _ended(self, is_orderly: bool) -> None:
        if self._is_over:
            return
        if self._is_put_off:
            self._ending = is_orderly  # behind what came before
            return
        client, self.client = self.client, None
        if client is not None:
            client.link_ended(is_orderly)
        self.discard()

    def pause_writing(self) -> None:
        """asyncio: ``WRITE_HIGH_BYTES`` wait for the worker. The client is read no more."""
        self.is_write_paused = True
        self._counted = self._transport.get_write_buffer_size()
        self._context.backlog.change(self._counted)
        if self.client is not None:
            self.client.link_full()

    def resume_writing(self) -> None:
        """asyncio: the worker has read enough."""
        self.is_write_paused = False
        self._context.backlog.change(-self._counted)
        self._counted = 0
        if self.client is not None:
            self.client.link_drained()

    # The client's side

    def write(self, data: bytes) -> None:
        """Send ``data`` to the worker, or keep it until it reads; ``client.link_full`` when that is too much."""
        self._transport.write(data)

    def write_eof(self) -> None:
        """End our side, behind what was written."""
        with contextlib.suppress(OSError):  # the worker was first; the next read will say so
            self._transport.write_eof()

    def hold(self, reason: int) -> None:
        """Take no more from the worker until ``unhold``. No harm when the link is over."""
        if not self._holds and not self._is_over:
            self._transport.pause_reading()
        self._holds |= reason

    def unhold(self, reason: int) -> None:
        """``reason`` to take no more is gone. No harm when it was none, or the link is over."""
        if self._holds & reason:
            self._holds &= ~reason
            if not self._holds and not self._is_over:
                self._transport.resume_reading()

    # Its app's turn

    def owes(self, units: int) -> None:
        """So much work was done for what the worker sent."""
        self._debt += units

    def holds_head(self, size: int) -> None:
        """So many bytes of a head have come that is not whole."""
        self._context.backlog.change(size - self._begun)
        self._begun = size

    def may_go_on(self) -> bool:
        """Whether what has come may be looked at now; else ``put_off`` it."""
        if self._debt < CREDIT_UNITS:
            return True
        turns = self._context.turns
        assert self.client is not None
        app_id = self.client.app_id
        if not turns.may(app_id):
            return False
        turns.spend(app_id, self._debt)
        self._debt = 0
        return True

    def put_off(self, data: bytes = b"") -> None:
        """Go on with the client's ``link_step``, with ``data``, when it is the app's turn."""
        assert self.client is not None
        self._unread = data
        if not self._is_put_off:
            self._is_put_off = True
            self._context.backlog.change(READ_BYTES)
        self.hold(PUT_OFF)
        self._context.turns.later(self.client.app_id, self._go_on)

    def _go_on(self) -> None:
        client = self.client
        try:
            self._take_step()
        except Exception as exc:
            self._context.mishap(exc)
            self.discard()
            if client is not None:
                client.cut()

    def _take_step(self) -> None:
        self._is_put_off = False
        self._context.backlog.change(-READ_BYTES)
        client = self.client
        data, self._unread = self._unread, b""
        if client is None:
            return  # it was discarded
        app_id = client.app_id
        client.link_step(data)
        self._context.turns.spend(app_id, self._debt)
        self._debt = 0
        if self._is_put_off:
            return
        if self._ending is not None:
            self._ended(self._ending)
        else:
            self.unhold(PUT_OFF)

    @property
    def is_flushed(self) -> bool:
        """All that was written has left."""
        return not self._transport.get_write_buffer_size()

    @property
    def is_alive(self) -> bool:
        """The worker has neither ended it nor said anything: known without waiting for the loop to say so."""
        try:
            self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def discard(self, flushes: bool = False) -> None:
        """Use it no more. ``flushes``: what was written still leaves."""
        self.client = None
        if self._is_over:
            return
        self._is_over = True
        self.holds_head(0)
        self._owner.link_over(self)
        if not flushes:
            self._transport.abort()
            return
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(FLUSH_S, self._transport.abort)
