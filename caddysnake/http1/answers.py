"""Answers of our own: a short stable code in a header, and one sentence."""

from __future__ import annotations

from .errors import ProtocolError
from .phrases import PHRASES
from .request import RequestHead
from .response import Response

CODE_HEADER = b"caddysnake-code"
"""Holds the code of an answer that is not the app's."""

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NO_SNIFF = (b"x-content-type-options", b"nosniff")


def plain(status: int, code: str, text: str = "") -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and content of a plain answer: the reason phrase, and ``text`` behind it when there is one."""
    phrase = PHRASES.get(status, "Error")
    body = f"{phrase}: {text}\n" if text else f"{phrase}\n"
    return [_TEXT, _NO_SNIFF, (CODE_HEADER, code.encode())], body.encode("utf-8", "backslashreplace")


def refusal(error: ProtocolError, head: RequestHead | None) -> bytes:
    """The whole answer to a request that broke a rule; the connection ends after it."""
    answer = Response(head, close=True)
    headers, body = plain(error.status, error.code, str(error))
    answer.start(error.status, [*headers, *error.headers])
    output = answer.send(body, more=False)
    return output if isinstance(output, bytes) else b"".join(output)
