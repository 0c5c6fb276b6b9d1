"""What the live page and its API have to tell of."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.load import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app, and a tenant."""
    (tmp_path / "ann.test").mkdir()
    for place in (tmp_path, tmp_path / "ann.test"):
        (place / "main.py").write_text(app("1"))
    return tmp_path
