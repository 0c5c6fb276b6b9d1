"""The examples, as they are, through a real Caddy: what `make run` starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from support.caddies import caddy
from support.daemon import free_port

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("flask", "fastapi", "django")
START_S = 90.0

pytestmark = pytest.mark.system


class Site:
    """`caddysnake run --caddy --config Caddyfile.example` on a port of its own."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.log = folder / "log"
        self.url = f"http://127.0.0.1:{free_port()}"
        # The command takes the Caddy that PATH names.
        (folder / "bin").mkdir()
        (folder / "bin" / "caddy").symlink_to(binary)
        # A short path, for the sockets, that no other run of the same file shares.
        self.runtime = Path(tempfile.mkdtemp(prefix="cs-"))
        environ = {**os.environ, "EXAMPLE_PORT": self.url.rpartition(":")[2], "HOME": str(folder)}
        environ["XDG_RUNTIME_DIR"] = str(self.runtime)
        environ["PATH"] = f"{folder / 'bin'}:{environ['PATH']}"
        command = [str(Path(sys.executable).parent / "caddysnake"), "run", "--caddy", "--config", "Caddyfile.example"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.jar = urllib.request.HTTPCookieProcessor(CookieJar())
        self.opener = urllib.request.build_opener(self.jar)

    def ask(self, path: str, *, data: bytes | None = None, headers: dict[str, str] | None = None) -> str:
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {})
        with self.opener.open(request, timeout=30) as response:
            return response.read().decode()

    def status(self, path: str, *, data: bytes | None = None, headers: dict[str, str] | None = None) -> int:
        try:
            self.ask(path, data=data, headers=headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return 200

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                for framework in FRAMEWORKS:
                    self.ask(f"/{framework}/json")
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{error}\n{self.log.read_text()}", pytrace=False)
                time.sleep(0.1)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"still running 30 s after SIGTERM\n{self.log.read_text()}", pytrace=False)
        finally:
            shutil.rmtree(self.runtime)


@pytest.fixture(scope="module", params=["current", "debian"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(caddy(request.param), tmp_path_factory.mktemp("example"))
    try:
        site.wait()
        yield site
    finally:
        status = site.stop()
    assert status == 0, site.log.read_text()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_app_knows_where_it_is_mounted_and_who_asked(site: Site, framework: str) -> None:
    answer = json.loads(site.ask(f"/{framework}/json"))
    assert answer == {
        "framework": framework,
        "url": f"{site.url}/{framework}/json",
        "scheme": "http",
        "client": "127.0.0.1",
        "page": f"/{framework}/",
        "pid": answer["pid"],
    }


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_link_of_an_apps_page_works(site: Site, framework: str) -> None:
    links = re.findall(r'href="([^"]+)"', site.ask(f"/{framework}/"))
    assert len(links) >= 2
    assert {link: site.status(link) for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_stream_arrives_piece_by_piece(site: Site, framework: str) -> None:
    with site.opener.open(f"{site.url}/{framework}/stream?lines=2&pause=1.5", timeout=30) as response:
        begun = time.monotonic()
        assert response.readline() == b"line 1 of 2\n"
        # The second line is not even made before the pause is over.
        assert time.monotonic() - begun < 1.4
        assert response.read() == b"line 2 of 2\n"


def test_flask_reads_a_form(site: Site) -> None:
    assert "Hello Ada" in site.ask("/flask/greet", data=b"name=Ada")
    assert site.status("/flask/greet", data=b"name=") == 400


def test_fastapi_checks_a_json_body_and_keeps_state_from_its_lifespan(site: Site) -> None:
    headers = {"Content-Type": "application/json"}
    answer = json.loads(site.ask("/fastapi/greet", data=b'{"name": "Ada", "times": 2}', headers=headers))
    assert answer["greeting"] == "Hello Ada Ada"
    assert answer["guests"] >= 1
    assert site.status("/fastapi/greet", data=b'{"name": ""}', headers=headers) == 422


def test_django_wants_its_token_back(site: Site) -> None:
    page = site.ask("/django/")
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token is not None
    form = {"name": "Ada", "csrfmiddlewaretoken": token[1]}
    assert "Hello Ada" in site.ask("/django/greet", data=urllib.parse.urlencode(form).encode())
    assert site.status("/django/greet", data=b"name=Ada") == 403


def test_caddy_answers_what_needs_no_app(site: Site) -> None:
    page = site.ask("/")
    assert [link for link in re.findall(r'href="([^"]+)"', page) if site.status(link) != 200] == []
    assert site.status("/flask") == 200  # redirected to /flask/
    assert site.status("/nowhere") == 404
