"""Reading a large configuration without looking for garbage all the while.

Ten thousand sites are a million objects, all of them alive: Python's collector walks them again and again, for a third
of the time, and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """The cyclic collector rests; for a block, or as a decorator."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
