"""Request methods that can be parsed; all others are answered 501 (RFC 9110 section 9.1).

What llhttp knows for HTTP, without CONNECT (a request of proxies) and PRI (the preface of HTTP/2). Methods are
case-sensitive: ``get`` is not ``GET``, and must not become it behind a proxy that was told to let no GET through.
"""

from __future__ import annotations

_NAMES = """
    GET HEAD POST PUT DELETE OPTIONS PATCH TRACE
    COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL
    REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK SOURCE QUERY
"""

METHODS: dict[bytes, str] = {name.encode(): name for name in _NAMES.split()}
"""From the bytes of a request line to the method."""
