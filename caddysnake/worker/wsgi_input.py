"""``wsgi.input``: the request's content as the file that PEP 3333 describes.

Three kinds, told apart before the app is called: none (``NO_INPUT``), content that has arrived already (an
``io.BytesIO``, nothing to write here), and content that is still arriving (``LazyInput``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator


class InputClosed(OSError):
    """The content can no longer be read: the response is complete and the connection goes on without the app."""


class NoInput:
    """A file at its end. Stateless, so one serves every request without content."""

    __slots__ = ()

    def read(self, size: int | None = -1) -> bytes:
        return b""

    def readline(self, size: int | None = -1) -> bytes:
        return b""

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        return []

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        pass


NO_INPUT = NoInput()


class LazyInput:
    """Content that arrives while the app reads.

    ``pull`` waits for more and returns it, or nothing at the end; what it raises (``OSError``: the client left, or
    sent nothing for too long) reaches the app, which must not take half an upload for a whole one.

    As with any Python file, ``read(n)`` waits for n bytes unless the content ends before.
    """

    __slots__ = ("_buffer", "_ended", "_pull")

    def __init__(self, arrived: Iterable[bytes], pull: Callable[[], bytes]) -> None:
        self._buffer = bytearray().join(arrived)
        self._pull = pull
        self._ended = False

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            while self._more():
                pass
            return self._take(len(self._buffer))
        while len(self._buffer) < size and self._more():
            pass
        return self._take(size)

    def readline(self, size: int | None = -1) -> bytes:
        limit = -1 if size is None or size < 0 else size
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched) + 1
            if end == 0 and (limit < 0 or len(self._buffer) < limit):
                searched = len(self._buffer)
                if self._more():
                    continue
                end = len(self._buffer)
            elif end == 0:
                end = limit
            return self._take(end if limit < 0 else min(end, limit))

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        lines: list[bytes] = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def close(self) -> None:
        """Nothing: the content is the server's to discard."""

    def detach(self) -> None:
        """The connection goes on without the app; what it has not read is gone."""
        self._buffer.clear()
        self._ended = False
        self._pull = _refuse

    def _more(self) -> bool:
        if self._ended:
            return False
        piece = self._pull()
        self._ended = not piece
        self._buffer += piece
        return not self._ended

    def _take(self, size: int) -> bytes:
        buffer = self._buffer
        if size >= len(buffer):
            taken = bytes(buffer)
            buffer.clear()
        else:
            taken = bytes(buffer[:size])
            del buffer[:size]
        return taken


def _refuse() -> bytes:
    raise InputClosed("the response is complete: the rest of the request's content has been discarded")
