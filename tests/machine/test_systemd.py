"""A Debian with systemd, booted for real; what is checked in it is in checks.py, and each check is a test here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support import machine

CHECKS = Path(__file__).with_name("checks.py")
NAMES = re.findall(r"^def (check_\w+)", CHECKS.read_text(), re.MULTILINE)

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    machine.require()
    root = machine.debian()
    shared = tmp_path_factory.mktemp("machine")
    machine.wheel(shared)
    shutil.copy(CHECKS, shared)
    (shared / "run").write_text("exec python3 /check/checks.py\n")
    with machine.booted(root, shared) as log:
        found = shared / "outcome.json"
        return (json.loads(found.read_text()) if found.exists() else {}), log


@pytest.mark.parametrize("name", NAMES)
def test_under_systemd(outcome: tuple[dict[str, str], str], name: str) -> None:
    checks, log = outcome
    assert name in checks, log
    assert not checks[name], checks[name]
