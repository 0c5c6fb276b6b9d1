"""Which trace a request belongs to (W3C Trace Context), and how a line that is printed while it is answered says so.

A mark stands before each line. It is the log process's to read: nobody else gets to see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_BEGIN, _END = "\x1e", "\x1f"
_MARK = re.compile(f"{_BEGIN}([0-9a-f]{{32}}){_END}")
_HEADER = re.compile(r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:\Z|-)")
"""W3C Trace Context, section 3.2: of a version to come more may follow."""


def trace_of(traceparent: str) -> str:
    """The trace id in the value of a ``traceparent``; empty for what is none."""
    found = _HEADER.match(traceparent)
    return "" if found is None else found[1]


def trace_in(fields: Iterable[tuple[bytes, bytes]]) -> str:
    """That of a request with these ``fields``, whose names are in lower case. Two fields say nothing."""
    return trace_of(",".join([value.decode("latin-1") for name, value in fields if name == b"traceparent"]))


def marked(lines: bytes, trace: str) -> bytes:
    """``lines``, each with the mark of ``trace``."""
    mark = f"{_BEGIN}{trace}{_END}".encode()
    end = len(lines) - lines.endswith(b"\n")
    return mark + lines[:end].replace(b"\n", b"\n" + mark) + lines[end:]


def unmarked(line: str) -> tuple[str, str]:
    """``line`` without marks, and the trace of the first; empty without one."""
    found = _MARK.search(line) if _BEGIN in line else None
    return (line, "") if found is None else (_MARK.sub("", line), found[1])
