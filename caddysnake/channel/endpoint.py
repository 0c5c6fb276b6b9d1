"""One end of a channel: a SOCK_SEQPACKET unix socket with descriptors passed beside the frames.

The only module that calls sendmsg and recvmsg with ancillary data. Not thread-safe: one thread owns an endpoint.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Sequence

from .codec import MAX_FRAME, FrameError, decode, encode
from .messages import DESCRIPTORS, Failed, Message, Take, Takes

_INT = array.array("i").itemsize
# The most that one message may carry (SCM_MAX_FD): what the kernel cuts off it also closes, in our time.
_ANCILLARY = socket.CMSG_SPACE(253 * _INT)
_SO_PASSRIGHTS = 83  # Linux 6.16
_UNREAD_LIMIT = 1024  # more messages than a socket's buffer holds
_NO_LINGER = struct.pack("ii", 0, 0)
# Plain numbers: `&` of the flags that socket has for them goes through methods written in Python, for each message.
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CTRUNC = int(socket.MSG_CTRUNC)
_TRUNC = int(socket.MSG_TRUNC)
_NOSIGNAL = int(socket.MSG_NOSIGNAL)
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)  # unix(7): descriptors in flight are counted per user


class ChannelClosed(ConnectionError):
    """The other end is gone."""


class ChannelError(Exception):
    """The other end broke a rule of the channel."""


class DescriptorsLost(ChannelError):
    """At RLIMIT_NOFILE the kernel has dropped what came with a message. ``slots``: of the connections in it."""

    def __init__(self, message: Message) -> None:
        super().__init__("descriptors were lost: too many open files, or too many sent")
        takes = message.each() if type(message) is Takes else [message] if type(message) is Take else []
        self.slots = [take.slot for take in takes]

    def failure(self) -> Failed:
        """Why whoever has lost them leaves."""
        return Failed("resources", f"{self}: the app may leak them, or needs more: limits {{ open_files }}")


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, close-on-exec. SOCK_STREAM would need framing of descriptors; SEQPACKET keeps boundaries."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def close_at_once(descriptors: Iterable[int]) -> None:
    """Close descriptors that somebody else has, or had, too.

    A plain close can last as long as its other owner chose: with SO_LINGER set and unsent data it waits, O_NONBLOCK or
    not (socket(7)).
    """
    for fd in descriptors:
        try:
            # Not asked what kind of socket it is, which would be two more system calls.
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        except OSError:  # no socket
            os.close(fd)
            continue
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        os.close(sock.detach())


class Endpoint:
    """Sends and receives messages without blocking. ``outbox`` holds what the kernel did not take yet; ``flush`` it
    when the socket is writable again. Messages with descriptors are never queued: these stay their sender's.
    ``takes_descriptors``: False at the daemon's end: a newer kernel refuses them to the sender, else ``receive`` does.
    """

    def __init__(self, sock: socket.socket, takes_descriptors: bool = True) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self.outbox: deque[bytes] = deque()
        self._takes_descriptors = takes_descriptors
        self._unread_may_linger = False
        if not takes_descriptors:
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
            except OSError:
                self._unread_may_linger = True

    def fileno(self) -> int:
        """The socket's descriptor, for a poll or a loop; -1 once closed. It stays the endpoint's."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, at once even when unread messages hold descriptors. May be called twice."""
        if self._unread_may_linger and self._sock.fileno() >= 0:
            self._take_what_is_unread()
        self._sock.close()

    def _take_what_is_unread(self) -> None:
        # Descriptors in messages that nobody reads are closed by the kernel in our time, lingering or not.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        for _ in range(_UNREAD_LIMIT):  # an empty message looks like the end
            try:
                _, ancillary, _, _ = self._sock.recvmsg(1, _ANCILLARY, _CLOEXEC)
            except OSError:
                return
            close_at_once(_descriptors(ancillary))

    def hand_over(self, message: Message, descriptors: Sequence[int]) -> bool:
        """Send ``message`` with ``descriptors``. False when the kernel takes no more now; nothing was sent then.

        The descriptors are copied (``SCM_RIGHTS``, unix(7)): the caller still owns, and closes, its own. Raises
        ``ChannelClosed``.
        """
        if self.outbox and not self.flush():
            return False
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        return self._transmit(encode(message), ancillary)

    def send(self, message: Message) -> bool:
        """Send ``message``, or queue it; False: something is queued. Raises ``ChannelClosed``, ``struct.error``."""
        self.outbox.append(encode(message))
        return self.flush()

    def flush(self) -> bool:
        """Send what is queued; True when nothing is left. Raises ``ChannelClosed``."""
        while self.outbox:
            if not self._transmit(self.outbox[0], []):
                return False
            self.outbox.popleft()
        return True

    def _transmit(self, frame: bytes, ancillary: list[tuple[int, int, array.array[int]]]) -> bool:
        try:
            self._sock.sendmsg([frame], ancillary, _NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as exc:
            if exc.errno in _FULL:
                return False
            raise ChannelClosed(str(exc)) from exc
        return True

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message with its descriptors, now ours; None. Raises ``ChannelClosed``, ``ChannelError``."""
        try:
            # recv_fds ignores its flags, and the descriptors would be inheritable; hence recvmsg.
            frame, ancillary, flags, _ = self._sock.recvmsg(MAX_FRAME + 1, _ANCILLARY, _CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as exc:
            raise ChannelClosed(str(exc)) from exc
        descriptors = _descriptors(ancillary)
        try:
            message = self._check(frame, flags, descriptors)
        except BaseException:
            close_at_once(descriptors)
            raise
        return message, descriptors

    def _check(self, frame: bytes, flags: int, descriptors: list[int]) -> Message:
        if flags & _TRUNC:
            raise ChannelError(f"a message over {MAX_FRAME} bytes")
        if not frame:
            if descriptors:
                raise ChannelError("descriptors without a message")
            raise ChannelClosed("end of channel")
        try:
            message = decode(frame)
        except FrameError as exc:
            raise ChannelError(str(exc)) from None
        if flags & _CTRUNC:
            raise DescriptorsLost(message)
        expected = 0
        if self._takes_descriptors:
            expected = message.descriptors if type(message) is Takes else DESCRIPTORS.get(type(message), 0)
        if len(descriptors) != expected:
            raise ChannelError(f"{type(message).__name__} with {len(descriptors)} descriptors instead of {expected}")
        return message


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(data[: len(data) - len(data) % _INT])
            found.extend(received)
    return found
