"""A reload of ``run --caddy``: the supervised Caddy gets its part of the file, on whichever Caddy there is."""

from __future__ import annotations

import http.client
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import CADDY, PATIENCE_S, Process, below, daemon, eventually, free_port, get, workers

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [{}]\n"


@pytest.fixture(params=["current", "debian"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A PATH with the Caddy that the test is about; a runtime folder whose name leaves room for sockets."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "caddy").symlink_to(find_caddy(request.param))
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(APP.format(repr(name.encode())))
    with tempfile.TemporaryDirectory(prefix="cs-") as runtime:
        yield {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_RUNTIME_DIR": runtime}


def site(port: int, app: str, *lines: str) -> str:
    block = f"\tpython {{\n\t\tmodule_wsgi {app}:app\n\t\tworkers 1\n\t\tgrace_period 2s\n\t}}\n"
    more = "".join(f"\t{line}\n" for line in lines)
    return f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n{more}{block}}}\n"


def x_new(port: int) -> str:
    """The field ``X-New`` of an answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        client.request("GET", "/")
        return client.getresponse().headers.get("X-New", "")
    finally:
        client.close()


def reload(process: Process, folder: Path, text: str, said: str, times: int = 1) -> None:
    (folder / "Caddyfile").write_text(text)
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for_log(said, times)


def test_sites_and_directives_of_caddys_come_and_go(tmp_path: Path, environ: dict[str, str]) -> None:
    one, two = free_port(), free_port()
    options = "{\n\tgrace_period 2s\n}\n"
    with daemon(tmp_path, options + site(one, "one"), "--caddy", environ=environ) as process:
        both = options + site(one, "one", "header X-New yes") + site(two, "two")
        reload(process, tmp_path, both, '"reloaded"')
        assert (get("/", one), get("/", two)) == ((200, b"one"), (200, b"two"))
        assert x_new(one) == "yes"
        reload(process, tmp_path, options + site(two, "two"), '"reloaded"', 2)
        assert get("/", two) == (200, b"two")
        with pytest.raises(ConnectionError):
            get("/", one)
        eventually(lambda: len(workers(process.pid)) == 1)
        (place,) = (Path(environ["XDG_RUNTIME_DIR"]) / "caddysnake").glob("[0-9a-f]" * 12)
        assert len(list(place.glob("Caddyfile-*"))) == 1
        assert process.stop() == 0
        assert not list(place.glob("*addy*"))


def test_what_caddy_refuses_changes_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    """And the next good file is taken."""
    one, two = free_port(), free_port()
    with daemon(tmp_path, site(one, "one"), "--caddy", environ=environ) as process:
        before = workers(process.pid)
        wrong = site(one, "one", "file_server {", "\tnope", "}") + site(two, "two")
        reload(process, tmp_path, wrong, "reload refused")
        assert r"Caddyfile:4: caddy refuses its part of the file: " in process.log
        assert r"unknown subdirective 'nope'\n    4 | nope" in process.log
        assert get("/", one) == (200, b"one")
        assert before <= workers(process.pid)
        reload(process, tmp_path, site(one, "two"), '"reloaded"')
        assert get("/", one) == (200, b"two")


@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_what_only_shows_when_caddy_carries_it_out_changes_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    """Debian's older Caddy keeps the listeners of such an attempt."""
    one = free_port()
    with daemon(tmp_path, site(one, "one"), "--caddy", environ=environ) as process:
        unbindable = site(one, "one", "header X-New yes") + "http://192.0.2.1:1 {\n\tbind 192.0.2.1\n}\n"
        reload(process, tmp_path, unbindable, "reload refused")
        assert "cannot assign requested address" in process.log
        assert get("/", one) == (200, b"one")
        assert x_new(one) == ""
        reload(process, tmp_path, site(one, "two"), '"reloaded"')
        assert get("/", one) == (200, b"two")


@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_with_its_api_off_caddy_cannot_be_told(tmp_path: Path, environ: dict[str, str]) -> None:
    """But what is ours alone is reloaded."""
    one = free_port()
    options = "{\n\tadmin off\n}\n"
    with daemon(tmp_path, options + site(one, "one"), "--caddy", environ=environ) as process:
        before = workers(process.pid)
        reload(process, tmp_path, options + site(one, "one"), '"reloaded"')
        assert workers(process.pid) != before
        reload(process, tmp_path, options + site(one, "one", "header X-New yes"), "with `admin off` it cannot be told")
        assert get("/", one) == (200, b"one")


@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_a_caddy_that_died_is_started_on_what_was_reloaded(tmp_path: Path, environ: dict[str, str]) -> None:
    """Also what only an imported file says reaches it."""
    one = free_port()
    (tmp_path / "more.caddy").write_text("header X-New no\n")
    with daemon(tmp_path, site(one, "one", "import more.caddy"), "--caddy", environ=environ) as process:
        (tmp_path / "more.caddy").write_text("header X-New yes\n")
        reload(process, tmp_path, site(one, "one", "import more.caddy"), '"reloaded"')
        assert x_new(one) == "yes"
        reload(process, tmp_path, site(one, "two", "header X-New 2"), '"reloaded"', 2)
        (caddy,) = below(process.pid, CADDY)
        os.kill(caddy, signal.SIGKILL)
        process.wait_for_log("caddy ended and is started again")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert x_new(one) == "2"
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
