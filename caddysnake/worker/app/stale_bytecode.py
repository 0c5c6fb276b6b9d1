"""Bytecode of a source file that was saved a moment ago is not kept.

CPython takes a ``.pyc`` for that of a source whose size and modification time, in whole seconds, are what it was made
from. Someone who saves twice within a second, ``v1`` and then ``v2``, would be shown the first for ever; git knows the
same trouble with its index ("racy"), and helps itself in the same way.
"""

from __future__ import annotations

import os
import time
from importlib.machinery import SourceFileLoader
from typing import Any

_FRESH_S = 2.0
_done = False


def distrust_fresh_sources() -> None:
    """From now on this process writes no bytecode of a source that is younger than two seconds, or of the future."""
    global _done
    if _done:
        return
    _done = True
    write = SourceFileLoader.set_data

    def set_data(self: SourceFileLoader, path: str, data: Any, **options: Any) -> None:
        try:
            is_settled = time.time() - os.stat(self.path).st_mtime > _FRESH_S
        except OSError:
            is_settled = False
        if is_settled:
            write(self, path, data, **options)

    SourceFileLoader.set_data = set_data  # type: ignore[method-assign]
