"""Gradio, NiceGUI and Starlette with its usual middlewares, behind a stock Caddy: what middleware waits for comes, and
the pages work in a browser.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.browser import Page, browser, requires_chromium
from support.daemon import PATIENCE_S, caddy, daemon, get, python_site
from support.pythons import make_venv
from websockets.sync.client import connect

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

APPS = ["gradio", "nicegui", "starlette"]
PACKAGES = Path(__file__).with_name("popular_apps.txt")
INSTALL_TIMEOUT_S = 500
CONTENT = b"".join(b"line %d of a file\n" % number for number in range(20_000))
MIDDLEWARES = ["gzip", "brotli", "cors", "base", "hosts", "sessions", "all"]

FILL = """
(() => {
  const field = document.querySelector(%r);
  Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, "Ada");
  field.dispatchEvent(new Event("input", {bubbles: true}));
})()
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of an environment that has them all. CI has made one meanwhile, and names it."""
    made = os.environ.get("CADDYSNAKE_POPULAR_VENV")
    if made:
        yield Path(made, "bin", "python")
        return
    folder = make_venv(sys.executable, tmp_path_factory.mktemp("venv") / "venv")
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-compile", "-r"]
    subprocess.run([*command, str(PACKAGES)], check=True, timeout=INSTALL_TIMEOUT_S)
    yield folder / "bin" / "python"
    shutil.rmtree(folder)


class Site(NamedTuple):
    folder: Path
    python: Path
    ports: dict[str, int]
    """Where each app is."""

    def ask(
        self, name: str, target: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer and its content, decoded."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=PATIENCE_S)
        try:
            fields = {field.replace("_", "-"): value for field, value in headers.items()}
            connection.request(method, target, body, {"Accept-Encoding": "identity"} | fields)
            response = connection.getresponse()
            return response, self._decoded(response.read(), response.getheader("content-encoding"))
        finally:
            connection.close()

    def _decoded(self, content: bytes, coding: str | None) -> bytes:
        if coding == "gzip":
            return gzip.decompress(content)
        if coding == "br":
            script = "import brotli, sys; sys.stdout.buffer.write(brotli.decompress(sys.stdin.buffer.read()))"
            command = [self.python, "-c", script]
            return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True, timeout=60).stdout
        assert coding is None
        return content


@pytest.fixture(scope="module")
def site(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("popular")
    shutil.copy(Path(__file__).with_name("popular_apps.py"), folder)
    (folder / "file.txt").write_bytes(CONTENT)
    ours = "".join(
        f"""unix/{folder}/{name}.sock|0660 {{
	python {{
		module_asgi popular_apps:app
		venv {python.parent.parent}
		workers 1
		start_timeout 2m
		env_var APP {name}
		env_var HOME {folder}
		env_var GRADIO_ANALYTICS_ENABLED False
		env_var GRADIO_TEMP_DIR {folder}/temporary
	}}
}}
"""
        for name in APPS
    )
    ports = {}
    with daemon(folder, ours), contextlib.ExitStack() as stack:
        for name in APPS:
            place = folder / f"caddy-{name}"
            place.mkdir()
            theirs = f"http://:{{port}} {{\n\tbind 127.0.0.1\n\treverse_proxy unix/{folder}/{name}.sock\n}}\n"
            ports[name] = stack.enter_context(caddy(place, theirs))[1]
        yield Site(folder, python, ports)


@pytest.fixture
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


@requires_chromium
def test_gradios_page_loads_and_works(site: Site, page: Page) -> None:
    def field(name: str) -> str:
        return f"#{name} input, #{name} textarea"

    page.open(f"http://127.0.0.1:{site.ports['gradio']}/")
    page.until("document.querySelector('#start') !== null")
    page.evaluate(FILL % field("name"))
    page.evaluate("document.querySelector('#greet').click()")
    page.until(f"document.querySelector('{field('greeting')}').value === 'Hello Ada!'")
    page.evaluate("document.querySelector('#start').click()")
    page.until(f"document.querySelector('{field('count')}').value === 'number 3'")
    assert not [error for error in page.errors if "status of 50" in error]


@requires_chromium
def test_niceguis_page_loads_and_works(site: Site, page: Page) -> None:
    page.open(f"http://127.0.0.1:{site.ports['nicegui']}/")
    page.until("window.socket !== undefined && window.socket.connected")
    page.evaluate(FILL % ".name input")
    page.evaluate("document.querySelector('.greet').click()")
    page.until("document.body.innerText.includes('Hello Ada!')")
    assert not [error for error in page.errors if "status of 50" in error]


@pytest.mark.parametrize("coding", ["identity", "gzip", "br"])
@pytest.mark.parametrize(
    ("name", "target"), [("nicegui", "/files/file.txt"), ("gradio", "/gradio_api/file={folder}/file.txt")]
)
def test_the_files_of_frameworks_are_whole(site: Site, name: str, target: str, coding: str) -> None:
    response, body = site.ask(name, target.format(folder=site.folder), Accept_Encoding=coding)
    assert (response.status, body) == (200, CONTENT)


@pytest.mark.parametrize("coding", ["identity", "gzip", "br"])
@pytest.mark.parametrize("name", MIDDLEWARES)
def test_files_and_streams_come_whole_through_middleware(site: Site, name: str, coding: str) -> None:
    stream = b"".join(b"%d\n" % number for number in range(1000))
    for target, content in [("file", CONTENT), ("static/file.txt", CONTENT), ("stream", stream)]:
        response, body = site.ask("starlette", f"/{name}/{target}", Accept_Encoding=coding)
        assert (response.status, body) == (200, content), target
    response, body = site.ask("starlette", f"/{name}/file", "HEAD")
    assert (response.status, body) == (200, b"")


@pytest.mark.parametrize("name", MIDDLEWARES)
def test_parts_of_files_come_through_middleware(site: Site, name: str) -> None:
    for target in ["file", "static/file.txt"]:
        response, body = site.ask("starlette", f"/{name}/{target}", Range="bytes=5-9")
        assert (response.status, body) == (206, CONTENT[5:10])
    response, body = site.ask("starlette", f"/{name}/static/missing.txt")
    assert response.status == 404


@pytest.mark.parametrize("name", MIDDLEWARES)
def test_uploads_and_websockets_pass_middleware(site: Site, name: str) -> None:
    assert site.ask("starlette", f"/{name}/upload", "POST", CONTENT)[1] == b"%d" % len(CONTENT)
    with connect(f"ws://127.0.0.1:{site.ports['starlette']}/{name}/echo", proxy=None) as websocket:
        websocket.send("hello")
        assert websocket.recv(PATIENCE_S) == "hello"


def test_what_middleware_adds_is_there(site: Site) -> None:
    response, body = site.ask("starlette", "/all/visits", Origin="https://shop.example")
    assert (response.status, body) == (200, b"1")
    assert response.getheader("access-control-allow-origin") == "https://shop.example"
    assert response.getheader("x-stamp") == "stamped"
    cookie = (response.getheader("set-cookie") or "").partition(";")[0]
    assert site.ask("starlette", "/all/visits", Cookie=cookie)[1] == b"2"


def block(folder: Path, python: Path, module: str, *lines: str) -> str:
    """An app of its own, on a socket."""
    words = (f"module_wsgi {module}:app", f"working_dir {folder}", f"venv {python.parent.parent}", *lines)
    return python_site(f"unix/{folder}/{module}.sock", *words)


def test_coverage_measures_a_worker_that_is_told_so_by_its_environment(tmp_path: Path, python: Path) -> None:
    app = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
    (tmp_path / "main.py").write_text(app)
    (tmp_path / "rc").write_text(f"[run]\nparallel = true\ndata_file = {tmp_path}/data/of\n")
    (tmp_path / "data").mkdir()
    text = block(tmp_path, python, "main", "workers 1", f"env_var COVERAGE_PROCESS_START {tmp_path}/rc")
    with daemon(tmp_path, text):
        assert get("/", path=tmp_path / "main.sock")[0] == 200
    report = [str(python), "-m", "coverage", "report", "--data-file", str(tmp_path / "of")]
    subprocess.run([str(python), "-m", "coverage", "combine", "--data-file", "of", "data"], cwd=tmp_path, check=True)
    done = subprocess.run([*report, "--include", "*/main.py"], capture_output=True, text=True, check=True)
    assert "100%" in done.stdout


def test_an_app_patched_by_gevent_gets_a_sentence(tmp_path: Path, python: Path) -> None:
    app = "from gevent import monkey\nmonkey.patch_all()\ndef app(environ, start_response): ...\n"
    (tmp_path / "main.py").write_text(app)
    (tmp_path / "Caddyfile").write_text(block(tmp_path, python, "main", "workers 1"))
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "gevent has patched the standard library (monkey_patch)" in done.stderr
