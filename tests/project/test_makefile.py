"""The verbs that a newcomer types first."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = ROOT / "Makefile"

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "-f", str(MAKEFILE), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@needs_make
def test_make_alone_lists_every_verb() -> None:
    verbs = re.search(r"^\.PHONY: help (.*)$", MAKEFILE.read_text(), re.MULTILINE)
    assert verbs is not None
    listed = re.findall(r"^make (\S+)", make(folder=ROOT).stdout, re.MULTILINE)
    assert listed == verbs[1].split()


@needs_make
def test_a_python_that_will_not_do_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "caddysnake").mkdir()
    for name in ("pyproject.toml", "caddysnake/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    run = make("run", "PYTHON=no-such-python", folder=tmp_path)
    assert run.returncode != 0
    assert "There is no Python 3.11 or later" in run.stderr
    assert "no-such-python" in run.stderr
    assert "make PYTHON=" in run.stderr
    assert not (tmp_path / ".venv").exists()
