"""``wsgi.file_wrapper`` (PEP 3333): a file as a response's content, sent by the kernel where that is possible."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from typing import Any

BLOCK_BYTES = 64 * 1024


class FileWrapper:
    """Iterable over a file-like object, as the app or a middleware may use it; ``sendable`` is what we look for."""

    def __init__(self, filelike: Any, block_size: int = BLOCK_BYTES) -> None:
        self.filelike = filelike
        self.block_size = block_size
        # PEP 3333: the wrapper has a close method exactly if the file has one.
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size)
        if not data:
            raise StopIteration
        return data

    # Werkzeug goes to where a range begins by these, and else reads the file from its beginning.

    def seekable(self) -> bool:
        """Whether the file is known to have a position that can be set."""
        return hasattr(self.filelike, "seekable") and bool(self.filelike.seekable())

    def seek(self, *where: int) -> int:
        """As of the file."""
        return int(self.filelike.seek(*where))

    def tell(self) -> int:
        """As of the file."""
        return int(self.filelike.tell())

    def limited(self, size: int) -> Iterator[bytes]:
        """What is read, up to ``size`` bytes (PEP 3333: as far as Content-Length says)."""
        for block in self:
            yield block[:size]
            size -= len(block)
            if size <= 0:
                return

    def sendable(self) -> tuple[int, int, int] | None:
        """Descriptor, offset and size of what is left to send; None when only reading can tell.

        A file that transforms what it reads (gzip, text mode) may have a descriptor too, so only Python's own binary
        files count. The offset is that of the next read, not of the descriptor, which is ahead by what is buffered.
        """
        if type(self.filelike) not in _BINARY_FILES:
            return None
        try:
            fd = self.filelike.fileno()
            status = os.fstat(fd)
            offset = self.filelike.tell()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode) or not status.st_blocks:
            return None  # files of /proc and /sys are regular, have no blocks, and another size than they say
        return fd, offset, max(0, status.st_size - offset)


_BINARY_FILES = (io.FileIO, io.BufferedReader, io.BufferedRandom)
