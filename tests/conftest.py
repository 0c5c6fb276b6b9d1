"""What holds for every test: nothing leaks, and in CI nothing is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["support.leaks", "support.no_skips"]

ONCE = (
    "*/test_*against_caddy.py",
    "admin/test_fuzz.py",
    "admin/test_page.py",
    "caddyfile/test_formatter.py",
    "config/test_stock.py",
    "docs/*",
    "project/*",
    "soak/*",
    "system/test_health.py",
    "system/test_interpreters.py",
    "system/test_load_shapes.py",
    "system/test_on_demand_tls.py",
    "system/test_reload_with_caddy.py",
    "system/test_with_caddy.py",
    "tenants/test_behind_caddy.py",
    "upgrade/test_under_load.py",
)
"""What takes long and does not depend on which Python it is run with: asked on one of them in CI."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here) if item.path.is_relative_to(here) else item.path
        if any(path.match(pattern) for pattern in ONCE):
            item.add_marker(pytest.mark.once)
