"""The last quarter of an hour, over what changes meanwhile."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.admin import call, command
from support.daemon import Process, daemon, eventually, get
from support.load import app

pytestmark = pytest.mark.system

SITE = "unix/x.sock {\n\tpython {\n\t\tmodule_wsgi main:wsgi\n\t\tworkers 1\n\t}\n}\n"


def history(process: Process) -> Any:
    return call(process, "GET", "/history").json


def is_marked(process: Process, what: str) -> bool:
    return any(each["what"] == what for each in history(process)["marks"])


def test_it_goes_on_over_an_upgrade_and_counts_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    with daemon(tmp_path, SITE) as process:
        process.wait_for_log("admin API ready")
        eventually(lambda: history(process)["at"], "a sample")
        for _ in range(100):
            get("/", path=tmp_path / "x.sock")
        assert call(process, "POST", "/apps/main:wsgi/reload").status == 200
        eventually(lambda: history(process)["marks"], "a mark")
        before = history(process)
        assert command(process, tmp_path, "upgrade").returncode == 0
        process.wait_for_log("admin API ready", 2)
        eventually(lambda: len(history(process)["at"]) > len(before["at"]), "another sample")
        after = history(process)
        assert after["at"][: len(before["at"])] == before["at"]
        assert after["marks"] == before["marks"]
        at, rates = after["at"], after["series"]["main:wsgi"]["requests_per_s"]
        answered = [rate * (now - then) for rate, now, then in zip(rates[1:], at[1:], at, strict=False)]
        assert sum(answered) == pytest.approx(100, abs=5)


def test_what_became_of_new_code_of_a_tenant_is_marked(tmp_path: Path) -> None:
    (tmp_path / "ann.test").mkdir()
    source = tmp_path / "ann.test" / "main.py"
    source.write_text(app("1"))
    with daemon(tmp_path, SITE.replace("workers 1", "working_dir {host}")) as process:
        process.wait_for_log("admin API ready")
        assert get("/", path=tmp_path / "x.sock", Host="ann.test")[0] == 200
        eventually(lambda: len(history(process)["at"]) > 0, "a sample")
        for code, what in ((app("2"), "build"), ("nonsense", "refused")):
            source.write_text(code)
            command(process, tmp_path, "reload")
            eventually(partial(is_marked, process, what), "a mark")
        assert [(each["app"], each["what"]) for each in history(process)["marks"]] == [
            ("main:wsgi", "build"),
            ("main:wsgi", "refused"),
        ]
