"""Which trace a request belongs to (W3C Trace Context), and how a line that is printed while it is answered says so.

A mark stands before each line. It is the log process's to read: nobody else gets to see it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_HEX = "0123456789abcdef"
_BEGIN, _END = "\x1e", "\x1f"
_MARK = re.compile(f"{_BEGIN}([{_HEX}]{{32}}){_END}")


def trace_of(traceparent: str) -> str:
    """The trace id in the value of a ``traceparent`` (section 3.2); empty for what is none."""
    parts = traceparent.split("-")
    is_one = len(parts) >= 4 and len(parts[1]) == 32 and not parts[1].strip(_HEX) and parts[1].strip("0")
    return parts[1] if is_one else ""


def trace_in(fields: Iterable[tuple[bytes, bytes]]) -> str:
    """That of a request with these ``fields``, whose names are in lower case."""
    return next((trace_of(value.decode("latin-1")) for name, value in fields if name == b"traceparent"), "")


def marked(lines: bytes, trace: str) -> bytes:
    """``lines``, each with the mark of ``trace``."""
    mark = f"{_BEGIN}{trace}{_END}".encode()
    end = len(lines) - lines.endswith(b"\n")
    return mark + lines[:end].replace(b"\n", b"\n" + mark) + lines[end:]


def unmarked(line: str) -> tuple[str, str]:
    """``line`` without marks, and the trace of the first; empty without one."""
    found = _MARK.search(line) if _BEGIN in line else None
    return (line, "") if found is None else (_MARK.sub("", line), found[1])
