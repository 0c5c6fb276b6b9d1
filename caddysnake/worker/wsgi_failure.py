"""What becomes of a request that dies: one log record with the reason, one page for the client."""

from __future__ import annotations

import logging
import sys

from ..http1.phrases import PHRASES
from ..http1.request import RequestHead
from .loader import foreign_traceback

_TARGET_MAX = 200
_PAGE = (
    "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title>"
    "<style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem}}pre{{overflow:auto;font-size:14px}}</style>"
    "<h1>{title}</h1><p>{request}</p><pre>{detail}</pre>\n"
)
_HTML = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;"}

_logger = logging.getLogger("caddysnake.worker")


def logger() -> logging.Logger:
    """Our logger, usable whatever the app has done to logging (dictConfig disables what it does not know)."""
    if not _logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        _logger.addHandler(handler)
        _logger.setLevel(logging.INFO)
        _logger.propagate = False
    _logger.disabled = False
    return _logger


def request_line(head: RequestHead) -> str:
    """Method and target for people: escaped, cut."""
    target = head.target[:_TARGET_MAX].decode("ascii", "backslashreplace")
    if not target.isprintable():
        target = repr(target)
    return f"{head.method} {target}{'…' if len(head.target) > _TARGET_MAX else ''}"


def plain_page(status: int) -> tuple[bytes, bytes]:
    """Media type and content of an answer of our own."""
    return b"text/plain; charset=utf-8", f"{status} {PHRASES.get(status, '')}\n".encode()


def traceback_page(head: RequestHead, exc: BaseException) -> tuple[bytes, bytes]:
    """Media type and content of a 500 for the developer's own browser."""
    page = _PAGE.format(
        title=f"500 {PHRASES[500]}",
        request=request_line(head).translate(_HTML),
        detail=foreign_traceback(exc).translate(_HTML),
    )
    return b"text/html; charset=utf-8", page.encode("utf-8", "backslashreplace")
