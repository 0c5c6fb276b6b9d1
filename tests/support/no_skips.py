"""With CADDYSNAKE_NO_SKIPS=1 in the environment a skipped test is a failed test.

A suite that skips what it cannot run stays green on a machine where half of it is missing. CI sets the variable;
on a developer's machine skipping is fine, and `-ra` lists what was skipped.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

VARIABLE = "CADDYSNAKE_NO_SKIPS"


def _forbid(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too, with `wasxfail` set: that is a result, not an omission.
    if os.environ.get(VARIABLE) != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid} must not be skipped here, because {VARIABLE}=1. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """For `pytest.skip(allow_module_level=True)` and `pytest.importorskip` at the top of a module."""
    report = yield
    _forbid(report)
    return report
