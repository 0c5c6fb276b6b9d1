"""A Caddy's program: where it is, what it knows, and whether it would run a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ....config.plan.environment import without_service_manager
from ...system.log.records import printable
from ..document import CaddyPart

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


def refusal(binary: str, text: str) -> str | None:
    """Why the Caddy at ``binary`` would not run ``text``; None when it would. Raises ``OSError``,
    ``subprocess.SubprocessError``.
    """
    with tempfile.TemporaryDirectory(prefix="caddysnake-validate-") as folder:
        file = Path(folder) / "Caddyfile"
        file.write_text(text)
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
    return complaint_of(done.stderr.decode(errors="replace"), CaddyPart(text), file)


def complaint_of(said: str, part: CaddyPart, file: Path) -> str:
    """Caddy's last words, and the line that it means: nobody but Caddy has seen that file."""
    words = said.strip().rpartition("\n")[2]
    with contextlib.suppress(ValueError):
        words = json.loads(words)["msg"]
    words = printable(words.removeprefix("Error: ").strip()) or "it does not say why"
    found = re.search(rf"{re.escape(file.name)}:(\d+)", words)
    words = words.replace(str(file), "the file made for it")
    lines = part.text.splitlines()
    if found is not None and 0 < int(found[1]) <= len(lines):
        words += f"\nthat line: {printable(lines[int(found[1]) - 1].strip())}"
    return words
