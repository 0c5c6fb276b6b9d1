"""Messages to frames and back.

A frame is one datagram of a SOCK_SEQPACKET socket: a type byte, then the fields. Numbers are little-endian, text is
UTF-8 behind a 32-bit length. Nothing is guessed: an unknown type, a short or an over-long frame, text that is not
UTF-8, and a number that cannot be what its field means are ``FrameError``, which ends the worker that sent it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

from . import messages

MAX_FRAME = 16 * 1024
"""Bytes. A larger payload travels as a sealed memfd, so a larger frame is a breach."""

TEXT_LIMIT = 12 * 1024
"""Bytes of UTF-8 that one text field keeps; the middle is cut out of longer text."""


_CUT = "\n[… cut …]\n"


class FrameError(ValueError):
    """The peer sent something that is not a message."""


# One letter a field: I, i, d as in struct; s is text, b are bytes.
_LAYOUT: dict[int, tuple[type, str]] = {
    1: (messages.Configure, "I"),
    2: (messages.Take, "II"),
    12: (messages.Takes, "b"),
    3: (messages.Drain, "d"),
    4: (messages.Shed, "I"),
    5: (messages.Dump, ""),
    6: (messages.Spawn, "Id"),
    7: (messages.Reap, "I"),
    16: (messages.Join, "IIds"),
    17: (messages.Cancel, "I"),
    32: (messages.Ready, "Is"),
    33: (messages.Failed, "ss"),
    34: (messages.Returned, "I"),
    35: (messages.Drained, ""),
    36: (messages.Prepared, "Is"),
    37: (messages.Spawned, "Ii"),
    38: (messages.Reaped, "Ii"),
    48: (messages.LeftBehind, "I"),
    64: (messages.Need, "IIs"),
    65: (messages.Unneed, "I"),
    66: (messages.Seek, "IIIs"),
    68: (messages.Lost, "IIss"),
    8: (messages.Link, "I"),
    9: (messages.Refused, "IIIss"),
    10: (messages.Write, ""),
    11: (messages.Profile, "Id"),
    24: (messages.Tied, "IIs"),
    25: (messages.Left, "I"),
}
_CODE = {cls: code for code, (cls, _) in _LAYOUT.items()}
_FIXED = {
    code: (cls, struct.Struct("<B" + fields)) for code, (cls, fields) in _LAYOUT.items() if not set("sb") & set(fields)
}
_LENGTH = struct.Struct("<I")
_PID_MAX = 1 << 22  # proc(5), /proc/sys/kernel/pid_max
_ERRNO_MAX = 4095  # MAX_ERRNO in the kernel's include/linux/err.h


def _is_pid_or_error(number: int) -> bool:
    return -_ERRNO_MAX <= number <= _PID_MAX


def _is_wait_status(number: int) -> bool:
    """Of a process that has ended (wait(2)): not of one that was stopped, or goes on."""
    return 0 <= number <= 0xFFFF and number & 0x7F != 0x7F


def _is_time(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0


# What a number must be, beyond its size, for whoever takes it to use it as it is: by type, the field and its rule.
_RULES: dict[type, tuple[int, Callable[[Any], bool]]] = {
    messages.Drain: (0, _is_time),
    messages.Spawn: (1, _is_time),
    messages.Profile: (1, _is_time),
    messages.Join: (2, _is_time),
    messages.Spawned: (1, _is_pid_or_error),
    messages.Reaped: (1, _is_wait_status),
}


def shorten(text: str, limit: int = TEXT_LIMIT) -> str:
    """``text`` within ``limit`` bytes of UTF-8, the middle cut out: a traceback's two ends say most."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    half = (limit - len(_CUT.encode())) // 2
    if half <= 0:
        return raw[:limit].decode("utf-8", "ignore")
    return raw[:half].decode("utf-8", "ignore") + _CUT + raw[-half:].decode("utf-8", "ignore")


def encode(message: messages.Message) -> bytes:
    """The frame of ``message``. Raises ``struct.error`` for numbers out of range: a bug of the caller."""
    code = _CODE[type(message)]
    fixed = _FIXED.get(code)
    if fixed is not None:
        return fixed[1].pack(code, *message)
    parts = [bytes((code,))]
    texts = sum(isinstance(value, str) for value in message)
    for letter, value in zip(_LAYOUT[code][1], message, strict=True):
        if letter == "s":
            raw = shorten(str(value), TEXT_LIMIT // texts).encode()
            parts.append(_LENGTH.pack(len(raw)) + raw)
        elif letter == "b":
            parts.append(_LENGTH.pack(len(cast(bytes, value))) + cast(bytes, value))
        else:
            parts.append(struct.pack("<" + letter, value))
    return b"".join(parts)


def decode(frame: bytes) -> messages.Message:
    """The message in ``frame``. Raises ``FrameError``."""
    if not frame or len(frame) > MAX_FRAME:
        raise FrameError(f"a frame of {len(frame)} bytes")
    code = frame[0]
    fixed = _FIXED.get(code)
    if fixed is not None:
        cls, layout = fixed
        if len(frame) != layout.size:
            raise FrameError(f"{cls.__name__} of {len(frame)} bytes instead of {layout.size}")
        return _judged(cls, layout.unpack(frame)[1:])
    if code not in _LAYOUT:
        raise FrameError(f"unknown message type {code}")
    cls, letters = _LAYOUT[code]
    try:
        values, end = _unpack(frame, letters)
    except (struct.error, UnicodeDecodeError) as exc:
        raise FrameError(f"malformed {cls.__name__}: {exc}") from None
    if end != len(frame):
        raise FrameError(f"{cls.__name__} with {len(frame) - end} bytes too many")
    return _judged(cls, values)


def _judged(cls: type, values: Sequence[Any]) -> messages.Message:
    message: messages.Message = cls(*values)
    if type(message) is messages.Takes and not message.is_whole:
        raise FrameError(f"Takes of {len(message.entries)} bytes")
    rule = _RULES.get(cls)
    if rule is not None and not rule[1](values[rule[0]]):
        raise FrameError(f"{cls.__name__} with {message._fields[rule[0]]} {values[rule[0]]}")
    return message


def _unpack(frame: bytes, letters: str) -> tuple[list[Any], int]:
    values: list[Any] = []
    at = 1
    for letter in letters:
        if letter in "sb":
            (length,) = _LENGTH.unpack_from(frame, at)
            at += 4
            if at + length > len(frame):
                raise struct.error("text runs past the end")
            values.append(frame[at : at + length].decode() if letter == "s" else frame[at : at + length])
            at += length
        else:
            layout = "<" + letter
            values.append(struct.unpack_from(layout, frame, at)[0])
            at += struct.calcsize(layout)
    return values, at
