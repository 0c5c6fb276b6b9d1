"""Named tuples as what JSON has a form for, and back."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

_Kind = TypeVar("_Kind")


def plain(value: Any) -> Any:
    """``value`` with every NamedTuple and dataclass in it as an object by its fields' names."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if is_dataclass(value):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def named(kind: type[_Kind], value: Any) -> _Kind:
    """The NamedTuple ``kind`` of which ``plain`` made ``value``. Raises ``ValidationError``."""
    adapter: TypeAdapter[_Kind] = _adapter(cast(Hashable, kind))
    return adapter.validate_python(value)


@cache  # and not at import: only a daemon that takes over from another needs one, and the first answer waits
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))
