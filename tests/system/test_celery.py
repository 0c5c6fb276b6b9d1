"""The example with Celery, beat and a real Redis: a deploy under load in the middle of a task."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, UnixHTTPConnection, alive, daemon, eventually, free_port

from caddysnake.daemon.commands.store import find_server

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "celery"


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis, Debian's where there is one; its URL."""
    program = shutil.which("redis-server") or find_server(os.environ)
    assert program is not None
    port = free_port()
    asked = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen(asked, stdout=log, stderr=log)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


@contextlib.contextmanager
def shop(tmp_path: Path) -> Iterator[Process]:
    home = tmp_path / "shop"
    shutil.copytree(EXAMPLE, home)
    text = (EXAMPLE / "Caddyfile").read_text().replace("http://localhost:{$EXAMPLE_PORT:9080}", "unix/app.sock")
    with redis(tmp_path) as url, daemon(tmp_path, text, environ={"BROKER_URL": url, "EXAMPLE_DIR": str(home)}) as found:
        yield found


def ask(folder: Path, method: str, target: str) -> dict[str, Any]:
    connection: http.client.HTTPConnection = UnixHTTPConnection(folder / "app.sock")
    with contextlib.closing(connection):
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found


def processes(process: Process, name: str) -> list[dict[str, Any]]:
    (app,) = call(process, "GET", "/apps").json["apps"]
    return [each for each in app["processes"] if each["name"] == name]


@pytest.mark.system
def test_a_task_is_finished_by_the_old_worker_while_the_new_code_serves(tmp_path: Path) -> None:
    with shop(tmp_path) as process:
        eventually(lambda: ask(tmp_path, "GET", "/")["beats"] > 0, "beat")
        (old,) = processes(process, "celery")
        order = ask(tmp_path, "POST", "/orders/8.0")["order"]
        eventually(lambda: "shop.carry_out" in process.log, "the task")
        failures: list[BaseException] = []
        is_over = threading.Event()

        def load() -> None:
            while not is_over.is_set():
                try:
                    ask(tmp_path, "GET", f"/orders/{order}")
                except BaseException as exc:
                    failures.append(exc)

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun = time.monotonic()
        done = command(process, tmp_path, "reload", check=True)
        took = time.monotonic() - begun
        assert "is up to date" in done.stderr
        leaving = [each["pid"] for each in processes(process, "celery") if each["is_leaving"]]
        assert leaving == [old["pid"]], took
        assert ask(tmp_path, "GET", f"/orders/{order}")["state"] == "taken"
        command(process, tmp_path, "upgrade", check=True)
        eventually(lambda: ask(tmp_path, "GET", f"/orders/{order}")["state"] != "taken", "its end")
        assert ask(tmp_path, "GET", f"/orders/{order}")["state"] == f"done by {old['pid']}"
        eventually(lambda: [each["pid"] for each in processes(process, "celery")] != [old["pid"]], "the new one")
        is_over.set()
        for thread in threads:
            thread.join()
        assert failures == []

        def works_again() -> bool:
            later = ask(tmp_path, "POST", "/orders/0.0")["order"]
            time.sleep(1)
            return bool(ask(tmp_path, "GET", f"/orders/{later}")["state"] != "taken")

        eventually(works_again, "an order of the new worker")
        (tmp_path / "shop" / "migrate.py").write_text("raise SystemExit('no such column: price')")
        refused = command(process, tmp_path, "reload")
        assert refused.returncode == 1
        assert "no such column: price" in refused.stderr
        for name in ("celery", "beat"):
            (each,) = processes(process, name)
            os.kill(each["pid"], signal.SIGKILL)
            eventually(lambda name=name, pid=each["pid"]: processes(process, name)[0]["pid"] not in (0, pid), name)  # type: ignore[misc]
        pids = [each["pid"] for name in ("celery", "beat") for each in processes(process, name)]
    assert not any(alive(pid) for pid in pids)
