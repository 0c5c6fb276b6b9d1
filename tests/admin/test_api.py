"""The admin API of a real daemon."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin import call, command, socket_of
from support.daemon import PATIENCE_S, Process, caddy, daemon, free_port, get, workers
from support.load import app

pytestmark = pytest.mark.system

SITES = """unix/x.sock {
	python {
		module_wsgi main:wsgi
		workers 2
		env_var PASSWORD hunter2
	}
}
unix/t.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
	}
}
"""
SECRET = "$2a$04$9V/xhgN/F4hV5fFHHfQSMu7gQPVMrNuEKEh2emKqM3n52xvmkJ2cW"
"""What `caddy hash-password` makes of "secret"."""
APP, TENANT = "main:wsgi", "ann.test%20main:wsgi"
BROKEN = app("2", "raise LookupError('no database')\n")


@pytest.fixture
def process(folder: Path) -> Iterator[Process]:
    with daemon(folder, SITES) as process:
        yield process


def version(folder: Path) -> str:
    return get("/", path=folder / "x.sock")[1].split()[0].decode()


def test_it_tells_what_runs(process: Process, folder: Path) -> None:
    path = socket_of(process)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert get("/", path=folder / "t.sock", Host="ann.test")[0] == 200
    found = call(process, "GET", "/status").json
    assert found["daemon"]["pid"] == process.pid
    assert found["daemon"]["phase"] == "ready"
    assert found["daemon"]["file"] == str(folder / "Caddyfile")
    by_key = {each["key"]: each for each in found["apps"]}
    assert by_key.keys() == {APP, "ann.test main:wsgi"}
    direct, tenant = by_key[APP], by_key["ann.test main:wsgi"]
    assert (direct["mode"], direct["reason"]) == ("direct", "one app takes every request")
    assert (tenant["mode"], tenant["reason"]) == ("relay", "the app depends on {http.request.host}")
    assert tenant["traffic"]["requests"] == 1
    assert len(direct["workers"]) == direct["workers_ready"] == 2
    pids = {worker["pid"] for each in found["apps"] for worker in each["workers"]}
    assert pids == workers(process.pid)
    assert all(worker["memory_bytes"] > 0 for each in found["apps"] for worker in each["workers"])
    assert {worker["pid"] for worker in call(process, "GET", "/workers").json["workers"]} > pids
    assert call(process, "GET", f"/apps/{TENANT}").json["template"] == "{http.request.host}/main:wsgi"
    assert call(process, "GET", "/health/live").json["status"] == "ok"
    assert call(process, "GET", "/health/ready").json["status"] == "ok"
    assert call(process, "HEAD", "/health/ready").status == 200
    assert "hunter2" not in call(process, "GET", "/config/").body.decode()
    assert any("socket:" in each["target"] for each in call(process, "GET", "/debug/descriptors").json["descriptors"])
    assert call(process, "GET", "/debug/tasks").json["tasks"]
    assert "/apps/{key}/reload" in call(process, "GET", "/openapi.json").json["paths"]


WRONG = [
    ("GET", "/nope", 404, "not-found"),
    ("GET", "/apps/nope", 404, "no-such-app"),
    ("GET", "/apps/%00%ff", 404, "no-such-app"),
    ("PUT", "/load", 405, "method-not-allowed"),
    ("POST", "/apps/nope/reload", 404, "no-such-app"),
    ("POST", "/apps/%7Bhttp.request.host%7D%2Fmain:wsgi/reload", 409, "template"),
    ("DELETE", "/apps/main:wsgi", 409, "static-app"),
    ("DELETE", "/apps/ann.test%20main:wsgi", 404, "no-such-app"),
    ("POST", "/workers/1/dump", 404, "no-such-worker"),
    ("POST", "/workers/x/dump", 400, "bad-request"),
    ("POST", "/workers/99999999999999999999/dump", 400, "bad-request"),
    ("POST", "/load?changed=perhaps", 400, "bad-request"),
]


def test_what_is_wrong_has_a_code_and_says_what_to_do(process: Process, folder: Path) -> None:
    for method, target, status, code in WRONG:
        answer = call(process, method, target)
        assert (answer.status, answer.json["code"]) == (status, code), (method, target, answer)
        assert answer.json["error"]
        assert answer.json["hint"]
    assert call(process, "POST", "/load", "{}", Content_Type="application/json").json["code"] == (
        "unsupported-media-type"
    )
    assert call(process, "POST", "/load", b"#" * (5 << 20), Content_Type="text/caddyfile").json["code"] == "too-large"
    assert call(process, "GET", "/status", Host="rebound.example").json["code"] == "forbidden-host"
    assert call(process, "GET", "/status", Origin="https://evil.example").json["code"] == "forbidden-origin"
    assert version(folder) == "1"


def test_a_configuration_is_loaded_or_changes_nothing(process: Process, folder: Path) -> None:
    before = workers(process.pid)
    answer = call(process, "POST", "/load", "unix/x.sock {\n\tpyhton main:wsgi\n}\n", Content_Type="text/caddyfile")
    assert (answer.status, answer.json["code"]) == (400, "config")
    assert answer.json["problems"][0]["line"] == 2
    assert workers(process.pid) == before
    other = "unix/y.sock {\n\tpython {\n\t\tmodule_wsgi main:wsgi\n\t\tworkers 1\n\t}\n}\n"
    answer = call(process, "POST", "/load", other, Content_Type="text/caddyfile")
    assert (answer.status, answer.json["apps"]) == (200, 1)
    assert get("/", path=folder / "y.sock")[0] == 200
    assert not (folder / "x.sock").exists()
    assert call(process, "POST", "/load").status == 200  # the file again
    assert version(folder) == "1"
    assert not (folder / "y.sock").exists()


def test_one_app_is_reloaded_and_one_is_evicted(process: Process, folder: Path) -> None:
    assert get("/", path=folder / "t.sock", Host="ann.test")[0] == 200
    (folder / "main.py").write_text(app("2"))
    assert call(process, "POST", f"/apps/{APP}/reload").json["app"] == APP
    assert version(folder) == "2"
    (folder / "main.py").write_text(BROKEN)
    answer = call(process, "POST", f"/apps/{APP}/reload")
    assert (answer.status, answer.json["code"], answer.json["detail"]) == (422, "start", "import-failed")
    assert "LookupError: no database" in answer.json["error"]
    refused = call(process, "GET", f"/apps/{APP}").json["refused"]
    assert "LookupError: no database" in refused["error"]
    assert version(folder) == "2"
    assert call(process, "DELETE", f"/apps/{TENANT}").status == 200
    assert call(process, "GET", f"/apps/{TENANT}").status == 404
    assert get("/", path=folder / "t.sock", Host="ann.test")[0] == 200


def test_a_worker_is_told_to_dump_its_stacks(process: Process) -> None:
    pid = min(workers(process.pid))
    assert call(process, "POST", f"/workers/{pid}/dump").json == {"pid": pid, "app": APP}
    process.wait_for_log("most recent call first")


def test_many_reloads_at_once_are_carried_out_one_after_the_other(process: Process, folder: Path) -> None:
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "caddysnake", "reload"],
            cwd=folder,
            env={**os.environ, "XDG_RUNTIME_DIR": process.runtime_dir},
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for each in commands:
        _, error = each.communicate(timeout=PATIENCE_S)
        assert each.returncode == 0, error
    assert process.log.count('"reloaded"') == 3


def test_the_command_reloads_and_says_why_it_could_not(process: Process, folder: Path) -> None:
    (folder / "main.py").write_text(app("2"))
    assert "reloaded in" in command(process, folder, "reload", check=True).stderr
    assert version(folder) == "2"
    (folder / "main.py").write_text(BROKEN)
    done = command(process, folder, "reload", "--config", "Caddyfile")
    assert done.returncode == 1
    assert "LookupError: no database" in done.stderr
    assert version(folder) == "2"
    (folder / "Caddyfile").write_text("unix/x.sock {\n\tpyhton main:wsgi\n}\n")
    done = command(process, folder, "reload", "-c", "Caddyfile")
    assert done.returncode == 1
    assert f'{folder / "Caddyfile"}:2: unknown directive "pyhton"' in done.stderr
    assert version(folder) == "2"
    (folder / "main.py").write_text(app("3"))
    assert command(process, folder, "reload", "--app", APP).returncode == 0
    assert version(folder) == "3"
    done = command(process, folder, "reload", "--app", "mian:wsgi")
    assert done.returncode == 1
    assert "Did you mean 'main:wsgi'?" in done.stderr


def test_the_command_stops_the_daemon_and_waits_for_its_end(process: Process, folder: Path) -> None:
    command(process, folder, "stop", check=True)
    assert process.popen.poll() == 0
    done = command(process, folder, "reload")
    assert done.returncode == 1
    assert f"no daemon answers for {folder / 'Caddyfile'}" in done.stderr


def test_it_listens_where_the_file_says_and_moves_with_it(folder: Path) -> None:
    port = free_port()
    with daemon(folder, f"{{\n\tadmin localhost:{port}\n}}\n" + SITES) as process:
        assert call(port, "GET", "/health/ready").status == 200
        assert call(port, "GET", "/health/ready", Host=f"rebound.example:{port}").json["code"] == "forbidden-host"
        (folder / "Caddyfile").write_text("{\n\tadmin unix/admin.sock|0660\n}\n" + SITES)
        # The daemon is found by what it was started with, and leaves that address for the new one.
        command(process, folder, "reload", "--address", f"localhost:{port}", check=True)
        process.wait_for_log('"admin API ready"', 2)
        assert call(folder / "admin.sock", "GET", "/health/ready").status == 200
        assert stat.S_IMODE((folder / "admin.sock").stat().st_mode) == 0o660
        with pytest.raises(OSError, match="refused"):
            call(port, "GET", "/health/live")
        command(process, folder, "reload", "--config", "Caddyfile", check=True)
        assert "admin API" in process.log


def test_it_can_be_off(folder: Path) -> None:
    with daemon(folder, "{\n\tadmin off\n}\n" + SITES) as process:
        assert not list(Path(process.runtime_dir).glob("caddysnake/admin/*.sock"))
        assert "admin API" not in process.log
        done = command(process, folder, "exec", "x", "true")
        assert (done.returncode, f"{folder / 'Caddyfile'} says `admin off`" in done.stderr) == (1, True)


def test_an_address_that_cannot_be_had_keeps_the_daemon_from_starting_and_a_default_does_not(folder: Path) -> None:
    (folder / "Caddyfile").write_text(SITES)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        words = ["run", "--admin", f"127.0.0.1:{holder.getsockname()[1]}"]
        done = subprocess.run(
            [sys.executable, "-m", "caddysnake", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1
    assert "Error: admin API: cannot listen on tcp/127.0.0.1" in done.stderr
    (folder / "runtime").mkdir()
    (folder / "runtime" / "caddysnake").touch()
    with daemon(folder, SITES, environ={"XDG_RUNTIME_DIR": str(folder / "runtime")}) as process:
        assert '"no admin API"' in process.log
        assert version(folder) == "1"


def test_it_is_reached_through_caddy_under_a_name_of_its_own(folder: Path) -> None:
    """As the documentation has it: the API stays on its socket, and Caddy asks for a password."""
    options = "{\n\tadmin unix/admin.sock {\n\t\torigins status.test\n\t}\n}\n"
    site = f"http://status.test:{{port}} {{\n\tbasicauth {{\n\t\tada {SECRET}\n\t}}\n"
    site += f"\treverse_proxy unix/{folder}/admin.sock\n}}\n"
    with daemon(folder, options + SITES), caddy(folder, site) as (_, port):
        host = f"status.test:{port}"
        assert call(port, "GET", "/", Host=host).status == 401
        ada = {"Host": host, "Authorization": "Basic " + b64encode(b"ada:secret").decode()}
        assert call(port, "GET", "/", **ada).body.startswith(b"<!doctype html>")
        assert call(port, "GET", "/status", **ada).json["daemon"]["phase"] == "ready"
        assert call(port, "POST", "/load", Origin=f"http://{host}", **ada).status == 200
        assert call(port, "POST", "/load", Origin="https://evil.example", **ada).json["code"] == "forbidden-origin"


def test_with_a_supervised_caddy_the_option_is_caddys_and_ours_stays_at_its_default(folder: Path) -> None:
    port, site = free_port(), free_port()
    text = f"{{\n\tadmin localhost:{port}\n\tauto_https off\n}}\nhttp://localhost:{site} {{\n\tpython main:wsgi\n}}\n"
    with daemon(folder, text, "--caddy") as process:
        assert call(process, "GET", "/health/ready").json["status"] == "ok"
        assert "apps" in call(port, "GET", "/config/", Host=f"localhost:{port}").json  # Caddy's own
        (folder / "main.py").write_text(app("2"))
        command(process, folder, "reload", check=True)
        assert get("/", site, Host=f"localhost:{site}")[1].startswith(b"2 ")
        status = command(process, folder, "status", check=True).stdout
        assert "direct  main:wsgi" in status
