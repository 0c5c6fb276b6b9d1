"""What an error says of what the sandbox has kept from whoever it happened to, and which line would let him have it."""

from __future__ import annotations

import os
import re

_DENIED = re.compile(
    r"""PermissionError: \[Errno 13\] [^\n[]*?: (?:b?'(?P<single>/[^'\n]*)'|b?"(?P<double>/[^"\n]*)")"""
    r"|(?<=: )(?P<library>/[^:\n]+): cannot open shared object file: Permission denied"
)
_NAMELESS = r"\([^\n]*\n(?:[ ^~]+\n)?PermissionError: \[Errno 13\] Permission denied[ \n]*\Z"
"""The last line of a traceback: what was called is in the line before."""
_OTHERS = (
    (re.compile(r"\[Errno 13\] Connect call failed \('[^']*', (\d+)"), "connect {}"),
    (re.compile(r"port (\d+) failed: Permission denied"), "connect {}"),
    (re.compile(r"connecting to \S+?:(\d+)\. Permission denied"), "connect {}"),
    (re.compile(r"\[Errno 13\][^\n]* attempting to bind on address \('[^']*', ([1-9]\d*)"), "listen {}"),
    (re.compile(r"\.connect(?:_ex)?" + _NAMELESS), "connect PORT"),
    (re.compile(r"\.(?:bind|listen)" + _NAMELESS), "listen PORT"),
    (re.compile(r"OSError: \[Errno 97\] Address family not supported"), "unix any"),
)
_LAST = 4096
"""The end of a text, where they are looked for: a text that an app makes up for it costs milliseconds, not seconds."""

_NO_WORD = re.compile(r"""["`\\{}]""")


def word(path: str) -> str:
    """``path`` as a Caddyfile has it; in the place of one that is better not written anywhere, the folder it is in."""
    while not path.isprintable() or _NO_WORD.search(path):
        path = os.path.dirname(path)
    return f'"{path}"' if " " in path or "#" in path else path


def denied_path(text: str) -> str:
    """The last path that ``text``, a traceback or what a program wrote, says was denied; empty when it names none."""
    found = ""
    for match in _DENIED.finditer(text):
        found = next(group for group in match.groups() if group is not None)
    return found


def hint(text: str) -> str:
    """What would let an app in a sandbox, which has failed with ``text``, have what it was denied; else empty."""
    if "symlink" in text.rpartition("PermissionError")[0].rpartition("  File ")[2]:
        return "(in a sandbox links can be made in TMPDIR only)"
    path = denied_path(text)
    if path:
        lines = [f"read {word(path)}", f"write {word(path)}"]
        lines = lines if os.path.lexists(path) else [f"write {word(os.path.dirname(path))}"]
    else:
        last = text[-_LAST:]
        lines = [line.format(*found.groups()) for each, line in _OTHERS if (found := each.search(last))][:1]
    named = " or ".join(f"`{line}`" for line in lines)
    return f"(outside of the sandbox: {named} in the block of sandbox would allow it)" if lines else ""
