"""What a request says in its method, query, fields and variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..placeholders import template
from ..placeholders.request import Request

Predicate = Callable[[Request], bool]
Value = Callable[[Request], str]

_PROTOCOLS: dict[str, tuple[int, int, bool]] = {
    "http/1.0": (1, 0, False),
    "http/1.0+": (1, 0, True),
    "http/1.1": (1, 1, False),
    "http/1.1+": (1, 1, True),
    "http/2": (2, -1, False),
    "http/2+": (2, 0, True),
    "http/3": (3, -1, False),
    "http/3+": (3, 0, True),
}
"""Major version, minor version or -1 for any, and whether later ones are meant too."""


def method(methods: Iterable[str]) -> Predicate:
    """The method is one of *methods*, which are taken in upper case; the request's is not."""
    wanted = frozenset(name.upper() for name in methods)
    return lambda request: request.head.method in wanted


def query(wanted: Mapping[str, list[str]]) -> Predicate:
    """The query has each *wanted* name with one of its values (``*``: any), and can be read; none wanted: is none."""
    if not wanted:
        return lambda request: not request.pairs
    tests = [(_value(name), [_value(value) for value in values]) for name, values in wanted.items()]

    def matches(request: Request) -> bool:
        if not request.is_query_whole:
            return False
        for name, values in tests:
            found = request.pairs.get(name(request))
            if found is None:
                return False
            if not any((value := allowed(request)) == "*" or value in found for allowed in values):
                return False
        return True

    return matches


def header(wanted: Mapping[str, list[str] | None]) -> Predicate:
    """Each *wanted* field has one of the values, with ``*`` at their ends; []: it is there; ``None``: it is not."""
    tests = [
        (_field_name(field), None if values is None else [_value(value) for value in values])
        for field, values in wanted.items()
    ]

    def matches(request: Request) -> bool:
        for field, values in tests:
            found = request.values_with_host(field)
            if values is None:
                if found:
                    return False
            elif not values:
                if not found:
                    return False
            elif not any(_fits(value, allowed(request)) for value in found for allowed in values):
                return False
        return True

    return matches


def _field_name(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape").lower()


def _fits(value: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    if pattern[:1] == "*" and pattern[-1:] == "*":
        return pattern[1:-1] in value
    if pattern[:1] == "*":
        return value.endswith(pattern[1:])
    if pattern[-1:] == "*":
        return value.startswith(pattern[:-1])
    return value == pattern


def protocol(name: str) -> Predicate:
    """``http``, ``https``, ``grpc``, or a version of HTTP such as ``http/2`` or ``http/1.1+``. Others never match."""
    if name in ("http", "https"):
        return lambda request: request.scheme == name
    if name == "grpc":
        return lambda request: next(iter(request.values(b"content-type")), "").startswith("application/grpc")
    wanted = _PROTOCOLS.get(name)
    if wanted is None:
        return lambda _: False
    major, minor, or_later = wanted

    def matches(request: Request) -> bool:
        found_major, _, found_minor = request.protocol.removeprefix("HTTP/").partition(".")
        if or_later:
            return (int(found_major), int(found_minor)) >= (major, minor)
        return int(found_major) == major and minor in (-1, int(found_minor))

    return matches


def variables(wanted: Mapping[str, list[str]]) -> Predicate:
    """One of the variables of *wanted*, or of the placeholders in braces, has one of its values."""
    if not wanted:
        return lambda _: True
    tests = [(variable(name), [_value(value) for value in values]) for name, values in wanted.items()]
    return lambda request: any(found(request) == allowed(request) for found, values in tests for allowed in values)


def variable(name: str) -> Value:
    """The value of a variable, or of a placeholder in braces; empty when there is none."""
    if name[:1] == "{" and name[-1:] == "}" and name.count("{") == 1:
        compiled = template.compile(name)
        return compiled.expand
    if name == "client_ip":
        return lambda request: request.client_ip
    return lambda request: request.variables.get(name, "")


def _value(text: str) -> Value:
    """*text* with its placeholders expanded for each request."""
    compiled = template.compile(text)
    if compiled.is_static:
        constant = compiled.constant
        return lambda _: constant
    return compiled.expand
