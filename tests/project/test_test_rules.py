"""The rules that hold for every test are themselves tested, by running pytest on a small file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent


def run_pytest(folder: Path, source: str, *, no_skips: bool) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(source)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "CADDYSNAKE"))}
    environ["PYTHONPATH"] = str(TESTS)
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none of them has a part in this, and some take seconds to import
    if no_skips:
        environ["CADDYSNAKE_NO_SKIPS"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "support.no_skips", "-p", "support.leaks"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(folder), "-c", "/dev/null"]
    command += ["--basetemp", str(folder / "own"), str(folder)]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


SKIPPING = {
    "in_the_test": "import pytest\ndef test_a(): pytest.skip('no such thing')",
    "by_a_mark": "import pytest\n@pytest.mark.skip('no such thing')\ndef test_a(): pass",
    "by_the_module": "import pytest\npytest.skip('no such thing', allow_module_level=True)",
}


@pytest.mark.parametrize("source", SKIPPING.values(), ids=SKIPPING)
def test_a_skipped_test_fails_where_skipping_is_forbidden(tmp_path: Path, source: str) -> None:
    forbidden = run_pytest(tmp_path, source, no_skips=True)
    assert forbidden.returncode != 0
    assert "must not be skipped" in forbidden.stdout
    assert "no such thing" in forbidden.stdout


def test_a_skipped_test_is_only_reported_elsewhere(tmp_path: Path) -> None:
    assert run_pytest(tmp_path, SKIPPING["by_a_mark"], no_skips=False).returncode == 0


def test_an_expected_failure_is_not_a_skipped_test(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.xfail\ndef test_a(): assert False"
    assert run_pytest(tmp_path, source, no_skips=True).returncode == 0


LEAKING = {
    "a_child_process": (
        "import subprocess\nkept = []\ndef test_a(): kept.append(subprocess.Popen(['sleep', '600']))",
        "sleep 600",
    ),
    "a_child_nobody_waited_for": (
        "import os\ndef test_a():\n    if os.fork() == 0: os._exit(0)",
        "nobody waited for it",
    ),
    "a_socket": ("import socket\nkept = []\ndef test_a(): kept.extend(socket.socketpair())", "socket:["),
    "a_temporary_file": ("import tempfile\ndef test_a(): tempfile.mkdtemp(prefix='forgotten-')", "/forgotten-"),
    "shared_memory": ("import os\ndef test_a(): os.memfd_create('page')", "/memfd:page"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
@pytest.mark.parametrize(("source", "named"), LEAKING.values(), ids=LEAKING)
def test_a_test_that_leaves_something_behind_fails_and_names_it(tmp_path: Path, source: str, named: str) -> None:
    run = run_pytest(tmp_path, source, no_skips=False)
    assert run.returncode != 0
    assert "This test left behind" in run.stdout
    assert named in run.stdout


def test_what_a_wider_fixture_holds_is_not_a_leak_of_the_test(tmp_path: Path) -> None:
    source = """
import socket, pytest
@pytest.fixture(scope="module")
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b
def test_a(pair): pair[0].send(b"x")
def test_b(pair): assert pair[1].recv(1) == b"x"
"""
    run = run_pytest(tmp_path, source, no_skips=False)
    assert run.returncode == 0, run.stdout
