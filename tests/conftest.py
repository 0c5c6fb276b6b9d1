"""What holds for every test: nothing leaks, and in CI nothing is skipped."""

from __future__ import annotations

pytest_plugins = ["support.leaks", "support.no_skips"]
