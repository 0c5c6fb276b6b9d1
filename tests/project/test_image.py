"""The container image installs what its own list says, and nothing else: the list must keep up with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
HOW = "renew docker/requirements.txt: its head says how"


def test_every_dependency_is_pinned_for_the_image_in_a_version_that_suits() -> None:
    lines = [line for line in (ROOT / "docker/requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in lines)
    pinned = dict(line.split("==") for line in lines)
    assert list(pinned) == sorted(pinned)
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        wanted = Requirement(text)
        assert wanted.name in pinned, f"{wanted.name}: {HOW}"
        assert wanted.specifier.contains(pinned[wanted.name]), f"{text} but {pinned[wanted.name]}: {HOW}"
