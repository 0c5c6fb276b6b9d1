"""Matcher sets in the form of Caddy's JSON, compiled to predicates.

A set is a mapping from the kind of a matcher to what it holds; all of its matchers must match. Matching leaves the
captures of regular expressions with the request, whatever else in the set does not match.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..placeholders import template
from ..placeholders.names import PlaceholderError
from ..placeholders.request import Request
from . import fields, paths, places
from .patterns import Regexp
from .table import MatcherError

Predicate = Callable[[Request], bool]
MatcherSet = Mapping[str, Any]


def compile_set(matchers: MatcherSet | None) -> Predicate | None:
    """The predicate of one set; ``None`` when it matches every request. Raises ``MatcherError``: a matcher is unknown,
    cannot be decided here, or holds what cannot be meant.
    """
    found = [_compile(kind, holds) for kind, holds in (matchers or {}).items()]
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    return lambda request: all(matches(request) for matches in found)


def plain_host(name: str) -> str | None:
    """*name*, of a host matcher, as requests have it: in lower case and ASCII; ``None`` when requests decide it."""
    compiled = template.compile(places.to_ascii(name))
    return compiled.constant.lower() if compiled.is_static else None


def captures(matchers: MatcherSet | None) -> set[str]:
    """The placeholders that a set may set, from ``http.regexp.`` on. Raises ``MatcherError``: malformed."""
    found: set[str] = set()
    for kind, holds in (matchers or {}).items():
        if kind == "path_regexp":
            found.update(name for name, _ in _regexp(holds).captures)
        elif kind in ("header_regexp", "vars_regexp"):
            found.update(name for inner in holds.values() for name, _ in _regexp(inner).captures)
    return found


def _compile(kind: str, holds: Any) -> Predicate:
    compile_kind = _KINDS.get(kind)
    if compile_kind is None:
        if kind in _REFUSED:
            raise MatcherError(f"the matcher {kind} is not supported here: {_REFUSED[kind]}", _INSTEAD)
        close = difflib.get_close_matches(kind, [*_KINDS, *_REFUSED], n=1)
        raise MatcherError(f'unknown matcher "{kind}"', f'did you mean "{close[0]}"?' if close else None)
    try:
        return compile_kind(holds)
    except (PlaceholderError, MatcherError) as exc:
        raise MatcherError(f"in the matcher {kind}: {exc}", exc.hint) from None


def _regexp(holds: Mapping[str, str]) -> Regexp:
    return Regexp(holds.get("pattern", ""), holds.get("name", ""))


def _path_regexp(holds: Mapping[str, str]) -> Predicate:
    regexp = _regexp(holds)
    return lambda request: regexp.matches(request.clean_path, request)


def _header_regexp(holds: Mapping[str, Mapping[str, str]]) -> Predicate:
    tests = [(field.encode().lower(), _regexp(inner)) for field, inner in holds.items()]

    def matches(request: Request) -> bool:
        return all(
            any(regexp.matches(value, request) for value in request.values_with_host(field)) for field, regexp in tests
        )

    return matches


def _vars_regexp(holds: Mapping[str, Mapping[str, str]]) -> Predicate:
    tests = [(fields.variable(name), _regexp(inner)) for name, inner in holds.items()]
    return lambda request: any(regexp.matches(value(request), request) for value, regexp in tests)


def _not(sets: Sequence[MatcherSet]) -> Predicate:
    found = [compile_set(matchers) or (lambda _: True) for matchers in sets]
    return lambda request: not any(matches(request) for matches in found)


def _words(compile_kind: Callable[[list[str]], Predicate]) -> Callable[[list[str] | None], Predicate]:
    """For a kind that holds words; none at all match nothing."""
    return lambda words: compile_kind(words or [])


def _ranges(compile_kind: Callable[[list[str]], Predicate]) -> Callable[[Mapping[str, list[str]]], Predicate]:
    return lambda holds: compile_kind(holds.get("ranges", []))


def _tls(holds: Mapping[str, Any] | None) -> Predicate:
    if holds:
        raise MatcherError("only Caddy sees the TLS handshake", _INSTEAD)
    return fields.protocol("https")


_KINDS: Final[dict[str, Callable[[Any], Predicate]]] = {
    "client_ip": _ranges(places.client_ip),
    "header": fields.header,
    "header_regexp": _header_regexp,
    "host": _words(places.host),
    "method": _words(fields.method),
    "not": _not,
    "path": _words(paths.path),
    "path_regexp": _path_regexp,
    "protocol": fields.protocol,
    "query": fields.query,
    "remote_ip": _ranges(places.remote_ip),
    "tls": _tls,
    "vars": fields.variables,
    "vars_regexp": _vars_regexp,
}

_INSTEAD: Final = "let Caddy match: give each python block its own socket, and route to it in Caddy's file"
_REFUSED: Final[dict[str, str]] = {
    "expression": "expressions (CEL) are evaluated by Caddy only",
    "file": "it looks at Caddy's file system",
    "url_pattern": "URL patterns are evaluated by Caddy only",
}
"""Matchers of Caddy's that are not decided here; with the reason."""
