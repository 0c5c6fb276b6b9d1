"""Alert rules: each leads to its section of the runbook, and does what its test says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_each_rule_has_its_section_in_the_runbook() -> None:
    rules = (DOCS / "monitoring" / "alerts.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) > 9
    assert re.findall(r'runbook_url: "docs/runbook\.md#(\w+)"', rules) == [alert.lower() for alert in alerts]
    assert re.findall(r"^## (\w+)$", (DOCS / "runbook.md").read_text(), re.MULTILINE) == alerts


def test_the_rules_fire_when_their_test_says_so() -> None:
    tested = set(re.findall(r"alertname: (\w+)", (DOCS / "monitoring" / "alerts_test.yml").read_text()))
    assert {"CaddysnakeDeadlines", "CaddysnakeErrors", "CaddysnakeMemory", "CaddysnakeRefusals"} <= tested
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("apt-get install prometheus")
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        subprocess.run([promtool, *command], cwd=DOCS / "monitoring", check=True)
