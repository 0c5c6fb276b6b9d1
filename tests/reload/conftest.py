"""What is reloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.load import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app in its first version."""
    (tmp_path / "main.py").write_text(app("1"))
    return tmp_path
