"""`status --check`, and that a file with a fault hides no daemon, by real daemons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.admin import command
from support.daemon import Process, daemon, eventually, free_port

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
SITE = "unix/{name}.sock {{\n\tpython {{\n\t\tmodule_wsgi {name}:app\n\t\tworkers 1\n\t}}\n}}\n"
DEAR = {"http.client", "orjson", "pydantic", "ssl"}
"""What takes long to import."""


def check(process: Process, folder: Path, *words: str) -> tuple[int, str]:
    done = command(process, folder, "status", "--check", *words)
    return done.returncode, done.stdout + done.stderr


def test_it_tells_deploy_scripts_and_probes_what_is_served(tmp_path: Path) -> None:
    for name, text in (("good", APP), ("bad", "import nosuchmodule\n")):
        (tmp_path / f"{name}.py").write_text(text)
    with daemon(tmp_path, SITE.format(name="good") + SITE.format(name="bad")) as process:
        assert check(process, tmp_path) == (1, "not every app is served: bad:app (import-failed)\n")
        assert check(process, tmp_path, "good:app") == (0, "good:app is served\n")
        code, said = check(process, tmp_path, "bad:app")
        assert (code, said.partition(":app is not served: ")[0]) == (1, "bad")
        assert "import-failed" in said
        assert check(process, tmp_path, "--any") == (0, "something is served; not: bad:app (import-failed)\n")
        assert check(process, tmp_path, "worse:app")[0] == 1
        assert command(process, tmp_path, "status", "--any").returncode == 1
        assert command(process, tmp_path, "status", "--check", "--any", "good:app").returncode == 1
        (tmp_path / "bad.py").write_text(APP)
        eventually(lambda: check(process, tmp_path) == (0, "every app is served\n"), "the app that was corrected")
    assert command(process, tmp_path, "status", "--check", "--any").returncode == 1


def test_it_imports_little_so_that_a_quarter_of_a_core_does(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(APP)
    with daemon(tmp_path, SITE.format(name="good")) as process:
        script = (
            "import sys; from caddysnake.cli.main import main\n"
            "done = main(['status', '--check', '--any', '--config', 'Caddyfile'])\n"
            "print(done, *sorted(sys.modules))"
        )
        environ = {"XDG_RUNTIME_DIR": process.runtime_dir, "PATH": "/usr/bin"}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        )
        verdict, modules = done.stdout.splitlines()
        assert verdict == "every app is served"
        assert modules.startswith("0 ")
        assert DEAR & set(modules.split()) == set()


@pytest.mark.parametrize("admin", ["", "admin unix/{folder}/a.sock", "admin localhost:{port}"], ids=["", "unix", "tcp"])
def test_a_file_with_a_fault_hides_no_daemon_and_the_fault_is_told(tmp_path: Path, admin: str) -> None:
    (tmp_path / "good.py").write_text(APP)
    options = "{\n\t" + admin.format(folder=tmp_path, port=free_port()) + "\n}\n" if admin else ""
    text = options + SITE.format(name="good")
    with daemon(tmp_path, text) as process:
        file = tmp_path / "Caddyfile"
        without = "unix/b.sock {\n\tpython {\n\t\tmodule_wsgi\n\t}\n}\n"
        for broken in (text + without, text + "}\n", "{\n\tadmin nope:x\n"):
            file.write_text(broken)
            status = command(process, tmp_path, "status", check=True)
            assert "good:app" in status.stdout
            assert "neither a reload nor a start would take it" in status.stderr
            assert "Error: Caddyfile:" in status.stderr
            reload = command(process, tmp_path, "reload")
            assert reload.returncode == 1
            assert f"Error: {file}:" in reload.stderr
            assert check(process, tmp_path)[0] == 0
        stop = command(process, tmp_path, "stop", check=True)
        assert "Error: Caddyfile:" in stop.stderr
        assert process.wait() == 0
