"""Where caddysnake itself is installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The package's folder. Its parent is what a child's ``PYTHONPATH`` must hold to import ``caddysnake``."""
