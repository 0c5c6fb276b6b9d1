"""Status lines and field lines of responses, from what an app gives to bytes that cannot say anything else.

Names and values are joined first and then checked once, as a whole, for control characters. That one pass over the
finished head is what keeps a CR or LF in any value, name or phrase from becoming a field of its own. Each line but the
first starts with its CRLF; the end of the head is left to the caller, who knows the framing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .errors import ResponseError
from .fields import is_field_value, is_token, tokens
from .phrases import PHRASES

Headers = Iterable[tuple[bytes, bytes]]
TextHeaders = Iterable[tuple[str, str]]

_CONTROLS_BUT_TAB = bytes(range(9)) + bytes(range(10, 32)) + b"\x7f"
STATUS_LINES = {status: b"HTTP/1.1 %d %s" % (status, phrase.encode()) for status, phrase in PHRASES.items()}
_LEARNED_MAX = 1024
_LEARNED_NAME_MAX = 64

# Fields that mean something to the framing. Plain numbers, and 0 for all others: this is read for each field sent.
_LENGTH, _DROPPED, _CONNECTION, _UPGRADE, _DATE = range(1, 6)
_FIELDS = {
    b"content-length": _LENGTH,
    b"transfer-encoding": _DROPPED,
    b"keep-alive": _DROPPED,
    b"proxy-connection": _DROPPED,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
    b"date": _DATE,
}
_NO_TRAILERS = frozenset((*_FIELDS, b"server", b"host", b"trailer", b"te"))
_plain: dict[bytes, bytes] = {}  # names without a meaning, and how their line starts
_special: dict[bytes, tuple[bytes, int]] = {}
_known_text: dict[str, tuple[str, int]] = {}


Encoded = tuple[bytes, "int | None", bool, bool]
"""What ``encode`` makes: the head up to its last field, without the empty line; the app's Content-Length, None without
one; whether the app wants the connection to end; whether it gave a Date of its own."""


_HEADS_MAX = 256
_HEAD_MAX_BYTES = 512
_heads: dict[tuple[bytes, Headers], Encoded] = {}  # heads that were found good, a bounded number
_text_heads: dict[tuple[str, TextHeaders], tuple[int, Encoded]] = {}
_STATUS = re.compile(r"([1-9][0-9][0-9])(?: (.*))?", re.DOTALL)


def encode(line: bytes, headers: Headers, drop_length: bool) -> Encoded:
    """The head that begins with the status line ``line``. ``drop_length``: leave Content-Length out; follows
    from ``line``. The same fields again are answered from memory, but for cookies.
    Raises ``ResponseError``.
    """
    headers = tuple(headers)
    key = (line, headers)
    try:
        encoded = _heads.get(key)
    except TypeError:  # fields in lists
        return encode_anew(line, headers, drop_length)
    if encoded is None:
        encoded = encode_anew(line, headers, drop_length)
        if len(encoded[0]) <= _HEAD_MAX_BYTES and b"cookie" not in encoded[0].lower():
            if len(_heads) >= _HEADS_MAX:
                _heads.clear()
            _heads[key] = encoded
    return encoded


def encode_anew(line: bytes, headers: Headers, drop_length: bool) -> Encoded:
    """As ``encode``, for a head that will hardly come again."""
    length: int | None = None
    close = has_date = False
    parts = [line]
    append = parts.append
    plain_names = _plain
    for name, value in headers:
        prefix = plain_names.get(name)
        if prefix is None:
            prefix, meaning = _learn(name)
            if meaning == _LENGTH:
                if length is None and type(value) is bytes and value.isdigit() and len(value) < 20:
                    length = int(value)
                    if drop_length:
                        continue
                else:
                    _check_length(value, length)
                    continue
            elif meaning == _CONNECTION:
                close = close or b"close" in tokens(value)
                continue
            elif meaning == _DROPPED:
                continue
            elif meaning == _DATE:
                has_date = True
            elif meaning == _UPGRADE:
                append(b"\r\nconnection: ")
                append(b"upgrade")
        append(prefix)
        append(value)
    try:
        data = b"".join(parts)
    except TypeError:
        raise ResponseError("a header value must be bytes") from None
    # Each line but the first brings one CR and one LF, and nothing else may.
    if len(data) - len(data.translate(None, _CONTROLS_BUT_TAB)) != len(parts) - 1:
        raise _guilty(parts)
    return data, length, close, has_date


def encode_text(status: str, headers: TextHeaders) -> tuple[int, Encoded]:
    """As ``encode`` for text as PEP 3333 has it: each character is one byte. ``status`` is such as ``200 OK``."""
    headers = tuple(headers)
    key = (status, headers)
    try:
        made = _text_heads.get(key)
    except TypeError:
        return _encode_text(status, headers)
    if made is None:
        made = _encode_text(status, headers)
        head = made[1][0]
        if len(head) <= _HEAD_MAX_BYTES and b"cookie" not in head.lower():
            if len(_text_heads) >= _HEADS_MAX:
                _text_heads.clear()
            _text_heads[key] = made
    return made


def _encode_text(status: str, headers: TextHeaders) -> tuple[int, Encoded]:
    code, line = _text_status(status)
    return code, _text_fields(line, headers, drop_length=code in (204, 205))


def _text_status(status: object) -> tuple[int, str]:
    """Code and status line. Control characters in it are found with those of the headers."""
    if not isinstance(status, str):
        raise ResponseError(f"a status must be a str such as '200 OK', not {type(status).__name__}")
    match = _STATUS.fullmatch(status)
    if match is None:
        raise ResponseError(f"a status must look like '200 OK', not {status[:80]!r}")
    code = int(match[1])
    if code < 200:
        raise ResponseError(f"an informational status ({code}) cannot start a response")
    return code, f"HTTP/1.1 {code} {match[2] or ''}"


def _text_fields(line: str, headers: TextHeaders, drop_length: bool) -> Encoded:
    """As ``_encode``, written out for speed, not shared."""
    length: int | None = None
    close = has_date = False
    parts = [line]
    append = parts.append
    known_names = _known_text
    try:
        for name, value in headers:
            known = known_names.get(name)
            prefix, meaning = known if known is not None else _learn_text(name)
            if meaning:
                if meaning == _LENGTH:
                    if length is None and value.isdigit() and value.isascii() and len(value) < 20:
                        length = int(value)
                        if drop_length:
                            continue
                    else:
                        _check_length(value.encode("latin-1"), length)
                        continue
                elif meaning == _CONNECTION:
                    close = close or b"close" in tokens(value.encode("latin-1"))
                    continue
                elif meaning == _DROPPED:
                    continue
                elif meaning == _DATE:
                    has_date = True
                else:
                    append("\r\nconnection: ")
                    append("upgrade")
            append(prefix)
            append(value)
        data = "".join(parts).encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ResponseError(f"a header must be latin-1 (PEP 3333): {exc.object[exc.start : exc.end]!r}") from None
    except (TypeError, ValueError, AttributeError) as exc:
        raise ResponseError(f"headers must be a list of (str, str): {exc}") from None
    if len(data) - len(data.translate(None, _CONTROLS_BUT_TAB)) != len(parts) - 1:
        raise _guilty([part.encode("latin-1") for part in parts])
    return data, length, close, has_date


def _learn_text(name: object) -> tuple[str, int]:
    if not isinstance(name, str):
        raise ResponseError(f"a header name must be str, not {type(name).__name__}")
    prefix, meaning = _learn(name.encode("latin-1"))
    if len(name) <= _LEARNED_NAME_MAX:
        if len(_known_text) >= _LEARNED_MAX:
            _known_text.clear()
        _known_text[name] = (prefix.decode("latin-1"), meaning)
    return prefix.decode("latin-1"), meaning


def _learn(name: object) -> tuple[bytes, int]:
    """The start of a line with ``name``, and what it means to us. Remembered in bounded tables."""
    if not isinstance(name, bytes):
        raise ResponseError(f"a header name must be bytes, not {type(name).__name__}")
    known = _special.get(name)
    if known is not None:
        return known
    if not is_token(name):
        raise ResponseError(f"a header name with a character that is not allowed: {name[:80]!r}")
    prefix = b"\r\n" + name + b": "
    meaning = _FIELDS.get(name.lower(), 0)
    if meaning:
        if len(_special) >= _LEARNED_MAX:
            _special.clear()
        _special[name] = prefix, meaning
    elif len(name) <= _LEARNED_NAME_MAX:
        if len(_plain) >= _LEARNED_MAX:
            _plain.clear()
        _plain[name] = prefix
    return prefix, meaning


def status_line(status: int, reason: bytes | None) -> bytes:
    """The status line without its end; ``reason`` None for the registered phrase. Raises ``ResponseError``."""
    if reason is None:
        line = STATUS_LINES.get(status) if isinstance(status, int) else None
        if line is not None:
            return line
        reason = b""
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise ResponseError(f"not a status: {status!r}")
    if not is_field_value(reason):
        raise ResponseError(f"a reason phrase with a control character: {reason[:80]!r}")
    return b"HTTP/1.1 %d %s" % (status, reason)


def informational(status: int, headers: Headers) -> bytes:
    """A whole 1xx response (RFC 9110 section 15.2). Raises ``ResponseError``."""
    return encode(status_line(status, None), headers, drop_length=True)[0] + b"\r\n\r\n"


def trailer_section(headers: Headers) -> bytes:
    """Trailer lines; none that frame or route (RFC 9110 section 6.5.1). Raises ``ResponseError``."""
    lines = []
    for name, value in headers:
        prefix, _ = _learn(name)
        if name.lower() in _NO_TRAILERS:
            raise ResponseError(f"{name!r} cannot be a trailer")
        if not isinstance(value, bytes) or not is_field_value(value):
            raise ResponseError(f"a value of {name!r} that is not allowed")
        lines.append(prefix[2:] + value + b"\r\n")
    return b"".join(lines)


def _check_length(value: object, before: int | None) -> None:
    """Let a repeated Content-Length pass that says the same; what else comes here is wrong."""
    if not isinstance(value, bytes) or not value.isdigit() or len(value) > 19:
        raise ResponseError(f"not a Content-Length: {value!r:.80}")
    if before != int(value):
        raise ResponseError("two different Content-Lengths")


def _guilty(parts: list[bytes]) -> ResponseError:
    for prefix, value in zip(parts[1::2], parts[2::2], strict=True):
        if not is_field_value(value):
            name = prefix.strip(b"\r\n: ").decode("latin-1")
            return ResponseError(f"a value of {name!r} with a control character, such as CR or LF")
    return ResponseError("a status line with a control character")
