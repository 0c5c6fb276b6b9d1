"""The verbs that a newcomer types first."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
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


@needs_make
@pytest.mark.parametrize("on_terminal", [True, False])
def test_who_looks_on_sees_what_pip_does_and_a_log_has_the_outcome(tmp_path: Path, on_terminal: bool) -> None:
    ours, terminal = pty.openpty()
    try:
        command = ["make", "--no-print-directory", "--dry-run", "run", f"PYTHON={sys.executable}", f"VENV={tmp_path}/v"]
        run = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal if on_terminal else subprocess.DEVNULL,
            text=True, timeout=60, check=True,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(terminal)
    installing = [line for line in run.stdout.splitlines() if " pip " in line and " install " in line]
    assert installing
    assert {"--quiet" in line for line in installing} == {not on_terminal}


NAMES = [f"test_chance.py::test_chance[{number}]" for number in range(6)]


@pytest.mark.parametrize(
    ("known", "status"),
    [
        pytest.param([(1, name) for name in NAMES], 0, id="all are known"),
        pytest.param([(1, name) for name in NAMES[1:]], 1, id="one is not known"),
        pytest.param([(31, NAMES[0])], 1, id="known for too long"),
    ],
)
def test_what_is_asked_a_second_time_is_named(tmp_path: Path, known: list[tuple[int, str]], status: int) -> None:
    """`.ci/again` behind a run that has failed, of tests that pass alone."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    chance = '@__import__("pytest").mark.parametrize("number", range(6))\ndef test_chance(number): pass\n'
    (tmp_path / "test_chance.py").write_text(chance)
    cache = tmp_path / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(NAMES, True)))
    listed = tmp_path / "known"
    lines = [f"{date.today() - timedelta(days=days)} {name} it waits for a time\n" for days, name in known]
    listed.write_text("".join(lines))
    environ = {**os.environ, "CADDYSNAKE_KNOWN_FLAKY": str(listed)}
    command = [sys.executable, ROOT / ".ci" / "again"]
    again = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == status, again
    if (31, NAMES[0]) in known:
        assert "take the line away" in again.stderr
        return
    told = [line for line in again.stdout.splitlines() if "failed once and passed alone" in line]
    assert [name in line for name, line in zip(NAMES, told, strict=True)] == [True] * len(NAMES), told
