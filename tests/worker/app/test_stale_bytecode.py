"""Code that is saved twice within a second is the second, whatever the cache of bytecode thinks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

IMPORT = """
import sys
sys.dont_write_bytecode = False
from caddysnake.worker.app.loader import distrust_fresh_sources
distrust_fresh_sources()
distrust_fresh_sources()
sys.path.insert(0, sys.argv[1])
import subject
print(subject.VERSION)
"""


def imported(folder: Path, version: str, modified: float) -> str:
    """What a new process gets of a module that says ``version``, saved at ``modified``."""
    (folder / "subject.py").write_text(f"VERSION = {version!r}\n")
    os.utime(folder / "subject.py", (modified, modified))
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(folder)], capture_output=True, text=True, check=True, env=environ
    )
    return done.stdout.strip()


def test_a_second_save_in_the_same_second_is_seen(tmp_path: Path) -> None:
    moment = time.time() + 3600  # younger than any process can be slow
    assert imported(tmp_path, "v1", moment) == "v1"
    assert imported(tmp_path, "v2", moment) == "v2"


def test_bytecode_of_what_has_settled_is_kept(tmp_path: Path) -> None:
    assert imported(tmp_path, "v1", time.time() - 3600) == "v1"
    assert list((tmp_path / "__pycache__").glob("subject.*.pyc"))
