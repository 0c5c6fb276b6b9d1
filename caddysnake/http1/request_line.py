"""Request lines and their targets (RFC 9112 section 3), judged as a whole."""

from __future__ import annotations

from .errors import ProtocolError
from .fields import is_host, is_token
from .heads import Line, RequestHead

_NAMES = """
    GET HEAD POST PUT DELETE OPTIONS PATCH TRACE
    COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL
    REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK SOURCE QUERY
"""
_REFUSED = frozenset((b"CONNECT", b"PRI"))
_LONGEST = 64

METHODS: dict[bytes, str] = {name.encode(): name for name in _NAMES.split()}
"""From the bytes of a request line to the method: those that llhttp knows for HTTP."""


def other_method(name: bytes) -> str | None:
    """A method that llhttp does not know; None for what is no method, or not spoken here."""
    if name in _REFUSED or len(name) > _LONGEST or not is_token(name):
        return None
    return name.decode("ascii")


LINE_REST = 100
"""What a request line has room for beside its target, in bytes."""

_VISIBLE = bytes(range(0x21, 0x7F))
_VISIBLE_OR_HIGH = _VISIBLE + bytes(range(0x80, 0x100))
"""What a query may hold beside. No URI does (RFC 3986 section 2), but a browser's request may, and Caddy escapes such
bytes in a path only. They part no words, and an app is given the bytes as they are."""
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}


def judge_request_line(line: bytes, max_target_bytes: int) -> Line:
    """Method, target, path, query and version. Raises ``ProtocolError``."""
    words = line.split(b" ")
    if len(words) != 3:
        raise _bad_line(line, max_target_bytes)
    target = words[1]
    method, version = METHODS.get(words[0]) or other_method(words[0]), _VERSIONS.get(words[2])
    path, _, query = target.partition(b"?")
    if method is None or version is None or not target or len(target) > max_target_bytes or b"#" in target:
        raise _bad_line(line, max_target_bytes)
    # A look at each character as text is quicker than `translate`, which makes itself a table first.
    if not (target.isascii() and target.decode().isprintable()) and not _is_target(path, query):
        raise _bad_line(line, max_target_bytes)
    return method, target, path, query, version


def _is_target(path: bytes, query: bytes) -> bool:
    return not (path.translate(None, _VISIBLE) or query.translate(None, _VISIBLE_OR_HIGH))


def _bad_line(line: bytes, max_target_bytes: int) -> ProtocolError:
    """What is wrong with it."""
    words = line.split(b" ")
    if len(line) > max_target_bytes + LINE_REST:
        return ProtocolError(414, "target-too-long", "the request line is too long")
    if len(words) != 3:
        return ProtocolError(400, "request-line", "a request line is a method, a target and a version")
    method, target, version = words
    if not is_token(method):
        return ProtocolError(400, "method", "a method is a word")
    if version not in _VERSIONS:
        return _bad_version(version)
    if method not in METHODS and other_method(method) is None:
        return ProtocolError(501, "method", f"the method {method[:40].decode('ascii')} is not spoken here")
    if len(target) > max_target_bytes:
        return ProtocolError(414, "target-too-long", "the request target is too long")
    return ProtocolError(400, "target", "a request target has visible ASCII characters only, and no fragment")


def check_partial_line(data: bytes, max_target_bytes: int) -> None:
    """Refuse what cannot become a request line any more. Raises ``ProtocolError``."""
    if len(data) > max_target_bytes + LINE_REST:
        raise ProtocolError(414, "target-too-long", "the request line is too long")
    if b"\n" in data:
        raise ProtocolError(400, "request-line", "a line that ends in a bare LF")
    method = data.partition(b" ")[0].removesuffix(b"\r")
    if method and not is_token(method):
        raise ProtocolError(400, "method", "not an HTTP request")


def _bad_version(version: bytes) -> ProtocolError:
    name, _, number = version.partition(b"/")
    if name == b"HTTP" and len(number) == 3 and number[1:2] == b"." and (number[:1] + number[2:]).isdigit():
        return ProtocolError(505, "version", f"HTTP/{number.decode()} is not spoken here")
    return ProtocolError(400, "version", "not a version of HTTP")


def resolve_target(head: RequestHead) -> None:
    """A target that is not a path: absolute form, or ``*`` for OPTIONS (RFC 9112 section 3.2)."""
    if head.target == b"*":
        if head.method == "OPTIONS":
            return
        raise ProtocolError(400, "target", "the target * is for OPTIONS")
    scheme, colon, rest = head.target.partition(b"://")
    if not colon or scheme.lower() not in (b"http", b"https"):
        raise ProtocolError(400, "target", "a target is a path, or an absolute http URL")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority = rest[:cut]
    path, _, head.query = rest[cut:].partition(b"?")
    head.path = path or b"/"
    if not authority or b"@" in authority or not is_host(authority):
        raise ProtocolError(400, "target", "an absolute target with a malformed authority")
    if head.host is not None:
        # RFC 9112 section 3.2.2: the target's authority replaces Host, for the app as well.
        head.host = authority
        head.headers[:] = [(name, authority if name == b"host" else value) for name, value in head.headers]
