"""Release commands: before the first worker of a build that somebody deploys, and who fails is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.admin import command
from support.daemon import PATIENCE_S, Process, daemon, eventually, get

APP = """
with open("order", "a") as file:
    file.write("worker\\n")

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"{answer}"]
"""
BLOCK = """
unix/{name}.sock {{
	python {{
		module_wsgi main:app
		working_dir {folder}
		workers 1
		{more}
	}}
}}
"""


def block(folder: Path, name: str, more: str, answer: str = "first") -> str:
    home = folder / name
    home.mkdir(exist_ok=True)
    (home / "main.py").write_text(APP.replace("{answer}", answer))
    return BLOCK.format(name=name, folder=home, more=more)


def ask(folder: Path, name: str) -> tuple[int, bytes]:
    return get("/", path=folder / f"{name}.sock")


def test_it_runs_before_the_first_worker_and_whoever_reloads_reads_along(tmp_path: Path) -> None:
    more = 'release sh -c `echo release >> order; echo "$MODE says hello"`\n\t\tenv_var MODE blog'
    with daemon(tmp_path, block(tmp_path, "blog", more)) as process:
        order = tmp_path / "blog" / "order"
        assert order.read_text().split() == ["release", "worker"]
        done = command(process, tmp_path, "reload", check=True)
        assert "main:app | blog says hello\n" in done.stderr
        assert order.read_text().split() == ["release", "worker", "release", "worker"]
        command(process, tmp_path, "reload", "--changed", check=True)
        assert order.read_text().count("release") == 2, "nothing of it has changed"
        command(process, tmp_path, "upgrade", check=True)
        assert order.read_text().count("release") == 2, "an upgrade is no deploy"


def test_what_fails_is_refused_with_what_it_said_and_what_ran_goes_on(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "blog", "")) as process:
        text = block(tmp_path, "blog", "release python -c `input('sure? ')`", "second")
        (tmp_path / "Caddyfile").write_text(text)
        done = command(process, tmp_path, "reload")
        assert done.returncode == 1
        assert "app main:app does not start (release-failed)" in done.stderr
        assert "EOFError" in done.stderr
        assert "Nothing is on its standard input" in done.stderr
        asks = block(tmp_path, "blog", "release sh -c `printf 'Continue? '; read answer || exit 3`", "second")
        (tmp_path / "Caddyfile").write_text(asks)
        done = command(process, tmp_path, "reload")
        assert "exit status 3\n  Continue?\n  (Nothing is on its standard input" in done.stderr
        silent = block(tmp_path, "blog", "release sh -c `read answer || exit 3`", "second")
        (tmp_path / "Caddyfile").write_text(silent)
        assert "exit status 3\n  (Nothing is on its standard input" in command(process, tmp_path, "reload").stderr
        (tmp_path / "Caddyfile").write_text(block(tmp_path, "blog", "release sh -c `echo no; exit 3`", "second"))
        assert "Nothing is on its" not in command(process, tmp_path, "reload").stderr
        late = block(tmp_path, "blog", "release sleep 1000 {\n timeout 200ms\n}", "second")
        (tmp_path / "Caddyfile").write_text(late)
        done = command(process, tmp_path, "reload")
        assert "release sleep 1000: not done within 0.2s" in done.stderr
        (tmp_path / "Caddyfile").write_text(block(tmp_path, "blog", "release no-such-tool", "second"))
        assert "no-such-tool: there is no such command for this user in" in command(process, tmp_path, "reload").stderr
        assert ask(tmp_path, "blog") == (200, b"first")
        (tmp_path / "Caddyfile").write_text(block(tmp_path, "blog", "release true", "second"))
        command(process, tmp_path, "reload", check=True)
        assert ask(tmp_path, "blog") == (200, b"second")


def test_at_a_start_it_keeps_back_its_own_app_alone_until_it_succeeds(tmp_path: Path) -> None:
    text = block(tmp_path, "blog", "release test -e ready") + block(tmp_path, "shop", "")
    with daemon(tmp_path, text) as process:
        assert ask(tmp_path, "shop") == (200, b"first")
        assert ask(tmp_path, "blog")[0] == 503
        assert command(process, tmp_path, "status").stdout.count("release test -e ready: exit status 1")
        (tmp_path / "blog" / "ready").touch()
        eventually(lambda: ask(tmp_path, "blog")[0] == 200, "the next attempt")


def reloading(process: Process, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "caddysnake", "reload"],
        cwd=folder,
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": process.runtime_dir},
    )


def test_ctrl_c_of_a_reload_ends_it_and_changes_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "blog", "")) as process:
        more = "release sh -c 'echo $$ > pid; exec sleep 1000'"
        (tmp_path / "Caddyfile").write_text(block(tmp_path, "blog", more, "second"))
        reload = reloading(process, tmp_path)
        noted = tmp_path / "blog" / "pid"
        eventually(lambda: noted.exists() and noted.read_text(), "the command")
        pid = int(noted.read_text())
        reload.send_signal(signal.SIGINT)
        _, told = reload.communicate(timeout=PATIENCE_S)
        assert reload.returncode == 1
        assert b"the reload was cancelled; the old code keeps serving" in told
        assert not Path(f"/proc/{pid}").exists()
        assert ask(tmp_path, "blog") == (200, b"first")


def test_a_reload_goes_on_when_whoever_asked_for_it_is_killed(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "blog", "")) as process:
        more = "release sh -c 'touch begun; while [ ! -e go ]; do echo again; sleep 0.05; done'"
        (tmp_path / "Caddyfile").write_text(block(tmp_path, "blog", more, "second"))
        home = tmp_path / "blog"
        reload = reloading(process, tmp_path)
        eventually((home / "begun").exists, "the command")
        reload.kill()
        reload.communicate()
        time.sleep(0.5)  # what the command writes meanwhile has nowhere to go
        (home / "go").touch()
        eventually(lambda: ask(tmp_path, "blog") == (200, b"second"), "the new build")
        assert "admin request failed" not in process.log


def test_an_app_with_placeholders_runs_it_once_before_its_first_worker(tmp_path: Path) -> None:
    for name in ("anna", "bert"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(APP.replace("{answer}", name))
    text = f"""
	http://*.test {{
		bind unix/all.sock
		python {{
			module_wsgi main:app
			working_dir {tmp_path}/{{http.request.host.labels.1}}
			release sh -c 'echo {{http.request.host.labels.1}} >> order'
		}}
	}}
	"""
    with daemon(tmp_path, text) as process:

        def order(name: str) -> list[str]:
            return (tmp_path / name / "order").read_text().split()

        for name in ("anna", "bert"):
            assert get("/", path=tmp_path / "all.sock", Host=f"{name}.test") == (200, name.encode())
            assert order(name) == [name, "worker"]
        command(process, tmp_path, "reload", check=True)
        eventually(lambda: order("anna") == ["anna", "worker", "anna", "worker"], "new workers")
        command(process, tmp_path, "reload", "--app", "anna main:app", check=True)
        assert order("anna")[4:] == ["anna", "worker"]


def test_an_upgrade_waits_for_a_release_that_runs_and_breaks_off_none(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "main.py").write_text(APP.replace("{answer}", "anna"))
    text = f"""
	http://*.test {{
		bind unix/all.sock
		python {{
			module_wsgi main:app
			working_dir {tmp_path}/{{http.request.host.labels.1}}
			release sh -c `echo begun >> order; while ! test -e go; do sleep 0.05; done; echo done >> order`
		}}
	}}
	"""
    order = tmp_path / "anna" / "order"
    with daemon(tmp_path, text) as process, ThreadPoolExecutor() as pool:
        asked = pool.submit(get, "/", path=tmp_path / "all.sock", Host="anna.test")
        eventually(order.exists, "the release")
        upgraded = pool.submit(command, process, tmp_path, "upgrade")
        process.wait_for_log('"msg":"upgrading"')
        time.sleep(0.5)
        assert not upgraded.done()
        (tmp_path / "anna" / "go").touch()
        assert asked.result() == (200, b"anna")
        assert upgraded.result().returncode == 0
        assert order.read_text().split() == ["begun", "done", "worker"]


def test_a_reload_for_which_an_upgrade_waits_runs_it_once_and_is_told_what_came_of_it(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "blog", "")) as process, ThreadPoolExecutor() as pool:
        order = tmp_path / "blog" / "order"
        more = "release sh -c `echo begun >> order; while ! test -e go; do sleep 0.05; done`"
        (tmp_path / "Caddyfile").write_text(block(tmp_path, "blog", more, "second"))
        reloaded = pool.submit(command, process, tmp_path, "reload")
        eventually(lambda: "begun" in order.read_text(), "the release")
        upgraded = pool.submit(command, process, tmp_path, "upgrade")
        process.wait_for_log('"msg":"upgrading"')
        (tmp_path / "blog" / "go").touch()
        assert (reloaded.result().returncode, upgraded.result().returncode) == (0, 0)
        assert ask(tmp_path, "blog") == (200, b"second")
        assert order.read_text().split() == ["worker", "begun", "worker"]


def test_a_reload_that_is_refused_after_an_upgrade_leaves_the_daemon_at_work(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "blog", "release test ! -e bad")) as process:
        command(process, tmp_path, "upgrade", check=True)
        (tmp_path / "blog" / "bad").touch()
        assert command(process, tmp_path, "reload").returncode == 1
        assert ask(tmp_path, "blog") == (200, b"first")
