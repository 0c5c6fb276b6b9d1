"""Django, FastAPI with numpy, Celery and Radicale (and Gradio, where it is installed) as a user without privileges: an
audit prints what they need, and with these lines they work in a sandbox.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.daemon import PATIENCE_S, Process, UnixHTTPConnection, eventually, free_port
from support.pythons import make_venv, site_of
from support.tenants import ALICE, Public, give, needs_root, public_folder

from caddysnake.daemon.commands.store import find_server
from caddysnake.sandbox import landlock, walls

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    needs_root,
    pytest.mark.skipif(walls.why_not() != "", reason=walls.why_not() or "-"),
    pytest.mark.skipif(landlock.abi() < landlock.SCOPES_ABI, reason="Landlock's scopes need Linux 6.12"),
]

INSTALL_TIMEOUT_S = 500
DJANGO = """
import os, pathlib, django
from django.conf import settings
DATA = pathlib.Path(__file__).parent.parent / "data"
LOGGING = {
    "version": 1,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": DATA / "log" / "site.log"}},
    "root": {"handlers": ["file"], "level": "INFO"},
}
settings.configure(
    SECRET_KEY="x" * 50, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], TIME_ZONE="Europe/Berlin", USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"], MEDIA_ROOT=DATA / "media", LOGGING=LOGGING,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA / "db" / "db.sqlite3"}},
)
django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
call_command("migrate", verbosity=0)

def upload(request):
    from django.contrib.auth.models import User
    User.objects.get_or_create(username="ada")
    with default_storage.open(default_storage.save("a/b.txt", ContentFile(b"kept"))) as file:
        return HttpResponse(f"{file.read().decode()} {User.objects.count()}")

urlpatterns = [path("ask", upload)]
app = get_wsgi_application()
"""
FASTAPI = """
import pathlib, ssl, zoneinfo
import numpy as np
from fastapi import FastAPI
DATA = pathlib.Path(__file__).parent.parent / "data"
weights = np.load(DATA / "models" / "weights.npy")
app = FastAPI()

@app.get("/ask")
def ask():
    (DATA / "cache" / "last").write_text("x")
    certificates = ssl.create_default_context().get_ca_certs()
    return [float((np.ones((200, 200)) @ np.ones(200)).sum() + weights.sum()), len(certificates) > 0,
            str(zoneinfo.ZoneInfo("Europe/Berlin"))]
"""
RADICALE = """
import pathlib
from radicale import Application
from radicale.config import load
configuration = load()
folder = pathlib.Path(__file__).parent.parent / "data" / "calendars"
configuration.update({"storage": {"filesystem_folder": str(folder)}, "auth": {"type": "none"},
                      "rights": {"type": "authenticated"}}, "test", privileged=False)
radicale = Application(configuration)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/ask":
        environ = {**environ, "PATH_INFO": "/ada/", "REQUEST_METHOD": "PROPFIND"}
    return radicale({**environ, "HTTP_AUTHORIZATION": "Basic YWRhOngK"}, start_response)
"""
CELERY = """
import os
from celery import Celery
queue = Celery("main", broker=os.environ["BROKER"], backend=os.environ["BROKER"])

@queue.task
def add(one, other):
    return one + other

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"%d" % add.delay(2, 3).get(timeout=60)]
"""
GRADIO = """
import gradio
from fastapi import FastAPI
with gradio.Blocks() as page:
    text = gradio.Textbox()
    gradio.Button("Greet").click(lambda name: f"Hello {name}", text, text)
app = gradio.mount_gradio_app(FastAPI(), page, path="/page")

@app.get("/ask")
def ask():
    return len(page.blocks)
"""


class App(NamedTuple):
    interface: str
    source: str
    answer: str
    """Of ``/ask``, how it begins."""
    lines: tuple[str, ...] = ("warmup /ask",)


APPS = {
    "django": App("wsgi", DJANGO, "kept 1"),
    "fastapi": App("asgi", FASTAPI, '[40004.0,true,"Europe/Berlin"]'),
    "radicale": App("wsgi", RADICALE, "<?xml", ("warmup /ask {\n\t\t\texpect 207\n\t\t}",)),
    "celery": App("wsgi", CELERY, "5", ("process worker celery -A main:queue worker --pool solo",)),
    "gradio": App("asgi", GRADIO, "", ("warmup /ask /page/ /page/config",)),
}


@pytest.fixture(scope="module")
def venv(public: Public) -> Iterator[Path]:
    """An environment that has them, for everybody; ``CADDYSNAKE_WALLED_VENV`` names one that is there."""
    made = os.environ.get("CADDYSNAKE_WALLED_VENV")
    if made:
        yield Path(made)
        return
    with public_folder() as folder:
        found = make_venv(public.python, folder / "venv")
        packages = Path(__file__).with_name("walled_apps.txt")
        command = [sys.executable, "-m", "pip", "--python", str(found), "install", "--quiet", "-r", str(packages)]
        subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S)
        yield found


@contextlib.contextmanager
def run(folder: Path, public: Public, text: str) -> Iterator[Process]:
    (folder / "Caddyfile").write_text(text)
    command = [public.python, "-m", "caddysnake", "run"]
    process = Process(command, folder, "daemon", {"PYTHONPATH": public.site}, user=ALICE)
    try:
        process.wait_for_log(" ready in ")
        yield process
    finally:
        process.close()


def ask(folder: Path, name: str, process: Process) -> str:
    connection: http.client.HTTPConnection = UnixHTTPConnection(folder / f"{name}.sock")
    with contextlib.closing(connection):
        connection.request("GET", "/ask")
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status in (200, 207), (name, process.log)
        return body


def audits(process: Process) -> dict[str, str]:
    """The block that the log prints for each app, by its name."""
    found: dict[str, str] = {}
    for line in process.log.splitlines():
        record: dict[str, Any] = json.loads(line)
        if "looked_at" in record:
            found[record["app"].partition("/")[0]] = record.get("error", "sandbox on")
    return found


def test_with_the_lines_that_an_audit_prints_they_work_in_a_sandbox(public: Public, venv: Path) -> None:
    names = [name for name in APPS if name != "gradio" or (site_of(venv) / name).exists()]
    server = shutil.which("redis-server") or find_server(os.environ)
    assert server is not None
    port = free_port()
    with public_folder() as folder, (folder / "redis.log").open("wb") as log:
        for place in ("log", "db", "media", "models", "cache", "calendars"):
            (folder / "data" / place).mkdir(parents=True)
        for name in names:
            (folder / name).mkdir()
            (folder / name / "main.py").write_text(APPS[name].source)
        weights = f"import numpy; numpy.save({str(folder / 'data/models/weights.npy')!r}, numpy.ones(4))"
        subprocess.run([venv / "bin" / "python", "-c", weights], check=True, timeout=PATIENCE_S)
        give(folder, ALICE, 0o755)

        def text(boxes: dict[str, str]) -> str:
            whole = "{\n\tgrace_period 2s\n}\n"
            for name in names:
                lines = (
                    f"module_{APPS[name].interface} main:app", f"working_dir {folder}/{name}", f"venv {venv}",
                    "workers 1", "start_timeout 3m", f"env_var BROKER redis://127.0.0.1:{port}/0", *APPS[name].lines,
                    boxes[name].replace("\n", "\n\t\t"),
                )  # fmt: skip
                inner = "".join(f"\t\t{line}\n" for line in lines)
                whole += f"unix/{folder}/{name}.sock|0600 {{\n\tpython {{\n{inner}\t}}\n}}\n"
            return whole

        asked = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", "/"]
        redis = subprocess.Popen(asked, stdout=log, stderr=log)
        try:
            with run(folder, public, text(dict.fromkeys(names, "sandbox audit"))) as process:
                eventually(lambda: len(audits(process)) == len(names), "all audits")
                boxes = audits(process)
            assert set(boxes) == set(names)
            assert f"\twrite {folder}/data/db" in boxes["django"]
            assert f"\tread {folder}/data/models/weights.npy" in boxes["fastapi"]
            assert all("unix any" not in box for name, box in boxes.items() if name != "radicale"), boxes
            with run(folder, public, text(boxes)) as process:
                for name in names:
                    assert ask(folder, name, process).startswith(APPS[name].answer), name
                assert process.log.count('"sandbox":"walled"') == len(names)
        finally:
            redis.terminate()
            redis.wait(PATIENCE_S)
