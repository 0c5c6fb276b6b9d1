"""Request methods: any token passes to the app, which knows what it means (RFC 9110 section 9.1).

Methods are case-sensitive: ``get`` is not ``GET``, and must not become it behind a proxy that was told to let no GET
through. CONNECT (a request of proxies) and PRI (the preface of HTTP/2) are answered 501.
"""

from __future__ import annotations

from .fields import is_token

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
