"""What holds for every test: nothing leaks, and in CI nothing is skipped."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from support.tenants import Public
    from xdist.scheduler import LoadScopeScheduling

# Behind an & of a shell without job control SIGINT is ignored, also by what tests start, and end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["support.leaks", "support.no_skips"]

# How fast examples are made, and tried, says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ONCE = (
    "adapt/*",
    "admin/test_fuzz.py",
    "admin/test_other_users.py",
    "admin/test_page.py",
    "benchmarks/*",
    "caddyfile/*",
    "config/*",
    "docs/*",
    "matchers/*",
    "placeholders/*",
    "project/*",
    "reload/test_crowd.py",
    "soak/*",
    "system/test_access_log.py",
    "system/test_bad_input.py",
    "system/test_drop_in.py",
    "system/test_health.py",
    "system/test_interpreters.py",
    "system/test_load_shapes.py",
    "system/test_logs.py",
    "system/test_logs_lost.py",
    "system/test_on_demand_tls.py",
    "system/test_popular_apps.py",
    "system/test_reload_with_caddy.py",
    "system/test_turns.py",
    "system/test_walled_apps.py",
    "system/test_with_caddy.py",
    "tenants/test_behind_caddy.py",
    "upgrade/test_under_load.py",
)
"""What does not depend on which Python it is run with, such as what reads files and judges by Caddy: asked on one of
them in CI. On each there are asyncio, processes, threads and descriptors, HTTP, and what runs in the app's process.
"""


TOGETHER = (
    "machine/",
    "matchers/test_against_caddy.py",
    "matchers/test_patterns_against_caddy.py",
    "matchers/test_router_against_caddy.py",
    "placeholders/test_against_caddy.py",
    "project/test_examples.py",
    "system/test_popular_apps.py",
    "system/test_turns.py",
)
"""What shares something costly to begin with: one process runs all of it, before it turns to anything else."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Each test by itself to whoever is free, but the above. xdist's own marks for that depend on pytest's insides."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return next((f"tests/{place}" for place in TOGETHER if nodeid.startswith(f"tests/{place}")), nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here) if item.path.is_relative_to(here) else item.path
        if any(fnmatch(str(path), pattern) for pattern in ONCE):
            item.add_marker(pytest.mark.once)


@pytest.fixture(params=["wsgi", "asgi"])
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """This process may have thousands of connections at once."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16_000, limits[1]), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(scope="module")
def public() -> Iterator[Public]:
    """A Python that every user may run."""
    from support.tenants import public_python

    with public_python() as found:
        yield found
