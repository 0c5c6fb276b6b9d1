"""Lines that the app prints while it answers a request of a trace get that one's mark (``channel.traces``).

Nothing is done for it before something is printed: an event loop's request is known by its context, which what it
starts inherits, also in threads; a thread's by what that runs.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from types import CodeType
from typing import Any

from ...channel.traces import marked, trace_in, trace_of

headers: ContextVar[Iterable[tuple[bytes, bytes]]] = ContextVar("headers", default=())
"""Of the request that is being answered by an event loop."""

_CALLS: set[CodeType] = set()
_DEPTH_MAX = 1000
_is_on = False


def turn(on: bool) -> None:
    """Mark lines from now on, or do not."""
    global _is_on
    _is_on = on


def is_call(code: CodeType) -> None:
    """A function that calls a WSGI app has ``code``, and an argument ``environ``."""
    _CALLS.add(code)


def current() -> str:
    """The trace that is being worked for, as far as it can be known here; empty for none."""
    trace = trace_in(headers.get())
    frame = sys._getframe() if _CALLS and not trace else None
    for _ in range(_DEPTH_MAX):
        if frame is None:
            break
        if frame.f_code in _CALLS:
            return trace_of(frame.f_locals["environ"].get("HTTP_TRACEPARENT", ""))
        frame = frame.f_back
    return trace


def with_mark(lines: bytes) -> bytes:
    """Lines as they are to be written just now."""
    trace = current() if _is_on else ""
    return marked(lines, trace) if trace else lines


class _Marking(io.FileIO):
    def write(self, data: Any, /) -> int:
        if not _is_on or not (trace := current()):
            return super().write(data)
        lines = marked(bytes(data), trace)
        while lines:
            lines = lines[super().write(lines) or 0 :]
        return len(data)


def mark_standard_streams() -> None:
    """Have what is printed pass by here."""
    for name in ("stdout", "stderr"):
        former = getattr(sys, name)
        raw = getattr(getattr(former, "buffer", None), "raw", None)
        if type(raw) is io.FileIO:
            former.flush()
            made = io.TextIOWrapper(
                io.BufferedWriter(_Marking(raw.fileno(), "wb", closefd=False)),
                former.encoding, "backslashreplace", newline="\n", line_buffering=True,
            )  # fmt: skip
            made.mode = "w"  # type: ignore[misc]
            setattr(sys, name, made)
