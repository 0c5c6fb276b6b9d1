"""In which order directives are carried out: the table, the ``order`` option, and the sorting within one directive."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from .dispenser import Dispenser
from .errors import nearest
from .parser import Segment

_ORDER = """
    tracing map vars fs root log_append skip_log log_skip log_name header copy_response_headers request_body timeouts
    redir method rewrite uri try_files basicauth basic_auth forward_auth request_header encode push intercept templates
    invoke handle handle_path python route abort error copy_response respond metrics reverse_proxy php_fastcgi
    file_server acme_server
"""
DIRECTIVE_ORDER = tuple(_ORDER.split())
"""Of Caddy 2.11, with "python" where the Go plugin registers it. Old names stand beside their new ones."""

SITE_DIRECTIVES = frozenset(("bind", "handle_errors", "log", "tls"))
"""Directives that are no handlers: they stand at the top of a site only and have no order."""

KNOWN_DIRECTIVES = frozenset(DIRECTIVE_ORDER) | SITE_DIRECTIVES

EXCLUSIVE = frozenset(("handle", "rewrite", "root"))
"""Of several of these in one block only the first that matches is carried out."""

_T = TypeVar("_T")


def directive_order(options: Iterable[Segment]) -> tuple[str, ...]:
    """The order after every ``order`` among the global *options*. Raises ``CaddyfileError``: an ``order`` is malformed
    or names an unknown directive.
    """
    order = list(DIRECTIVE_ORDER)
    for option in options:
        if option.name == "order":
            order = _reordered(order, option.dispenser())
    return tuple(order)


def _reordered(order: Sequence[str], line: Dispenser) -> list[str]:
    """``order NAME first|last`` or ``order NAME before|after OTHER``."""
    syntax = "order DIRECTIVE first|last, or order DIRECTIVE before|after OTHER"
    line.next()
    words = line.remaining_arg_tokens()
    if words and words[0].text not in KNOWN_DIRECTIVES:
        unknown = words[0].text
        raise words[0].error(f'"{unknown}" is not a directive', nearest(unknown, KNOWN_DIRECTIVES))
    if len(words) < 2:
        raise line.arg_error(syntax)
    name, position, *others = (word.text for word in words)
    if position not in ("first", "last", "before", "after"):
        raise words[1].error(f'"{position}" is not a position', syntax)
    if len(others) != (position in ("before", "after")):
        raise line.arg_error(syntax)
    rest = [directive for directive in order if directive != name]
    if others and others[0] not in rest:
        raise words[2].error(f'the directive "{others[0]}" has no place in the order', nearest(others[0], rest))
    index = rest.index(others[0]) + (position == "after") if others else 0 if position == "first" else len(rest)
    return [*rest[:index], name, *rest[index:]]


def sort_routes(
    routes: Sequence[_T], order: Sequence[str], describe: Callable[[_T], tuple[str, Mapping[str, Any] | None]]
) -> list[_T]:
    """*routes* in the order in which they are tried. *describe* gives a route's directive and matcher set. Directives
    go by *order*; within one, a single path before a less specific one, any matcher before none. That is not transitive
    (a path and another matcher keep the order of the text), so the algorithm matters: Caddy's.
    """
    place = {directive: index for index, directive in enumerate(order)}
    place["handle_path"] = place["handle"]

    def goes_before(first: _T, second: _T) -> bool:
        (directive, matcher), (other_directive, other_matcher) = describe(first), describe(second)
        here, there = place[directive], place[other_directive]
        if here != there:
            return here < there
        specific = _more_specific(matcher, other_matcher)
        # The last one that matches wins there, so the least specific goes first.
        return not specific if directive == "vars" else specific

    result = list(routes)
    _stable_sort(result, goes_before)
    return result


def _more_specific(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    path, other = _single_path(first), _single_path(second)
    if not path or not other:
        return first is not None and second is None
    stem, other_stem = path.removesuffix(b"*"), other.removesuffix(b"*")
    if stem == other_stem:
        return len(path) < len(other)
    if len(stem) == len(other_stem):
        return stem < other_stem
    return len(stem) > len(other_stem)


def _single_path(matcher: Mapping[str, Any] | None) -> bytes:
    """The path of a set that has exactly one, in the bytes that are counted and compared."""
    paths: Sequence[str] = (matcher or {}).get("path") or []
    return paths[0].encode() if len(paths) == 1 else b""


_RUN = 20


def _stable_sort(items: list[_T], before: Callable[[_T, _T], bool]) -> None:
    """Sort in place: insertion sort on runs of 20, then SymMerge (Kim and Kutzner, 2004) of neighbours, as Go does."""
    size = len(items)
    for start in range(0, size, _RUN):
        _insertion_sort(items, start, min(start + _RUN, size), before)
    run = _RUN
    while run < size:
        for start in range(0, size - run, 2 * run):
            _merge(items, start, start + run, min(start + 2 * run, size), before)
        run *= 2


def _insertion_sort(items: list[_T], start: int, end: int, before: Callable[[_T, _T], bool]) -> None:
    for index in range(start + 1, end):
        while index > start and before(items[index], items[index - 1]):
            items[index], items[index - 1] = items[index - 1], items[index]
            index -= 1  # noqa: PLW2901


def _merge(items: list[_T], start: int, middle: int, end: int, before: Callable[[_T, _T], bool]) -> None:
    """Merge the sorted ``[start:middle]`` and ``[middle:end]``."""
    if middle - start == 1:
        target = _first(middle, end, lambda index: not before(items[index], items[start]))
        items.insert(target - 1, items.pop(start))
        return
    if end - middle == 1:
        target = _first(start, middle, lambda index: before(items[middle], items[index]))
        items.insert(target, items.pop(middle))
        return
    half = (start + end) // 2
    total = half + middle
    low, high = (total - end, half) if middle > half else (start, middle)
    split = _first(low, high, lambda index: before(items[total - 1 - index], items[index]))
    other = total - split
    if split < middle < other:
        items[split:other] = items[middle:other] + items[split:middle]
    if start < split < half:
        _merge(items, start, split, half, before)
    if half < other < end:
        _merge(items, half, other, end, before)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first index in ``[low:high]`` that *holds*, by bisection; *high* when none does."""
    return low + bisect_left(range(low, high), True, key=holds)
