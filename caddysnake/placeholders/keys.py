"""Which app a request is for, when requests decide that, and which of their values are safe.

A block with placeholders of requests is a template of apps. The values of those placeholders are the *key*, one text:
equal keys, same app. The relay makes the key; the daemon, which does not take the relay's word for it, resolves it.
Both check each value for every use that is made of it, so a value that could leave its folder, or name something else
than meant, never gets as far as the file system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from . import names, template
from .names import PlaceholderError
from .request import Request

_SEGMENT_MAX_BYTES: Final = 255  # NAME_MAX
_MODULE_MAX: Final = 255
_ENVIRONMENT_MAX_BYTES: Final = 4096
_ACCOUNT_MAX: Final = 32  # LOGIN_NAME_MAX of most systems
_WORD_MAX: Final = 253  # a host's

_DOTTED = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_DOTTED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_ATTRIBUTES = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*(?:\(\))?")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*")
_ACCOUNT_NAME = re.compile(r"(?!root\Z)[A-Za-z_][A-Za-z0-9_.-]*")
_SPECIAL_NAME = re.compile(r"(?:^|\.)__[A-Za-z0-9_]*__(?:\.|$)")
_BETWEEN: Final = "\x1f"  # the unit separator: no value that is safe for anything holds a control character
_EVERY_REQUEST_ANEW = ("time.", "http.request.uuid")


class Use(Enum):
    """What a field of an app is, and so what a value in it may be."""

    PATH = "path"  # a value is one segment of it, or a part of one
    MODULE = "module"
    VARIABLE = "variable"
    ENVIRONMENT = "environment"
    ACCOUNT = "account"
    WORD = "word"  # of a command, perhaps a shell's


class UnsafeValue(Exception):
    """A request has a value that must not be used: 404. ``name``: the placeholder's. ``field``: where it is used."""

    def __init__(self, name: str, value: str, field: str) -> None:
        super().__init__(f"{{{name}}} is {value[:80]!r}, which cannot be part of {field}")
        self.name = name
        self.value = value


class Field(NamedTuple):
    """One value of a block. ``text`` has no placeholders left but those of requests (``template.settle``)."""

    name: str
    use: Use
    text: str


class AppTemplate:
    """A block of which requests decide some values. ``number``: the block's number in the plan. ``fields``: its values
    that hold placeholders of requests. Raises ``PlaceholderError``: a placeholder cannot be used, or differs from one
    request to the next in any case.
    """

    def __init__(self, number: int, fields: Iterable[Field]) -> None:
        self.number = number
        self._fields = tuple(fields)
        self._templates = {field.name: template.compile(field.text) for field in self._fields}
        found = [name for compiled in self._templates.values() for name in compiled.names]
        self.names = tuple(dict.fromkeys(found))
        for name in self.names:
            if name.startswith(_EVERY_REQUEST_ANEW):
                why = "so each would start an app of its own"
                raise PlaceholderError(f"{{{name}}} is different for every request, {why}")
        self._sources = [source for name in self.names if (source := names.look_up(name).of_request) is not None]
        # Each value is checked once for each use that is made of it: which value, how, and for which field.
        self._checks = [
            (number, _SAFE[use], field)
            for number, name in enumerate(self.names)
            for use, field in {
                field.use: field.name for field in self._fields if name in self._templates[field.name].names
            }.items()
        ]

    def key(self, request: Request) -> str:
        """The key of the app that *request* is for. Raises ``UnsafeValue``: one of its values must not be used."""
        values = [source(request) or "" for source in self._sources]
        self._check(values)
        return _BETWEEN.join(values)

    def resolve(self, key: str) -> dict[str, str]:
        """The fields, by name, of the app that *key* names. Raises ``UnsafeValue``: one of its values must not be used,
        what they make of a field is not such a thing, or it is no key of this template.
        """
        values = key.split(_BETWEEN)
        if len(values) != len(self.names):
            raise UnsafeValue("", key, "a key")
        self._check(values)
        by_name = dict(zip(self.names, values, strict=True))
        found: dict[str, str] = {}
        for field in self._fields:
            value = self._templates[field.name].fill(by_name)
            if not _WHOLE[field.use](value):
                name = self._templates[field.name].names[0]
                raise UnsafeValue(name, by_name[name], field.name)
            found[field.name] = value
        return found

    def _check(self, values: Sequence[str]) -> None:
        for number, is_safe, field in self._checks:
            if not is_safe(values[number]):
                raise UnsafeValue(self.names[number], values[number], field)


_IsSafe = Callable[[str], bool]


def _is_segment(value: str) -> bool:
    """*value* is one element of a path that cannot lead elsewhere, nor to something hidden."""
    return (
        bool(value)
        and value[0] not in ". "
        and value[-1] != " "
        and "/" not in value
        and "\\" not in value
        and value.isprintable()  # no control characters, no lone surrogates, nothing invisible
        and len(value.encode()) <= _SEGMENT_MAX_BYTES
    )


def _is_environment(value: str) -> bool:
    """*value* can be in an environment, and in a log. It may be empty."""
    return (not value or value.isprintable()) and len(value.encode()) <= _ENVIRONMENT_MAX_BYTES


def _is_like(pattern: re.Pattern[str], most: int) -> _IsSafe:
    return lambda value: len(value) <= most and pattern.fullmatch(value) is not None


def _is_module(pattern: re.Pattern[str]) -> _IsSafe:
    return lambda value: (
        len(value) <= _MODULE_MAX and pattern.fullmatch(value) is not None and not _SPECIAL_NAME.search(value)
    )


_SAFE: Final[Mapping[Use, _IsSafe]] = {
    Use.PATH: _is_segment,
    # What stands around it may make the first name whole.
    Use.MODULE: _is_module(_DOTTED),
    Use.VARIABLE: _is_module(_DOTTED),
    Use.ENVIRONMENT: _is_environment,
    Use.ACCOUNT: _is_like(_ACCOUNT, _ACCOUNT_MAX),
    # No option, and nothing that means something to a shell.
    Use.WORD: _is_like(_WORD, _WORD_MAX),
}
"""What one value may be."""
_WHOLE: Final[Mapping[Use, _IsSafe]] = {
    Use.PATH: lambda value: bool(value) and "\0" not in value,
    Use.MODULE: _is_module(_DOTTED_NAME),
    Use.VARIABLE: lambda value: _ATTRIBUTES.fullmatch(value) is not None,
    Use.ENVIRONMENT: _is_environment,
    Use.ACCOUNT: _is_like(_ACCOUNT_NAME, _ACCOUNT_MAX),
    Use.WORD: lambda value: "\0" not in value,
}
"""What a field may be that values have made."""
