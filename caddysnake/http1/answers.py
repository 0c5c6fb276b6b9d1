"""Answers of our own: a short stable code in a header, one sentence, and in development the traceback."""

from __future__ import annotations

from .errors import ProtocolError
from .phrases import PHRASES
from .request import RequestHead
from .response import Response

CODE_HEADER = b"caddysnake-code"
"""Holds the code of an answer that is not the app's."""

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_NO_SNIFF = (b"x-content-type-options", b"nosniff")


def plain(status: int, code: str, text: str = "") -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and content of a plain answer: the reason phrase, and ``text`` behind it when there is one."""
    phrase = PHRASES.get(status, "Error")
    body = f"{phrase}: {text}\n" if text else f"{phrase}\n"
    return [_TEXT, _NO_SNIFF, (CODE_HEADER, code.encode())], body.encode("utf-8", "backslashreplace")


def traceback_page(status: int, code: str, title: str, trace: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and content of the page that shows a developer the traceback of a request."""
    body = (
        "<!doctype html><html><head><meta charset=utf-8>"
        f"<title>{_escape(title)}</title><style>body{{font:16px/1.5 system-ui,sans-serif;margin:2rem}}"
        "pre{background:#f4f4f4;padding:1rem;overflow:auto}</style></head><body>"
        f"<h1>{status} {PHRASES.get(status, '')}</h1><p>{_escape(title)}</p><pre>{_escape(trace)}</pre></body></html>\n"
    )
    return [_HTML, _NO_SNIFF, (CODE_HEADER, code.encode())], body.encode("utf-8", "backslashreplace")


def refusal(error: ProtocolError, head: RequestHead | None, server: bytes = b"") -> bytes:
    """The whole answer to a request that broke a rule; the connection ends after it."""
    answer = Response(head, close=True, server=server)
    headers, body = plain(error.status, error.code, str(error))
    answer.start(error.status, [*headers, *error.headers])
    output = answer.send(body, more=False)
    return output if isinstance(output, bytes) else b"".join(output)


def _escape(text: str) -> str:
    # html.escape would do; importing html brings its table of 2,231 entities along.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
