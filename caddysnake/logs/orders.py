"""What the daemon tells the log process, over a SOCK_SEQPACKET socketpair; ``BEAT`` and ``TROUBLE`` are answered.

=======  ==========================================================================================================
order    meaning
=======  ==========================================================================================================
RECORD   write this record
TEXT     write this text (a ``Statement``): for whoever started the daemon
SOURCE   read these pipes (descriptors beside it), each named in ``streams``; ``fields`` go on every record
OVER     whoever had these pipes (``pipes``: their inodes) has ended: read what is there, and let go of them
READ     write what was written last, and perhaps what comes, to this pipe (``ring.Query``)
STYLE    from now on this level and format
BEAT     say that you are alive, with the same frame
TROUBLE  which traceback came most often from these processes (``pids``) of ``app``; the answer has the same ``number``
END      write what is there, and leave
=======  ==========================================================================================================

Both ends are ours and of one version. When the daemon ends without ``END``, the log process goes on until the last of
the pipes has ended, so that nobody's print fails.
"""

from __future__ import annotations

import array
import socket
from typing import Any

import orjson

from .records import Record

RECORD, TEXT, SOURCE, OVER, READ, STYLE, BEAT, TROUBLE, END = b"R", b"T", b"S", b"O", b"D", b"Y", b"B", b"W", b"E"
FRAME_MAX_BYTES = 96 * 1024
"""Well below what a socket's buffer takes at once."""

_FIELD_MAX = 16 * 1024
_FIELDS_MAX = 4
_INT = array.array("i").itemsize


def frame(order: bytes, content: dict[str, Any]) -> bytes:
    """The frame of an order. Raises ``TypeError`` for what JSON has no form for."""
    return order + orjson.dumps(content)


def record_frame(record: Record) -> bytes:
    """The frame of a record to be written; what JSON has no form for, or too much of it, is cut."""
    try:
        data = frame(RECORD, record._asdict())
        if len(data) <= FRAME_MAX_BYTES:
            return data
    except TypeError:
        pass
    fields = {name: cut(str(value)) for name, value in list(record.fields.items())[:_FIELDS_MAX]}
    return frame(RECORD, record._replace(msg=cut(record.msg), fields=fields)._asdict())


def cut(text: str) -> str:
    """As much of ``text`` as finds room, without what UTF-8 has no form for."""
    return text[:_FIELD_MAX].encode("utf-8", "backslashreplace").decode()


def send(sock: socket.socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """Send a frame without waiting. Raises ``OSError``, ``BlockingIOError`` among them."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def receive(sock: socket.socket) -> tuple[bytes, dict[str, Any], list[int]] | None:
    """An order, its content and its descriptors, the caller's; or None. Raises ``EOFError``, ``OSError``."""
    try:
        data, ancillary, _, _ = sock.recvmsg(
            FRAME_MAX_BYTES * 2, socket.CMSG_SPACE(8 * _INT), socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        )
    except BlockingIOError:
        return None
    descriptors = array.array("i")
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(raw[: len(raw) - len(raw) % _INT])
    if not data:
        raise EOFError
    return data[:1], orjson.loads(data[1:]), list(descriptors)
