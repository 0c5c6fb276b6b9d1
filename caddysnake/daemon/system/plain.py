"""Named tuples as what JSON has a form for."""

from __future__ import annotations

from typing import Any


def plain(value: Any) -> Any:
    """``value`` with every NamedTuple in it as an object by its fields' names."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value
