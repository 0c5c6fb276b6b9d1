"""What an error says of a path that the sandbox has kept from whoever it happened to. Pure.

Guest code: Python 3.10, standard library only.
"""

from __future__ import annotations

import re

_DENIED = re.compile(
    r"""PermissionError: \[Errno 13\] [^\n]*?: (?:b?'(?P<single>/[^'\n]*)'|b?"(?P<double>/[^"\n]*)")"""
    r"|(?<=: )(?P<library>/[^:\n]+): cannot open shared object file: Permission denied"
)


def denied_path(text: str) -> str:
    """The last path that ``text``, a traceback or what a program wrote, says was denied; empty when it names none."""
    found = ""
    for match in _DENIED.finditer(text):
        found = next(group for group in match.groups() if group is not None)
    return found


def hint(text: str) -> str:
    """What would let an app in a sandbox, which has failed with ``text``, have what it was denied; else empty."""
    path = denied_path(text)
    if not path:
        return ""
    return f"(outside of the sandbox: `read {path}` or `write {path}` in the block of sandbox would allow it)"
