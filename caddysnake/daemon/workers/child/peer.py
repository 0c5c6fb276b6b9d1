"""A child on its channel: it is heard to its last word, within a rate, and may be slow to read."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from collections.abc import Callable, Iterable, Sequence

from ....channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ....channel.messages import Message
from ....channel.throttle import TokenBucket

MESSAGES_A_TURN = 16
UNASKED_A_SECOND = 100
"""Messages that nobody waits for, of a child that has only to answer."""
_LAST_WORDS_MAX = 1024
"""More than a socket's buffer holds; a child of the child, which has the channel too, could go on for ever."""


def socket_of(channel: int) -> socket.socket | None:
    """Return the socket of ``channel``; None for -1, a channel that is closed."""
    return socket.socket(fileno=channel) if channel >= 0 else None


class Peer:
    """The daemon's end of one channel. It is closed before ``on_closed`` or ``on_breach`` is called."""

    def __init__(
        self,
        sock: socket.socket | None,
        per_second: int,
        hear: Callable[[Message], None],
        on_closed: Callable[[], None],
        on_breach: Callable[[str], None],
        overdraft: int = 0,
    ) -> None:
        """``sock``: None when the channel is closed already. ``per_second``, ``overdraft``: for ``count``.

        ``hear`` gets each message; a ``ChannelError`` that it raises is a breach, whose text ``on_breach`` gets.
        """
        self._endpoint = Endpoint(sock or socket.socket(socket.AF_UNIX), takes_descriptors=False)
        if sock is None:
            self._endpoint.close()
        self._loop = asyncio.get_running_loop()
        self._per_second = per_second
        self._allowance = TokenBucket(per_second, overdraft)
        self._hear = hear
        self._on_closed = on_closed
        self._on_breach = on_breach
        self._is_writing = False

    @property
    def is_open(self) -> bool:
        """Neither side has closed it."""
        return self._endpoint.fileno() >= 0

    @property
    def channel(self) -> int:
        """The channel's descriptor, which stays the peer's; -1 when it is closed."""
        return self._endpoint.fileno()

    @property
    def is_unread(self) -> bool:
        """It has not read yet all that it was sent."""
        return self.is_open and any(fcntl.ioctl(self.channel, termios.TIOCOUTQ, bytes(4)))

    @property
    def outbox(self) -> list[bytes]:
        """What the child has not had room for."""
        return list(self._endpoint.outbox)

    def listen(self, outbox: Iterable[bytes] = ()) -> None:
        """Hear what it says from now on. ``outbox``: what is still to be sent to it."""
        self._endpoint.outbox.extend(outbox)
        if self.is_open:
            self._loop.add_reader(self.channel, self.read)
            if self._endpoint.outbox:
                self._write_later()

    def sources(self) -> list[tuple[int, Callable[[], None]]]:
        """Return the channel, while it is open, with what to call when there is something to read."""
        return [(self.channel, self.read)] if self.is_open else []

    def read(self, most: int = MESSAGES_A_TURN) -> None:
        """Hear what is there, ``most`` messages at most."""
        try:
            for _ in range(most):
                received = self._endpoint.receive()
                if received is None:
                    return
                self._hear(received[0])
                if not self.is_open:
                    return
        except ChannelClosed:
            self.close()
            self._on_closed()
        except ChannelError as exc:
            self.close()
            self._on_breach(str(exc))

    def hear_last_words(self) -> None:
        """Hear all that is there, as its process has ended."""
        if self.is_open:
            self.read(_LAST_WORDS_MAX)

    def count(self, which: str = "") -> None:
        """Count a message. Raises ``ChannelError`` when it is one too many; ``which`` says of what kind."""
        if not self._allowance.spend(self._loop.time()):
            raise ChannelError(f"more than {self._per_second} messages a second{which}")

    def send(self, message: Message) -> bool:
        """Send ``message``, now or when it reads again; False when the channel is closed."""
        try:
            if not self._endpoint.send(message):
                self._write_later()
        except ChannelClosed:
            return False
        return True

    def hand_over(self, message: Message, descriptors: Sequence[int]) -> bool:
        """Send ``message`` with ``descriptors``; False when the kernel takes no more now. Raises ``ChannelClosed``."""
        return self._endpoint.hand_over(message, descriptors)

    def _write_later(self) -> None:
        if not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self.channel, self._write)

    def _write(self) -> None:
        try:
            is_done = self._endpoint.flush()
        except ChannelClosed:
            is_done = True
        if is_done:
            self._is_writing = False
            self._loop.remove_writer(self.channel)

    def close(self) -> None:
        """Hear and send nothing more. May be called twice."""
        if self.is_open:
            self._loop.remove_reader(self.channel)
            self._loop.remove_writer(self.channel)
            self._endpoint.close()
