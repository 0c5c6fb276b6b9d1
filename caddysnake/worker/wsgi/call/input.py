"""``wsgi.input``: the request's content as the file that PEP 3333 describes.

Three kinds, told apart before the app is called: none (``NO_INPUT``), content that has arrived already (an
``io.BytesIO``, nothing to write here), and content that is still arriving (``LazyInput``).
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable

from ....http1.chunked import Piece


class InputClosed(OSError):
    """The content can no longer be read: the response is complete and the connection goes on without the app."""


class _Input(io.BufferedIOBase):
    """What all kinds can: be wrapped (``io.TextIOWrapper``), be read line by line, never be closed by the app."""

    __slots__ = ()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing: the content is the server's to discard."""


class NoInput(_Input):
    """A file at its end. Stateless, so one serves every request without content."""

    __slots__ = ()

    def read(self, size: int | None = -1) -> bytes:
        """Nothing: it is at its end."""
        return b""

    def read1(self, size: int | None = -1) -> bytes:
        """Nothing: it is at its end."""
        return b""

    def readline(self, size: int | None = -1) -> bytes:
        """Nothing: it is at its end."""
        return b""


NO_INPUT = NoInput()


class LazyInput(_Input):
    """Content that arrives while the app reads.

    ``pull`` waits for more and returns it, or nothing at the end; what it raises (``OSError``: the client left, or
    sent nothing for too long) reaches the app, which must not take half an upload for a whole one.

    As with any Python file, ``read(n)`` waits for n bytes unless the content ends before.
    """

    __slots__ = ("_at", "_ended", "_is_asked", "_pieces", "_pull", "_size")

    def __init__(self, arrived: bytes, pull: Callable[[], Piece]) -> None:
        self._pieces: deque[Piece] = deque((arrived,) if arrived else ())
        self._at = 0  # what is read of the first piece
        self._size = len(arrived)  # what is unread of all
        self._pull = pull
        self._ended = False
        self._is_asked = False

    def lose(self) -> None:
        """The rest of it was dropped, for nobody had asked for any: who asks now is told."""
        self.discard()
        self._pull = _lost

    def read(self, size: int | None = -1) -> bytes:
        """``size`` bytes, fewer at the end; all when negative or None. Raises ``OSError`` as ``pull`` does."""
        if size is None or size < 0:
            while self._more():
                pass
            return self._take(self._size)
        while self._size < size and self._more():
            pass
        return self._take(size)

    def read1(self, size: int | None = -1) -> bytes:
        """What is there, waited for only if that is nothing."""
        if not self._size and size != 0:
            self._more()
        return self._take(self._size if size is None or size < 0 else size)

    def readline(self, size: int | None = -1) -> bytes:
        """Up to and with the next newline, at most ``size`` bytes; empty at the end. Raises ``OSError``."""
        limit = size if size is not None and size >= 0 else None
        passed = index = 0
        while True:
            while index < len(self._pieces):
                piece = self._pieces[index]
                if type(piece) is not bytes:
                    piece = self._pieces[index] = bytes(piece)
                start = 0 if index else self._at
                end = piece.find(b"\n", start) + 1
                passed += (end or len(piece)) - start
                if limit is not None and passed >= limit:
                    return self._take(limit)
                if end:
                    return self._take(passed)
                index += 1
            if not self._more():
                return self._take(passed)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """The lines that remain; about ``hint`` bytes of them when it is positive. Raises ``OSError``."""
        lines: list[bytes] = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    @property
    def size(self) -> int:
        """Bytes that have come and are unread."""
        return self._size

    @property
    def is_lost(self) -> bool:
        """``lose`` was called."""
        return self._pull is _lost

    @property
    def is_untouched(self) -> bool:
        """Nothing of it was read, nor looked for."""
        return not self._is_asked

    def discard(self) -> None:
        """The connection goes on without the app; what it has not read is gone."""
        self._pieces.clear()
        self._at = self._size = 0
        self._ended = False
        self._pull = _refuse

    def _more(self) -> bool:
        self._is_asked = True
        if self._ended:
            return False
        piece = self._pull()
        if not piece:
            self._ended = True
            return False
        self._pieces.append(piece)
        self._size += len(piece)
        return True

    def _take(self, size: int) -> bytes:
        """Up to ``size`` bytes of what is there; copied once, or not at all when they are just one piece."""
        self._is_asked = True
        taken: list[Piece] = []
        size = min(size, self._size)
        self._size -= size
        while size:
            piece, at = self._pieces[0], self._at
            if len(piece) - at > size:
                taken.append(memoryview(piece)[at : at + size])
                self._at = at + size
                break
            taken.append(memoryview(piece)[at:] if at else piece)
            size -= len(piece) - at
            self._pieces.popleft()
            self._at = 0
        first = taken[0] if len(taken) == 1 else None
        return first if type(first) is bytes else b"".join(taken)


def _refuse() -> bytes:
    raise InputClosed("the response is complete: the rest of the request's content has been discarded")


def _lost() -> bytes:
    raise InputClosed("the rest of the request's content was dropped: the client would not read before it was sent")
