"""Which names and values the variables of an app's environment may have."""

from __future__ import annotations

import re
from typing import Final

from .values import InvalidValue, like

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATTERN = re.compile(r"[A-Za-z_*][A-Za-z0-9_*]*")
_REFUSED_PREFIXES: Final = ("CADDYSNAKE_", "LD_", "DYLD_")
_REFUSED_NAMES: Final = frozenset({"PYTHONUNBUFFERED"})


def check_name(name: str) -> None:
    """Raise ``InvalidValue`` unless *name* may be set for an app.

    Names that steer the dynamic linker (``LD_``, ``DYLD_``) would run code before Python does; those of our own
    (``CADDYSNAKE_``, ``PYTHONUNBUFFERED``) are set for every worker.
    """
    like(name, _NAME, "the name of an environment variable", "use letters, digits and _, and no digit first")
    prefix = next((prefix for prefix in _REFUSED_PREFIXES if name.startswith(prefix)), None)
    if prefix is not None and name != "CADDYSNAKE_CACHE_TIMEOUT":  # which ``caddysnake.cache`` reads
        raise InvalidValue(f"{name} may not be set: names beginning with {prefix} are reserved", "take it away")
    if name in _REFUSED_NAMES:
        raise InvalidValue(f"{name} may not be set: it is reserved", "take it away")


def check_pattern(pattern: str) -> None:
    """Raise ``InvalidValue`` unless *pattern* names variables that may be passed on, perhaps with ``*`` in it."""
    like(pattern, _PATTERN, "the name of an environment variable", "write one such as DATABASE_*")
    if "*" not in pattern:
        check_name(pattern)


def may_be_set(name: str) -> bool:
    """Whether :func:`check_name` takes *name*."""
    try:
        check_name(name)
    except InvalidValue:
        return False
    return True


def check_value(value: str) -> None:
    """Raise ``InvalidValue`` when the kernel would not take *value*."""
    if "\0" in value:
        raise InvalidValue("the value of an environment variable may not hold a NUL character")
