"""The example with Django, Celery, beat and a real Redis, behind a stock Caddy: a deploy in the middle of a task."""

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
from support.daemon import PATIENCE_S, Process, alive, caddy, daemon, eventually, free_port

from caddysnake.daemon.commands.store import find_server

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "celery"
MIGRATION = """from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("shop", "{after}")]
    operations = [{operation}]
"""
FRONT = ":{port} {\n\treverse_proxy unix/FOLDER/app.sock\n}\n"


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


class Shop:
    """``process`` behind a Caddy on ``port``; its project is in ``folder``."""

    def __init__(self, process: Process, port: int, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self._port = port

    def ask(self, method: str, target: str) -> dict[str, Any]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)) as connection:
            connection.request(method, target)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            found: dict[str, Any] = json.loads(body)
            return found

    def processes(self, name: str) -> list[dict[str, Any]]:
        (app,) = call(self.process, "GET", "/apps").json["apps"]
        return [each for each in app["processes"] if each["name"] == name]

    def migration(self, number: int, after: str, operation: str) -> None:
        path = self.folder / "shop" / "migrations" / f"{number:04}_change.py"
        path.write_text(MIGRATION.format(after=after, operation=operation))

    @contextlib.contextmanager
    def loaded(self, target: str) -> Iterator[list[str]]:
        """Asked again and again meanwhile. What was not answered with 200."""
        failures: list[str] = []
        is_over = threading.Event()

        def load() -> None:
            while not is_over.is_set():
                try:
                    self.ask("GET", target)
                except Exception as exc:
                    failures.append(repr(exc))

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield failures
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


@contextlib.contextmanager
def shop(tmp_path: Path) -> Iterator[Shop]:
    home = tmp_path / "shop"
    shutil.copytree(EXAMPLE, home)
    tasks = home / "shop" / "tasks.py"
    until = "while seconds and not os.path.exists('go'):\n        time.sleep(0.1)"
    tasks.write_text(tasks.read_text().replace("time.sleep(seconds)", until))
    text = (EXAMPLE / "Caddyfile").read_text().replace("http://localhost:{$EXAMPLE_PORT:9080}", "unix/app.sock")
    with (
        redis(tmp_path) as url,
        daemon(tmp_path, text, environ={"BROKER_URL": url, "EXAMPLE_DIR": str(home)}) as process,
        caddy(tmp_path, FRONT.replace("FOLDER", str(tmp_path))) as (_, port),
    ):
        yield Shop(process, port, home)


@pytest.mark.system
def test_a_deploy_migrates_under_load_while_the_old_worker_finishes_its_task(tmp_path: Path) -> None:
    with shop(tmp_path) as found:
        process = found.process
        eventually(lambda: found.ask("GET", "/")["beats"] > 0, "beat")
        (old,) = found.processes("celery")
        order = found.ask("POST", "/order/60")["order"]
        eventually(lambda: "shop.tasks.carry_out" in process.log, "the task")
        with found.loaded(f"/orders/{order}") as failures:
            found.migration(2, "0001_initial", 'migrations.AddField("order", "price", models.IntegerField(null=True))')
            models = found.folder / "shop" / "models.py"
            price = 'default="taken")\n    price = models.IntegerField(null=True)'
            models.write_text(models.read_text().replace('default="taken")', price))
            done = command(process, tmp_path, "reload", check=True)
            assert "Applying shop.0002_change... OK" in done.stderr
            leaving = [each["pid"] for each in found.processes("celery") if each["is_leaving"]]
            assert leaving == [old["pid"]]
            assert found.ask("GET", f"/orders/{order}")["state"] == "taken"
            command(process, tmp_path, "upgrade", check=True)
            assert found.ask("GET", f"/orders/{order}")["state"] == "taken"
            (found.folder / "go").touch()
            eventually(lambda: found.ask("GET", f"/orders/{order}")["state"] != "taken", "its end")
            assert found.ask("GET", f"/orders/{order}")["state"] == f"done by {old['pid']}"
            eventually(lambda: [each["pid"] for each in found.processes("celery")] not in ([], [old["pid"]]), "the new")
        assert failures == []

        def works_again() -> bool:
            later = found.ask("POST", "/order/0")["order"]
            time.sleep(1)
            return bool(found.ask("GET", f"/orders/{later}")["state"] != "taken")

        eventually(works_again, "an order of the new worker")
        found.migration(3, "0002_change", 'migrations.RunSQL("SELECT * FROM nowhere")')
        with found.loaded("/") as failures:
            refused = command(process, tmp_path, "reload")
        assert (refused.returncode, failures) == (1, [])
        assert "no such table: nowhere" in refused.stderr
        for name in ("celery", "beat"):
            (each,) = found.processes(name)
            os.kill(each["pid"], signal.SIGKILL)
            eventually(lambda name=name, pid=each["pid"]: found.processes(name)[0]["pid"] not in (0, pid), name)  # type: ignore[misc]
        pids = [each["pid"] for name in ("celery", "beat") for each in found.processes(name)]
    assert not any(alive(pid) for pid in pids)
