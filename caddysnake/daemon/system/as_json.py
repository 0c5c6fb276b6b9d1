"""Named tuples as what JSON has a form for, and back."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

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
    """The NamedTuple ``kind`` of which ``plain`` made ``value``, perhaps in another version: a field that is not known
    here is passed over. Raises ``ValidationError``.
    """
    adapter: TypeAdapter[_Kind] = _adapter(cast(Hashable, kind))
    return adapter.validate_python(_known(_shapes(cast(Hashable, kind)), value))


Shape = dict[str, "list[Shape]"]
"""The fields of an object, each with what its own value may look like."""


@cache
def _shapes(kind: Any) -> list[Shape]:
    """What objects may look like in a value of the type ``kind``, also those in lists there."""
    if inner := get_args(kind):
        return [shape for each in inner for shape in _shapes(each)]
    has_fields = hasattr(kind, "_fields") or is_dataclass(kind)
    return [{name: _shapes(each) for name, each in get_type_hints(kind).items()}] if has_fields else []


def _known(shapes: list[Shape], value: Any) -> Any:
    """``value`` without the fields that none of ``shapes`` has."""
    if isinstance(value, list):
        return [_known(shapes, each) for each in value]
    if not isinstance(value, dict):
        return value
    shape = shapes[0] if len(shapes) == 1 else max(shapes, key=lambda each: len(each.keys() & value.keys()))
    found = {name: each for name, each in value.items() if name in shape}
    return found | {name: _known(shape[name], each) for name, each in found.items() if shape[name]}


@cache  # and not at import: only a daemon that takes over from another needs one, and the first answer waits
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, kind))
