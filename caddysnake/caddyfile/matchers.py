"""Request matchers, from their words to the form that Caddy's JSON has.

A *matcher set* is a mapping from the kind of matcher to what it holds, all of which must match:
``{"path": ["/a*"], "method": ["GET"]}``. Only the form is checked here; what a matcher does is known elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .dispenser import Dispenser
from .errors import nearest
from .parser import Segment
from .tokens import HEREDOC, Token

MatcherSet = dict[str, Any]

PRIVATE_RANGES = ("192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8", "127.0.0.1/8", "fd00::/8", "::1")
"""What ``private_ranges`` stands for."""

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def matcher_of(token: Token, definitions: Mapping[str, MatcherSet]) -> tuple[bool, MatcherSet | None]:
    """Whether *token*, a directive's first argument, is a matcher, and which; ``None`` matches every request. Raises
    ``CaddyfileError``: ``@name`` is not defined.
    """
    text = token.text
    if text == "*":
        return True, None
    if text.startswith("/"):
        return True, {"path": [text]}
    if text.startswith("@"):
        if text not in definitions:
            hint = nearest(text, definitions) or f"define it with a line {text} in this block or around it"
            raise token.error(f"unknown matcher name: {text}", hint)
        return True, definitions[text]
    return False, None


def define(segment: Segment, definitions: dict[str, MatcherSet]) -> None:
    """Add the named matcher that *segment* defines to *definitions*. Raises ``CaddyfileError``: the name is taken, or
    what follows it is malformed.
    """
    name, line = segment.name, segment.dispenser()
    line.next()
    if name in definitions:
        raise line.error(f"the matcher {name} is defined twice", "use another name; an inner block sees the outer ones")
    definitions[name] = {}  # a name alone matches every request
    arguments = segment.arguments()
    if arguments and arguments[0].quote:
        definitions[name] = {"expression": _named({"expr": arguments[0].text}, name[1:])}
    else:
        definitions[name] = _matcher_set(line, name[1:])


def _matcher_set(line: Dispenser, name: str, *, negated: bool = False) -> MatcherSet:
    """The set whose matchers follow, on this line or in its block; segments of one kind add up."""
    tokens_of_kind: dict[str, list[Token]] = {}
    nesting = line.nesting()
    while line.next_arg() or line.next_block(nesting):
        if negated and line.token().quote:
            # A quoted word is an expression whose kind was left out.
            tokens_of_kind.setdefault("expression", []).extend([line.token()._replace(text="expression"), line.token()])
            continue
        tokens_of_kind.setdefault(line.val(), []).extend(line.next_segment())
    matchers: MatcherSet = {}
    for kind, tokens in tokens_of_kind.items():
        read = _KINDS.get(kind)
        if read is None:
            hint = nearest(kind, _KINDS) or "the kinds are " + ", ".join(_KINDS)
            raise tokens[0].error(f'unknown matcher "{kind}"', hint)
        matchers[kind] = read(Dispenser(tokens), name)
    return matchers


def _no_block(line: Dispenser) -> None:
    kind = line.val()
    if line.next_block(line.nesting()):
        raise line.error(f"a matcher of this kind takes no block, after {kind}")


def _each(line: Dispenser) -> Iterator[list[str]]:
    """The words of each segment of a kind, none of which opens a block."""
    while line.next():
        yield line.remaining_args()
        _no_block(line)


def _named(holds: dict[str, Any], name: str) -> dict[str, Any]:
    """*holds* with a name, if there is one: the captures of a regular expression go by it."""
    return {"name": name, **holds} if name else holds


def _words(line: Dispenser, _name: str) -> list[str] | None:
    return [word for words in _each(line) for word in words] or None


def _path_regexp(line: Dispenser, name: str) -> dict[str, Any]:
    pattern = ""
    own_name = ""
    for words in _each(line):
        if pattern:
            raise line.error("a regular expression can be used only once per named matcher")
        match words:
            case [pattern]:
                pass
            case [own_name, pattern]:
                pass
            case _:
                raise line.arg_error("path_regexp [NAME] PATTERN")
    return _named({"pattern": pattern}, own_name or name)


def _regexp_of_field(syntax: str) -> Callable[[Dispenser, str], dict[str, Any]]:
    def read(line: Dispenser, name: str) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for words in _each(line):
            match words:
                case [field, pattern]:
                    own_name = name
                case [own_name, field, pattern]:
                    pass
                case _:
                    raise line.arg_error(syntax)
            if field in fields:
                raise line.error(f"a second regular expression for the same field: {field}")
            fields[field] = _named({"pattern": pattern}, own_name or name)
        return fields

    return read


def _query(line: Dispenser, _name: str) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    while line.next():
        while line.next_arg():
            if not line.val():
                continue  # an empty word stands for "no query"
            name, equals, value = line.val().partition("=")
            if not equals:
                hint = f"{name}=* asks only whether it is there"
                raise line.error(f'a query matcher needs name=value, got "{line.val()}"', hint)
            values.setdefault(name, []).append(value)
        _no_block(line)
    return values


def _header(line: Dispenser, _name: str) -> dict[str, list[str] | None]:
    fields: dict[str, list[str] | None] = {}
    while line.next():
        if not line.next_arg():
            raise line.error("a header matcher needs a field", "header FIELD VALUE, or header !FIELD")
        field = line.val()
        if field.startswith("!"):
            if field == "!":
                raise line.error("a header matcher needs a field after the !", "header !FIELD")
            if line.next_arg():
                raise line.error("a header matcher for an absent field takes no value", f"header {field}")
            fields[field[1:]] = None
        else:
            if not line.next_arg():
                raise line.error("a header matcher needs a value", f"header {field} * asks only whether it is there")
            field = _canonical(field)
            fields[field] = [*(fields.get(field) or []), line.val()]
        _no_block(line)
    return fields


def _canonical(field: str) -> str:
    """A field's name as Go writes it: a capital at the start and after each hyphen, if it is a name at all."""
    if not _FIELD_NAME.fullmatch(field):
        return field
    return "-".join(part[:1].upper() + part[1:].lower() for part in field.split("-"))


def _single(line: Dispenser, what: str, hint: str | None = None) -> str:
    """The one word of a segment; of several segments the last one's."""
    word = ""
    for words in _each(line):
        if len(words) != 1:
            raise line.error(f"expected exactly one {what}", hint)
        word = words[0]
    return word


def _ip_ranges(line: Dispenser, _name: str) -> dict[str, list[str]]:
    ranges: list[str] = []
    while line.next():
        kind = line.val()
        for value in line.remaining_args():
            if value == "forwarded" and kind == "remote_ip":
                raise line.error('"forwarded" is no longer an option of remote_ip', "use the matcher client_ip")
            ranges += PRIVATE_RANGES if value == "private_ranges" else (value,)
        _no_block(line)
    return {"ranges": ranges} if ranges else {}


def _not(line: Dispenser, _name: str) -> list[MatcherSet]:
    sets: list[MatcherSet] = []
    while line.next():
        # The name is not passed on: captures within a "not" would never be set.
        sets.append(_matcher_set(line, "", negated=True))
    return sets


def _expression(line: Dispenser, name: str) -> str | dict[str, Any]:
    line.next()
    words = line.remaining_arg_tokens()
    if not words:
        raise line.arg_error("expression EXPRESSION, best in backticks")
    if len(words) > 1:
        # Quotes within are part of the expression.
        return " ".join(_raw(word) for word in words)
    expression = words[0].text
    return {"expr": expression, "name": name} if name else expression


def _raw(word: Token) -> str:
    return word.text if word.quote in ("", HEREDOC) else f"{word.quote}{word.text}{word.quote}"


def _vars(line: Dispenser, _name: str) -> dict[str, list[str]]:
    variables: dict[str, list[str]] = {}
    for words in _each(line):
        match words:
            case [variable, value, *more]:
                variables.setdefault(variable, []).extend([value, *more])
            case _:
                raise line.error("a vars matcher needs a name and at least one value", "vars NAME VALUE…")
    return variables


def _file(line: Dispenser, _name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while line.next():
        if values := line.remaining_args():
            found.setdefault("try_files", []).extend(values)
        nesting = line.nesting()
        while line.next_block(nesting):
            option = line.val()
            if option not in ("root", "try_files", "try_policy", "split_path"):
                hint = "root, try_files, try_policy or split_path"
                raise line.error(f'unknown option "{option}" of the file matcher', hint)
            if not line.next_arg():
                raise line.arg_error()
            if option in ("root", "try_policy"):
                found[option] = line.val()
            else:
                words = [line.val(), *line.remaining_args()]
                found[option] = (found.get(option, []) if option == "try_files" else []) + words
    return found


def _tls(line: Dispenser, _name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while line.next():
        if line.next_arg():
            if line.val() != "early_data":
                raise line.error(f'unknown option "{line.val()}" of the tls matcher', "early_data is the only one")
            found["handshake_complete"] = False
        if line.next_arg():
            raise line.arg_error()
        _no_block(line)
    return found


# Each reads all segments of its kind; the second argument is the name its captures go by, if any.
_KINDS: dict[str, Callable[[Dispenser, str], Any]] = {
    "client_ip": _ip_ranges,
    "expression": _expression,
    "file": _file,
    "header": _header,
    "header_regexp": _regexp_of_field("header_regexp [NAME] FIELD PATTERN"),
    "host": _words,
    "method": _words,
    "not": _not,
    "path": _words,
    "path_regexp": _path_regexp,
    "protocol": lambda line, _name: _single(line, "protocol", "protocol https, http, grpc, http/2, http/2+ …"),
    "query": _query,
    "remote_ip": _ip_ranges,
    "tls": _tls,
    "url_pattern": lambda line, _name: {"pattern": _single(line, "URL pattern")},
    "vars": _vars,
    "vars_regexp": _regexp_of_field("vars_regexp [NAME] VARIABLE PATTERN"),
}
