"""Path patterns.

A pattern is looked for in the decoded path, in lower case, with ``.``, ``..`` and doubled slashes resolved. One that
holds ``//`` switches the merging of slashes off; one that holds ``%`` is compared with the path as it was escaped. An
asterisk at one end or both stands for anything; anywhere else the pattern is a glob in which none crosses a slash.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..placeholders import template, uris
from ..placeholders.request import Request

Predicate = Callable[[Request], bool]


def path(patterns: list[str]) -> Predicate:
    """One of *patterns* is the path's."""
    if "*" in patterns:
        return lambda _: True
    tests = [_pattern(pattern.lower() if pattern.isascii() else uris.lower(pattern)) for pattern in patterns]
    if len(tests) == 1:
        return tests[0]
    return lambda request: any(test(request) for test in tests)


def _pattern(text: str) -> Predicate:
    compiled = template.compile(text)
    if compiled.is_static:
        return _plain(compiled.constant)
    # What a request puts into a pattern is not in lower case, and its asterisks are as good as ours.
    return lambda request: _plain(compiled.expand(request))(request)


def _plain(pattern: str) -> Predicate:
    """A pattern without placeholders."""
    if pattern == "*":
        return lambda _: True
    merge = "//" not in pattern
    if "%" in pattern:
        return lambda request: _matches_escaped(uris.clean(request.escaped_path, merge_slashes=merge), pattern)
    test = _text_test(pattern)
    if merge:
        return lambda request: test(request.clean_lower_path)
    return lambda request: test(uris.clean(request.lower_path, merge_slashes=False))


def _text_test(pattern: str) -> Callable[[str], bool]:
    stars = pattern.count("*")
    if stars == 2 and pattern[0] == pattern[-1] == "*":
        middle = pattern[1:-1]
        return lambda path: middle in path
    if stars == 1 and pattern[0] == "*":
        suffix = pattern[1:]
        return lambda path: path.endswith(suffix)
    if stars == 1 and pattern[-1] == "*":
        prefix = pattern[:-1]
        return lambda path: path.startswith(prefix)
    if not stars and not any(char in pattern for char in "?[\\"):
        return lambda path: path == pattern
    return glob(pattern)


def glob(pattern: str) -> Callable[[str], bool]:
    """A test for whole texts, as Go's path.Match: ``*``, ``?`` and classes such as ``[a-z]``, none of which takes a
    slash; a backslash takes away a character's meaning. A malformed pattern matches nothing."""
    try:
        return _glob_expression(pattern)
    except _Malformed:
        return lambda _: False


class _Malformed(Exception):
    pass


def _glob_expression(pattern: str) -> Callable[[str], bool]:
    """Each ``*`` takes as little as it can and never thinks again but for the last, so this takes linear time."""
    chunks = [""]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            chunks.append("")
        elif char == "?":
            chunks[-1] += "[^/]"
        elif char == "[":
            holds, at = _class(pattern, at)
            chunks[-1] += holds
        elif char == "\\":
            if at == len(pattern):
                raise _Malformed
            chunks[-1] += re.escape(pattern[at])
            at += 1
        else:
            chunks[-1] += re.escape(char)
    if len(chunks) == 1:
        whole = chunks[0]
    else:
        middle = "".join(f"(?>[^/]*?{chunk})" for chunk in chunks[1:-1] if chunk)
        whole = f"{chunks[0]}{middle}[^/]*?{chunks[-1]}"
    expression = re.compile(whole, re.DOTALL)
    return lambda text: expression.fullmatch(text) is not None


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class that begins at *at*, behind its bracket, as an expression, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if pattern[at : at + 1] == "]" and ranges:
            break
        low, at = _class_char(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_char(pattern, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")  # holds nothing, and is none the less there
    body = "".join(ranges)
    if not body:
        return ("." if negated else "(?!)"), at + 1
    # Unlike an asterisk, a class takes a slash that is in it.
    return f"[{'^' if negated else ''}{body}]", at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise _Malformed
    if pattern[at] == "\\":
        at += 1
        if at >= len(pattern):
            raise _Malformed
    if at + 1 >= len(pattern):  # the closing bracket is still to come
        raise _Malformed
    return pattern[at], at + 1


def _matches_escaped(path: str, pattern: str) -> bool:
    """Compare the escaped *path* with a *pattern* that holds a ``%``, without case.

    Both are walked side by side, byte by byte. What the pattern escapes is taken from the path as it is escaped there;
    ``%*`` takes a span as it is; all else is decoded. What comes together so is then compared as a glob.
    """
    found: list[bytes] = []
    given = path.lower().encode("ascii")
    wanted = pattern.encode("utf-8", "surrogateescape")
    at_pattern = at_path = 0
    while at_pattern < len(wanted) and at_path < len(given):
        char, escape = given[at_path : at_path + 1], b""
        if char == b"%" and at_path + 3 <= len(given):
            char = escape = given[at_path : at_path + 3]
            at_path += 2
        kind = wanted[at_pattern : at_pattern + 1]
        is_raw_star = kind == b"%" and wanted[at_pattern + 1 : at_pattern + 2] in (b"*", b"")
        if kind == b"%" and not is_raw_star and at_pattern + 3 <= len(wanted):
            found.append(escape)
            at_path += 1
            at_pattern += 3
            continue
        if kind in (b"%", b"*"):
            if kind == b"%":
                at_pattern += 1
            end = len(given)
            if at_pattern < len(wanted) - 1:
                end = given.find(wanted[at_pattern + 1 : at_pattern + 2], at_path)
                if end < 0:
                    return False
            if end > at_path:
                span = given[at_path:end]
                found.append(span if kind == b"%" else uris.unescape(span))
                at_path = end
        else:
            found.append(uris.unescape(char))
            at_path += 1
        at_pattern += 1
    if at_path < len(given):
        return False
    return glob(pattern.replace("%*", "*"))(uris.lower(uris.text(b"".join(found))))
