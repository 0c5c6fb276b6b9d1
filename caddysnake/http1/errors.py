"""Who broke a rule of HTTP/1.1: the peer (``ProtocolError``) or the app (``ResponseError``)."""

from __future__ import annotations


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
