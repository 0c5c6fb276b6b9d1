"""A Caddy's program: where it is, what it knows, and whether it would run a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ....config.plan.environment import without_service_manager
from ..document import CaddyPart
from .complaint import complaint_of

ASKING_S = 60.0
_KNOWING_S = 10.0
_GOGC = "400"
"""Unless our environment says otherwise. A proxy's heap is small and short-lived: with Go's own 100 a tenth of Caddy's
time goes with collecting it."""


def find_caddy(environ: Mapping[str, str]) -> str | None:
    """The path of a Caddy: the one on PATH, else the one that the ``caddy`` extra installed beside this Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("caddy", path=environ.get("PATH")) or shutil.which("caddy", path=beside)


def knows_full_duplex(binary: str) -> bool:
    """Whether this Caddy has the server option ``enable_full_duplex`` (2.7 and later); False if it does not say."""
    option = b"{\n\tservers {\n\t\tenable_full_duplex\n\t}\n}\n"
    words = [binary, "adapt", "--adapter", "caddyfile", "--config", "/dev/stdin"]
    try:
        done = subprocess.run(
            words, input=option, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_KNOWING_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def environment() -> dict[str, str]:
    """Return the environment of each Caddy that we run."""
    # What a service manager is told is the daemon's business.
    return {"GOGC": _GOGC} | without_service_manager(os.environ)


def refusal(binary: str, part: CaddyPart) -> str | None:
    """Why ``binary`` would not run ``part``; None: it would. Raises ``OSError``, ``subprocess.SubprocessError``."""
    with tempfile.TemporaryDirectory(prefix="caddysnake-validate-") as folder:
        file = Path(folder) / "Caddyfile"
        file.write_text(part.text)
        done = subprocess.run(
            [binary, "validate", "--config", str(file), "--adapter", "caddyfile"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=ASKING_S,
            check=False,
        )
    if not done.returncode:
        return None
    return complaint_of(done.stderr.decode(errors="replace"), part, file)
