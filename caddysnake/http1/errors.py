"""Who broke a rule of HTTP/1.1: the peer (``ProtocolError``) or the app (``ResponseError``)."""

from __future__ import annotations

from typing import Final

BREACHES: Final[dict[str, str]] = {
    "malformed": "it is not HTTP/1.1",
    "request-line": "the first line is not a method, a target and a version",
    "method": "no method, or one that is not carried out here (CONNECT)",
    "target": "the target is not one",
    "target-too-long": "the target is longer than it may be",
    "version": "another version of HTTP",
    "header-name": "a field's name is none",
    "head-too-large": "the head is longer, or has more fields, than it may",
    "host": "no Host field, several, or one that names no host",
    "content-length": "Content-Length is not a number, or there are several",
    "transfer-encoding": "Transfer-Encoding is none that is known, or does not end in chunked",
    "framing": "where the content ends can be read in two ways",
    "chunk-overhead": "its chunks have more framing than content",
    "body-too-large": "the content is longer than `request_body_max_size` allows",
    "expect": "Expect asks for something other than 100-continue",
    "websocket-version": "a WebSocket of a version other than 13",
    "websocket-key": "a WebSocket's opening handshake without its key",
    "websocket-body": "a WebSocket's opening handshake with content",
}
"""The codes of ``ProtocolError``, with what the request was; those of late requests are in ``channel.codes``."""


class ProtocolError(Exception):
    """The peer's message is refused, and the connection cannot be used any further.

    ``status`` is what to answer while no response head is out, ``code`` a short stable word for headers, logs and
    metrics, the text says what was wrong, ``headers`` go along with the answer.
    """

    def __init__(self, status: int, code: str, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.headers = headers


class ResponseError(RuntimeError):
    """The app's response breaks a rule: raised where the app sent it, so that its traceback points there."""
