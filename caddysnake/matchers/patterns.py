"""Regular expressions, and what they capture: RE2's, as Caddy's are, and found by RE2 itself (google-re2).

Requests are written by strangers, so nothing here may take longer than a text's length warrants. Python's ``re`` would;
RE2 takes linear time, and a text may only be so long. The library is imported where a file has a pattern, and asked for
only there: docs/decisions/018-regular-expressions.md says why.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from ..placeholders.request import Request, RoutingLimit
from .table import MatcherError

TEXT_MAX: Final = 16 * 1024
"""Characters that a pattern may be looked for in."""

_SEARCH_UNITS = 10
_SCAN_SHIFT = 5
"""What a search costs, in the units of ``Request.spend``: so much, a unit for each 32 characters, and where there is a
match one for each character, since its groups are found by going through the text again.
"""

_NAME = re.compile(r"[0-9A-Za-z_]{1,64}")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_SINGLE_BYTE = re.compile(r"(?:[^\\]|\\.)*?\\C", re.DOTALL)


class Regexp:
    """A compiled pattern that leaves its captures with the request. ``pattern``: in RE2's syntax. ``name``: what the
    captures go by beside their number: ``{http.regexp.<name>.1}``. May be empty. Raises ``MatcherError``: the pattern
    or the name is malformed, or there is no RE2.
    """

    def __init__(self, pattern: str, name: str = "") -> None:
        if name and not _NAME.fullmatch(name):
            raise MatcherError(f"{name!r} cannot be the name of a regular expression", "use letters, digits and _")
        self._pattern = Pattern(pattern)
        starts = ("http.regexp.", f"http.regexp.{name}.") if name else ("http.regexp.",)
        suffixes = [(str(index), index) for index in range(len(self._pattern.groups) + 1)]
        suffixes += [(group, index) for index, group in enumerate(self._pattern.groups, 1) if group]
        self.captures = tuple((start + suffix, index) for start in starts for suffix, index in suffixes)
        """The names of the placeholders it sets, with the numbers of the groups."""

    def matches(self, text: str, request: Request) -> bool:
        """Whether the pattern is found anywhere in *text*. Raises ``RoutingLimit`` for a text that is too long."""
        if len(text) > TEXT_MAX:
            raise RoutingLimit(f"a regular expression is to look at {len(text)} characters; {TEXT_MAX} are the most")
        request.spend(_SEARCH_UNITS + (len(text) >> _SCAN_SHIFT))
        found = self._pattern.search(text)
        if found is None:
            return False
        request.spend(len(text))
        for name, index in self.captures:
            request.captures[name] = found[index]
        return True


class Pattern:
    """A pattern alone. Raises ``MatcherError`` for one that is none, or where there is no RE2."""

    def __init__(self, pattern: str) -> None:
        self._compiled: Any = _compiled(pattern)
        names = {index: name for name, index in self._compiled.groupindex.items()}
        self.groups = [names.get(index, "") for index in range(1, self._compiled.groups + 1)]
        """The names of the groups, empty where one has none."""

    def search(self, text: str) -> list[str] | None:
        """What the leftmost match and its groups took; empty for a group that took no part. ``None``: no match."""
        # Go sees U+FFFD for each byte that is not UTF-8; what is captured is what was sent.
        match = self._compiled.search(text if text.isascii() else _NOT_UTF8.sub("\ufffd", text))
        if match is None:
            return None
        spans = map(match.span, range(len(self.groups) + 1))
        return [text[start:end] if start >= 0 else "" for start, end in spans]


def _compiled(pattern: str) -> Any:
    try:
        import re2
    except ImportError:
        raise MatcherError(
            "a regular expression needs RE2, which is not installed here",
            f"for the Python that runs caddysnake, {sys.executable}: pip install 'caddysnake-sidecar[regexp]'",
        ) from None
    if _SINGLE_BYTE.match(pattern):
        raise MatcherError(f"in the regular expression {pattern!r}: invalid escape sequence: \\C")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else "malformed"
        if isinstance(reason, bytes):
            reason = reason.decode("utf-8", "replace")
        raise MatcherError(f"in the regular expression {pattern!r}: {reason}", _hint(pattern)) from None


def _hint(pattern: str) -> str | None:
    if re.search(r"\(\?<?[=!]", pattern):
        return "look-around is not part of RE2's syntax: match what is there, and use not for the rest"
    return None
