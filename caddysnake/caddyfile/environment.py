"""``{$NAME}`` and ``{$NAME:default}``: environment variables spliced into the text before it is lexed."""

from __future__ import annotations

import re
from collections.abc import Mapping

# The name may hold anything but a closing brace; an empty pair stays as it is.
_VARIABLE = re.compile(r"\{\$([^}]+)\}")


def substitute(source: str, environ: Mapping[str, str]) -> str:
    """*source* with every variable replaced, once: what a value brings in is not looked at again.

    The default counts only when the variable is unset. A variable that is unset and has no default leaves nothing.
    """

    def value_of(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":")
        return environ.get(name, default)

    return _VARIABLE.sub(value_of, source)
