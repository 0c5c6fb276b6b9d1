"""Takes out of a matcher set what no request can change, so that it means the same in another process.

``{env.STAGE}`` in a value is written out. As what a ``vars`` matcher looks at it becomes a variable of that name, which
whoever runs the matcher gives to its requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..placeholders import names, template, uris
from ..placeholders.names import Environ, PlaceholderError
from .table import MatcherError

_PASS_ON = "let Caddy pass it on: header_up X-Name {placeholder} in reverse_proxy, and match on header X-Name"


def settle(matchers: Mapping[str, Any], environ: Environ, variables: dict[str, str]) -> dict[str, Any]:
    """*matchers* without any placeholder but those of requests; *variables* gains the variables it needs. Raises
    ``MatcherError``: a placeholder is unknown or cannot be known here, or a variable is one of Caddy's.
    """
    try:
        return {kind: _settled(kind, holds, environ, variables) for kind, holds in matchers.items()}
    except PlaceholderError as exc:
        raise MatcherError(str(exc), exc.hint) from None


def _settled(kind: str, holds: Any, environ: Environ, variables: dict[str, str]) -> Any:
    match kind:
        case "path":
            # Caddy lowers the pattern before it expands it, and so even the names of placeholders in it.
            return [template.settle(uris.lower(pattern), environ) for pattern in holds or ()]
        case "host":
            return [template.settle(name, environ) for name in holds or ()]
        case "query":
            return {template.settle(name, environ): _words(values, environ) for name, values in holds.items()}
        case "header":
            return {field: None if values is None else _words(values, environ) for field, values in holds.items()}
        case "remote_ip" | "client_ip":
            return {**holds, "ranges": _words(holds.get("ranges", ()), environ)}
        case "vars":
            return {_variable(name, environ, variables): _words(values, environ) for name, values in holds.items()}
        case "vars_regexp":
            return {_variable(name, environ, variables): inner for name, inner in holds.items()}
        case "not":
            return [settle(inner, environ, variables) for inner in holds]
    return holds


def _words(words: list[str], environ: Environ) -> list[str]:
    return [template.settle(word, environ) for word in words]


def _variable(name: str, environ: Environ, variables: dict[str, str]) -> str:
    if not (name[:1] == "{" and name[-1:] == "}" and name.count("{") == 1):
        if name != "client_ip":
            raise MatcherError(f"the variable {name} is Caddy's own, which cannot be known here", _PASS_ON)
        return name
    source = names.look_up(name[1:-1])
    if source.of_place is None:
        return name
    variables[name[1:-1]] = source.of_place(environ)
    return name[1:-1]
