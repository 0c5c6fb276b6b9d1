"""Field names and values: what is a legal name, which names the framing depends on.

Names are learned once: a bounded table maps a name as it was written to its lower-case form, so that a request costs
one dictionary look-up for each of its fields, and equal names share one object. So are whole lines: most of a head's
come again in the next, whatever else differs in it.
"""

from __future__ import annotations

import re

from .errors import ProtocolError
from .memory import Memory

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LEARNED_MAX = 1024
_LEARNED_NAME_MAX = 64
_LINES_MAX = 1024
_LINE_MAX = 256
_REG_NAME = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
_IPV6 = rb"[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9\-._~%]+)?"  # with a zone (RFC 6874), as Caddy passes it
_IP_FUTURE = rb"[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+"
_HOST = re.compile(rb"(?:" + _REG_NAME + rb"|\[(?:" + _IPV6 + rb"|" + _IP_FUTURE + rb")\])(?::[0-9]*)?")
_CONTROLS = bytes(range(32)) + b"\x7f"
_CONTROLS_BUT_TAB = _CONTROLS.replace(b"\t", b"")


def is_token(text: bytes) -> bool:
    """RFC 9110 section 5.6.2."""
    return _TOKEN.fullmatch(text) is not None


def is_field_value(text: bytes) -> bool:
    """RFC 9110 section 5.5: no control characters but tab. Obsolete text (from 0x80) is allowed."""
    return len(text.translate(None, _CONTROLS_BUT_TAB)) == len(text)


def is_host(value: bytes) -> bool:
    """A host or an address in brackets, and perhaps a port (RFC 9110 section 7.2). Empty is legal."""
    return _HOST.fullmatch(value) is not None


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, in lower case, empty ones left out."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]


class RequestNames:
    """Names of request fields as sent to lower case; b"" for those that are dropped.

    A name with an underscore is dropped: WSGI's environ would confuse ``X_Forwarded_For`` with ``X-Forwarded-For``.
    Current Caddy drops them too, Debian's does not.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, bytes] = {}

    def learn(self, name: bytes) -> bytes:
        """The lower-case form of ``name``, remembered. Raises ``ProtocolError``."""
        if not is_token(name):
            raise ProtocolError(400, "header-name", "a header name with a character that is not allowed")
        lower = b"" if b"_" in name else name.lower()
        if len(name) <= _LEARNED_NAME_MAX:
            if len(self.known) >= _LEARNED_MAX:
                self.known.clear()
            self.known[name] = lower
        return lower


request_names = RequestNames()


Field = tuple[bytes, bytes]
"""Lower-case name, and value without outer white space."""

FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))
"""What says how a message, or its connection, goes on: the parser's own business."""

known_lines = Memory[Field](_LINES_MAX)
"""Lines of header sections that were found good, a bounded number; none of ``FRAMING``."""


def judge_line(line: bytes) -> Field | None:
    """The field of a line; None where more than the line must be known to judge it, or it is not good."""
    name, _, value = line.partition(b":")
    lower = request_names.known.get(name)
    if not lower or lower in FRAMING or len(name) == len(line):
        return None
    value = value.strip(b" \t")
    if not ((value.isascii() and value.decode().isprintable()) or is_field_value(value)):
        return None
    if lower == b"host" and not is_host(value):
        return None
    field = lower, value
    if len(line) <= _LINE_MAX and known_lines.comes_again(line):
        known_lines.keep(line, field)
    return field
