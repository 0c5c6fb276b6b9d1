"""Reading a large configuration without looking for garbage all the while.

Ten thousand sites are a million objects, all of them alive: Python's collector walks them again and again, for a third
of the time, and finds nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def without_collection(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """*function*, during which the cyclic collector rests."""

    @wraps(function)
    def resting(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            if was_enabled:
                gc.enable()

    return resting
