"""The relay's end of one link: a ``Protocol`` that serves one client's request at a time, or none.

The relay is the client of a link, so it may end one whenever it likes. A link that says anything while no request is
on it is not used again.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client_connection import ClientConnection
    from .server import RelayServer

WRITE_HIGH_BYTES = 96 * 1024
"""What may wait to be written, on either side, before its source is read no further: so much, and one read more."""

FLUSH_S = 30.0
"""How long a worker may take to read what was written to a link that is over."""


class LinkConnection(asyncio.Protocol):
    """``client`` is whose request it carries, None while it is idle."""

    __slots__ = ("_is_over", "_server", "_sock", "_transport", "client", "is_write_paused", "need")

    def __init__(self, server: RelayServer, sock: socket.socket, need: int) -> None:
        self.client: ClientConnection | None = None
        self.is_write_paused = False
        self.need = need
        self._server = server
        self._sock = sock
        self._transport: Any = None
        self._is_over = False

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there, and whoever waits for a link may have this one."""
        self._transport = transport
        self._transport.set_write_buffer_limits(WRITE_HIGH_BYTES)
        self._server.link_made(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: ``data`` has arrived. On an idle link it answers nothing: that is discarded."""
        client = self.client
        if client is not None:
            client.link_data(data)
        else:
            self.discard()

    def eof_received(self) -> bool:
        """asyncio: the worker ends. False: so does our side."""
        self._ended(is_orderly=True)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the transport is closed. Its client, if it has one, hears of it first."""
        self._ended(is_orderly=exc is None)
        self._server.link_closed(self)

    def _ended(self, is_orderly: bool) -> None:
        if self._is_over:
            return
        client, self.client = self.client, None
        if client is not None:
            client.link_ended(is_orderly)
        self.discard()

    def pause_writing(self) -> None:
        """asyncio: ``WRITE_HIGH_BYTES`` wait for the worker. The client is read no more."""
        self.is_write_paused = True
        if self.client is not None:
            self.client.link_full()

    def resume_writing(self) -> None:
        """asyncio: the worker has read enough."""
        self.is_write_paused = False
        if self.client is not None:
            self.client.link_drained()

    # The client's side

    def write(self, data: bytes) -> None:
        """Send ``data`` to the worker, or keep it until it reads; ``client.link_full`` is called when that is
        too much.
        """
        self._transport.write(data)

    def write_eof(self) -> None:
        """End our side, behind what was written."""
        try:
            self._transport.write_eof()
        except OSError:
            pass  # the worker was first; the next read will say so

    def pause_reading(self) -> None:
        """Take no more from the worker. No harm when the link is over."""
        if not self._is_over:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo ``pause_reading``. No harm when the link is over."""
        if not self._is_over:
            self._transport.resume_reading()

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
        self._server.link_over(self)
        if not flushes:
            self._transport.abort()
            return
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(FLUSH_S, self._transport.abort)
