"""What a Caddy has against its part of a file, told of the file that somebody wrote. Pure.

Caddy has only seen the file that was made for it. Its last words name a line of that one, and lines that nobody has
touched stand in both.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from pathlib import Path

from ....caddyfile.errors import is_unwritten
from ...system.log.records import printable
from ..document import CaddyPart

_PREFIXES = re.compile(
    r"(Error: |adapting config using caddyfile: |loading (initial|new) config: |sending configuration to instance: "
    r"|caddy responded with error: HTTP \d+: )+"
)
_TAKEN = re.compile(r"listening on \S*:(?P<port>\d+)[:,].*address already in use")
_FORBIDDEN = re.compile(r"listening on \S*:(?P<port>\d+)[:,].*permission denied")
_REFUSED = "caddy refuses its part of the file"


def last_words(said: str) -> str:
    """The last line of Caddy's log, without what is around its message."""
    words = said.strip().rpartition("\n")[2]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        words = str(json.loads(words)["msg"])
    return printable(words.strip())


def complaint_of(said: str, part: CaddyPart, file: Path) -> str:
    """What Caddy ``said`` last of ``part``, which it read as ``file``: one line, and that line of our file, if any."""
    words = _PREFIXES.sub("", last_words(said), count=1)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        words = str(json.loads(words)["error"])  # `caddy reload` shows what its server has answered
        words = _PREFIXES.sub("", words, count=1)
    if why := of_port(words):
        return why
    here = re.escape(str(file))
    place = re.compile(rf"(?:, at )?(?:{here}|\b{re.escape(file.name)}):(\d+)(?:: |(?=,|\s|\Z))")
    found = place.search(words)  # of what is nested, the innermost stands first
    words = place.sub("", words).replace(str(file), "the file made for it") or "it does not say why"
    if found is None:
        return f"{_place(part, 0)}{_REFUSED}: {words}"
    return _at_line(int(found[1]), words, part)


def of_port(words: str) -> str:
    """Why Caddy cannot listen, in one line, if that is what its ``words`` say; else nothing."""
    if (found := _TAKEN.search(words)) is not None:
        port = found["port"]
        return (
            f"caddy cannot listen on port {port}, address already in use: end what listens there "
            f"(`ss -ltnp sport = :{port}` names it), or give the site another port"
        )
    if (found := _FORBIDDEN.search(words)) is not None:
        return (
            f"caddy cannot listen on port {found['port']}, permission denied: ports below 1024 need root or "
            "CAP_NET_BIND_SERVICE; or give the site a port from 1024 on, such as http://localhost:8080"
        )
    return ""


def _at_line(number: int, words: str, part: CaddyPart) -> str:
    lines = part.text.splitlines()
    if not 0 < number <= len(lines):
        return f"{_place(part, 0)}{_REFUSED}: {words}"
    line = printable(lines[number - 1].strip())
    written = written_at(number, lines, part.source.content.decode("utf-8", "replace").splitlines())
    if written is None or not _place(part, written):
        return f"{_place(part, 0)}{_REFUSED}: {words}\nthat line: {line}"
    return f"{_place(part, written)}{_REFUSED}: {words}\n{written:5} | {line}"


def _place(part: CaddyPart, line: int) -> str:
    file = part.source.file
    if is_unwritten(file):
        return ""
    return f"{file}:{line}: " if line else f"{file}: "


def written_at(number: int, made: list[str], written: list[str]) -> int | None:
    """Which line of ``written`` is line ``number`` of ``made``, a text that was made of it; None: of none alone."""
    ours, theirs = [line.strip() for line in written], [line.strip() for line in made]
    for block in difflib.SequenceMatcher(None, theirs, ours).get_matching_blocks():
        if block.a <= number - 1 < block.a + block.size:
            return block.b + number - block.a
    alike = [place for place, line in enumerate(ours, 1) if line == theirs[number - 1]]
    return alike[0] if len(alike) == 1 else None  # it has been moved, or is of a snippet
