"""One app that does not come up when the daemon starts takes no other down, and comes up by itself once mended."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import PATIENCE_S, Process, UnixHTTPConnection, as_text, daemon, eventually, free_port, get
from support.house import run, until
from support.manager import Manager
from support.serving import composition, serving

from caddysnake.daemon.supervisor.supervisor import Supervisor
from caddysnake.daemon.system.timings import Timings

GOOD = "def wsgi(environ, start):\n    start('200 OK', [('Content-Length', '2')])\n    return [b'ok']\n"
LIFESPAN = "async def asgi(scope, receive, send):\n    raise RuntimeError('no database')\n"
SOUND_ASGI = """
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            what = (await receive())["type"]
            await send({"type": what + ".complete"})
            if what == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


class Broken:
    """A kind of app that cannot start: its lines, how it is made, and mended, in its folder; the code it is told by."""

    def __init__(
        self,
        lines: str,
        code: str,
        source: str = GOOD,
        mend: Callable[[Path], object] | None = None,
        kind: str = "wsgi",
    ) -> None:
        self.lines = lines
        self.code = code
        self.source = source
        self.mend = mend or (lambda folder: (folder / "main.py").write_text(GOOD))
        self.kind = kind


def make_venv(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)


KINDS = {
    "imports": Broken("", "import-failed", "import nosuchmodule\n"),
    "threads": Broken("workers_runtime thread", "import-failed", "import nosuchmodule\n"),
    "venv": Broken("venv {folder}/venv", "setup-failed", mend=make_venv),
    "env": Broken("env_file .env", "setup-failed", mend=lambda folder: (folder / ".env").write_text("A=1\n")),
    "hangs": Broken("start_timeout 1s", "start-timeout", "import time\ntime.sleep(1000)\n"),
    "lifespan": Broken("lifespan on", "lifespan-failed", LIFESPAN, kind="asgi",
                       mend=lambda folder: (folder / "main.py").write_text(SOUND_ASGI)),
    "folder": Broken("", "setup-failed", "",
                     mend=lambda folder: (folder.mkdir(), (folder / "main.py").write_text(GOOD))),
    "user": Broken("user nosuchuser", "setup-failed"),
}  # fmt: skip


def settle(folder: Path) -> None:
    """The folders of all kinds, and of a good app."""
    for name, kind in KINDS.items():
        if kind.source:
            (folder / name).mkdir()
            (folder / name / "main.py").write_text(kind.source)
    (folder / "good").mkdir()
    (folder / "good" / "main.py").write_text(GOOD)


def block(folder: Path, name: str, lines: str = "", kind: str = "wsgi") -> str:
    more = lines.replace("{folder}", str(folder / name))
    own = f"module_{kind} main:{kind}\n\t\tworking_dir {folder}/{name}\n\t\tworkers 1\n\t\t{more}"
    return f"\tpython {{\n\t\t{own}\n\t}}\n"


def direct(folder: Path, *names: str, options: str = "") -> str:
    found = [f"{{\n\tgrace_period 2s\n{options}}}\n"]
    for name in names:
        kind = KINDS.get(name, Broken("", ""))
        found.append(f"unix/{folder}/{name}.sock {{\n{block(folder, name, kind.lines, kind.kind)}}}\n")
    return "".join(found)


def relayed(folder: Path, *names: str) -> str:
    found = [f"{{\n\tgrace_period 2s\n\tdefault_bind unix/{folder}/all.sock\n}}\n"]
    for name in names:
        kind = KINDS.get(name, Broken("", ""))
        found.append(f"http://{name}.test {{\n{block(folder, name, kind.lines, kind.kind)}}}\n")
    return "".join(found)


def ask(folder: Path, name: str, via: str = "direct") -> tuple[int, str]:
    """The status, and the code that is ours."""
    connection = UnixHTTPConnection(folder / (f"{name}.sock" if via == "direct" else "all.sock"))
    try:
        connection.request("GET", "/", headers={"Host": f"{name}.test"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("caddysnake-code", "")
    finally:
        connection.close()


def becomes(folder: Path, name: str, wanted: int, via: str = "direct") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := ask(folder, name, via))[0] != wanted:
        assert time.monotonic() < deadline, f"{name}: {found}"
        time.sleep(0.1)


def command(process: Process, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {"XDG_RUNTIME_DIR": process.runtime_dir, "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    line = [sys.executable, "-m", "caddysnake", *words, "--config", str(folder / "Caddyfile")]
    return subprocess.run(line, check=False, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)


def health(folder: Path) -> tuple[int, dict[str, Any]]:
    connection = UnixHTTPConnection(folder / "admin.sock")
    try:
        connection.request("GET", "/health/ready", headers={"Host": "localhost"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("via", ["direct", "relay"])
def test_whatever_keeps_an_app_from_starting_the_others_serve_and_it_comes_up_when_mended(
    tmp_path: Path, via: str
) -> None:
    settle(tmp_path)
    text = (direct if via == "direct" else relayed)(tmp_path, "good", *KINDS)
    with daemon(tmp_path, text, "--admin", f"unix/{tmp_path}/admin.sock") as process:
        assert re.search(r"1 app ready in .* Not up, and tried again: .*folder/main:wsgi \(setup-failed\)", process.log)
        assert ask(tmp_path, "good", via) == (200, "")
        assert {name: ask(tmp_path, name, via) for name in KINDS} == {n: (503, kind.code) for n, kind in KINDS.items()}
        process.wait_for_log("admin API ready")
        status, found = health(tmp_path)
        assert (status, found["status"], found["ready"]) == (200, "degraded", True)
        assert found["failed"].keys() == {f"{name}/main:{kind.kind}" if kind.kind == "wsgi" else "main:asgi"
                                          for name, kind in KINDS.items()}  # fmt: skip
        for name, kind in KINDS.items():
            if name != "user":
                kind.mend(tmp_path / name)
        for name in KINDS:
            if name != "user":
                becomes(tmp_path, name, 200, via)
        assert ask(tmp_path, "user", via) == (503, "setup-failed")
        assert process.stop() == 0


@pytest.mark.parametrize("name", ["imports", "hangs", "folder"])
def test_when_none_comes_up_the_start_has_failed(tmp_path: Path, name: str) -> None:
    settle(tmp_path)
    (tmp_path / "Caddyfile").write_text(direct(tmp_path, name, "lifespan"))
    process = Process([sys.executable, "-m", "caddysnake", "run"], tmp_path, "daemon")
    try:
        assert process.wait() == 1
        assert not (tmp_path / f"{name}.sock").exists()
        log = as_text(process.log)
        assert re.search(r"^Error: .* does not (start|exist)", log, re.MULTILINE)
        told = re.findall(r"^(?:Error: )?app (?!still).*does not start.*", log, re.MULTILINE)
        assert len(told) == 2, "each once"
        assert told[-1].startswith("Error: ")
    finally:
        process.close()


def test_with_start_policy_all_one_app_fails_the_start(tmp_path: Path) -> None:
    settle(tmp_path)
    for name in ("imports", "env"):
        (tmp_path / "Caddyfile").write_text(direct(tmp_path, "good", name, options="\tstart_policy all\n"))
        process = Process([sys.executable, "-m", "caddysnake", "run"], tmp_path, "daemon")
        try:
            assert process.wait() == 1
        finally:
            process.close()


def test_a_reload_tries_what_had_failed_at_the_start_and_changes_all_or_nothing(tmp_path: Path) -> None:
    settle(tmp_path)
    with daemon(tmp_path, direct(tmp_path, "good", "imports")) as process:
        refused = command(process, tmp_path, "reload")
        assert refused.returncode == 1
        assert "nosuchmodule" in refused.stderr
        assert ask(tmp_path, "good") == (200, "")
        assert ask(tmp_path, "imports") == (503, "import-failed")
        KINDS["imports"].mend(tmp_path / "imports")
        assert command(process, tmp_path, "reload").returncode == 0
        assert ask(tmp_path, "imports") == (200, "")


def test_one_app_can_be_reloaded_by_name_before_its_next_attempt(tmp_path: Path) -> None:
    settle(tmp_path)
    with daemon(tmp_path, direct(tmp_path, "good", "env")) as process:
        assert command(process, tmp_path, "reload", "--app", "env/main:wsgi").returncode == 1
        assert ask(tmp_path, "env") == (503, "setup-failed")
        KINDS["env"].mend(tmp_path / "env")
        done = command(process, tmp_path, "reload", "--app", "env/main:wsgi")
        assert done.returncode == 0, done.stderr
        assert ask(tmp_path, "env") == (200, "")


def test_an_upgrade_in_place_goes_on_trying(tmp_path: Path) -> None:
    settle(tmp_path)
    with daemon(tmp_path, direct(tmp_path, "good", "imports", "folder")) as process:
        upgraded = command(process, tmp_path, "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr + process.log
        assert ask(tmp_path, "good") == (200, "")
        assert ask(tmp_path, "imports") == (503, "import-failed")
        assert ask(tmp_path, "folder") == (503, "setup-failed")
        for name in ("imports", "folder"):
            KINDS[name].mend(tmp_path / name)
            becomes(tmp_path, name, 200)


def test_a_template_whose_user_is_gone_harms_nobody_either(tmp_path: Path) -> None:
    settle(tmp_path)
    text = relayed(tmp_path, "good") + (
        f"http://*.tenants.test {{\n\tpython {{\n\t\tmodule_wsgi main:wsgi\n\t\tuser nosuchuser\n"
        f"\t\tworking_dir {tmp_path}/{{http.request.host.labels.2}}\n\t}}\n}}\n"
    )
    with daemon(tmp_path, text, "--admin", f"unix/{tmp_path}/admin.sock") as process:
        assert ask(tmp_path, "good", "relay") == (200, "")
        assert ask(tmp_path, "good.tenants", "relay") == (503, "setup-failed")
        process.wait_for_log("admin API ready")
        assert "setup-failed" in health(tmp_path)[1]["failed"].values()


def test_a_service_manager_is_told_ready_and_who_is_not(tmp_path: Path) -> None:
    settle(tmp_path)
    (tmp_path / "Caddyfile").write_text(direct(tmp_path, "good", "imports"))
    with Manager(tmp_path) as manager:
        process = manager.start()
        try:
            manager.wait_for("READY=1")
            (status,) = [line for line in manager.said if line.startswith("STATUS=") and "not up" in line][:1]
            assert "not up: imports/main:wsgi (import-failed)" in status
            assert ask(tmp_path, "good") == (200, "")
        finally:
            process.close()


def test_an_app_that_takes_its_time_keeps_no_other_waiting(tmp_path: Path) -> None:
    settle(tmp_path)
    (tmp_path / "hangs" / "main.py").write_text(
        "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.05)\n" + GOOD
    )
    text = direct(tmp_path, "good", "hangs").replace("start_timeout 1s", "start_timeout 60s")

    async def work() -> None:
        async with serving(composition(tmp_path, text), Timings(decided_s=5.0)) as runs:
            assert runs.running.undecided == ["hangs/main:wsgi"]
            await until(lambda: runs.serves_any, "the good one")
            assert (await asyncio.to_thread(get, "/", path=tmp_path / "good.sock"))[0] == 200
            waiting = asyncio.create_task(asyncio.to_thread(get, "/", path=tmp_path / "hangs.sock"))
            (tmp_path / "hangs" / "go").touch()
            assert (await waiting)[0] == 200
            await until(lambda: not runs.running.undecided)

    run(work())


def test_the_start_has_failed_also_when_that_shows_late(tmp_path: Path) -> None:
    settle(tmp_path)
    text = direct(tmp_path, "imports", "hangs")

    async def work() -> None:
        runs = Supervisor(composition(tmp_path, text), timings=Timings(decided_s=0.2))
        await runs.start()
        try:
            assert not runs.serves_any
            async with asyncio.timeout(PATIENCE_S):
                failure = await runs.running.beginnings.none_comes_up()
            assert "hangs" in failure.app  # what the other failed of has been logged
        finally:
            await runs.abandon()

    run(work())


def test_a_change_of_its_code_has_an_app_tried_at_once(tmp_path: Path) -> None:
    settle(tmp_path)
    text = direct(tmp_path, "good", "imports", "hangs").replace("start_timeout 1s", "start_timeout 60s")
    text = text.replace("\t\tworkers 1\n", "\t\tworkers 1\n\t\tautoreload\n")
    (tmp_path / "hangs" / "main.py").write_text(GOOD)
    with daemon(tmp_path, text):
        time.sleep(0.5)
        KINDS["imports"].mend(tmp_path / "imports")
        becomes(tmp_path, "imports", 200)


def test_a_change_of_code_that_hangs_as_it_starts_is_tried_at_once_too(tmp_path: Path) -> None:
    settle(tmp_path)
    text = direct(tmp_path, "good", "hangs").replace("start_timeout 1s", "start_timeout 600s")
    text = text.replace("\t\tworkers 1\n", "\t\tworkers 1\n\t\tautoreload\n")
    (tmp_path / "hangs" / "main.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(1000)\n")

    async def work() -> None:
        async with serving(composition(tmp_path, text), Timings(decided_s=0.3)) as runs:
            assert "hangs/main:wsgi" in runs.running.undecided
            await until((tmp_path / "hangs" / "begun").exists, "its import")
            KINDS["hangs"].mend(tmp_path / "hangs")
            assert (await asyncio.to_thread(get, "/", path=tmp_path / "hangs.sock"))[0] == 200
            await until(lambda: runs.running.undecided == [], "the good one")
            assert runs.failed() == {}

    run(work())


def test_a_change_of_code_in_the_moment_in_which_an_app_comes_up_leaves_it_up(tmp_path: Path) -> None:
    settle(tmp_path)
    waits = "import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n"
    (tmp_path / "good" / "main.py").write_text(waits + GOOD)

    async def work() -> None:
        async with serving(composition(tmp_path, direct(tmp_path, "good")), Timings(decided_s=0.0)) as runs:
            (app,) = runs.running.apps.values()
            (tmp_path / "good" / "go").touch()
            while not app.pool.ready:  # noqa: ASYNC110  # each turn of the loop is looked at
                await asyncio.sleep(0)
            assert app.hurry is not None, "what waits for it has not had its turn"
            app.hurry()
            assert (await asyncio.to_thread(get, "/", path=tmp_path / "good.sock"))[0] == 200
            await until(lambda: app.hurry is None)
            assert (await asyncio.to_thread(get, "/", path=tmp_path / "good.sock"))[0] == 200

    run(work())


def test_serve_with_autoreload_waits_for_the_mend(tmp_path: Path) -> None:
    find_caddy("current")
    port = free_port()
    (tmp_path / "main.py").write_text("import nosuchmodule\n")
    words = ["serve", "--autoreload", "--wsgi", "--workers", "1", "--listen", f"127.0.0.1:{port}", "main:wsgi"]
    process = Process([sys.executable, "-m", "caddysnake", *words], tmp_path, "serve")
    try:
        process.wait_for_log(" ready in ")

        def status() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            try:
                connection.request("GET", "/")
                return connection.getresponse().status
            finally:
                connection.close()

        assert status() == 503
        (tmp_path / "main.py").write_text(GOOD)
        eventually(lambda: status() == 200, process)
        assert process.stop() == 0
    finally:
        process.close()
