"""``caddysnake run --caddy``: a stock Caddy that the daemon supervises, and what happens when either of them dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import (
    CADDY,
    PATIENCE_S,
    Process,
    alive,
    below,
    children,
    daemon,
    eventually,
    free_port,
    get,
    is_spared,
    workers,
)

pytestmark = pytest.mark.system

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


@pytest.fixture(params=["current", "debian"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A PATH with the Caddy that the test is about; a runtime folder whose name leaves room for sockets."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "caddy").symlink_to(find_caddy(request.param))
    with tempfile.TemporaryDirectory(prefix="caddysnake-test-") as runtime:
        yield {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_RUNTIME_DIR": runtime}


def write(folder: Path, port: int) -> str:
    (folder / "blog.py").write_text(APP)
    block = "\tpython {\n\t\tmodule_wsgi blog:app\n\t\tworkers 1\n\t\tgrace_period 2s\n\t}\n"
    options = "{\n\tadmin off\n\tgrace_period 2s\n}\n"
    return f"{options}http://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n{block}}}\n"


def eventually_answers(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError):
            if get("/", port) == (200, b"ok"):
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def ending(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.close()


def test_what_caddy_cannot_listen_on_ends_the_start(tmp_path: Path, environ: dict[str, str]) -> None:
    """Caddy says READY=1 to its service manager even then: that must not be believed."""
    port = free_port()
    (tmp_path / "Caddyfile").write_text(write(tmp_path, port))
    command = [sys.executable, "-m", "caddysnake", "run", "--caddy"]
    with socket.create_server(("127.0.0.1", port)), ending(Process(command, tmp_path, "daemon", environ)) as process:
        assert process.wait() == 1
    assert f"Error: caddy cannot listen on port {port}, address already in use" in process.log
    assert " ready in " not in process.log


def test_a_caddy_that_dies_is_started_again(tmp_path: Path, environ: dict[str, str]) -> None:
    """The workers stay."""
    port = free_port()
    with daemon(tmp_path, write(tmp_path, port), "--caddy", environ=environ) as process:
        assert get("/", port) == (200, b"ok")
        before = workers(process.pid)
        os.kill(min(below(process.pid, CADDY)), signal.SIGKILL)
        process.wait_for_log("caddy ended and is started again")
        eventually_answers(port)
        assert workers(process.pid) == before
        assert process.stop() == 0


@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_the_folder_of_the_sockets_is_spared_and_made_anew_when_somebody_has_removed_it(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    port = free_port()
    with daemon(tmp_path, write(tmp_path, port), "--caddy", environ=environ) as process:
        folders = Path(environ["XDG_RUNTIME_DIR"], "caddysnake").iterdir()
        (folder,) = (each for each in folders if each.name != "admin")
        assert is_spared(folder)
        shutil.rmtree(folder)
        process.wait_for_log("a socket was gone, and is made anew")
        assert folder.stat().st_mode & 0o777 == 0o700
        os.kill(min(below(process.pid, CADDY)), signal.SIGKILL)
        process.wait_for_log("caddy ended and is started again")
        eventually_answers(port)
        process.popen.send_signal(signal.SIGUSR2)
        process.wait_for_log('"upgraded"')
        assert is_spared(folder)
        assert process.stop() == 0
    assert not folder.exists()


def test_after_a_daemon_was_killed_the_next_starts_at_once_and_nothing_of_the_first_is_left(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """On the same sockets and the same port; what the first left behind is gone after its grace period."""
    port = free_port()
    caddyfile = write(tmp_path, port)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(daemon(tmp_path, caddyfile, "--caddy", environ=environ))
        left = children(first.pid)
        assert len(left) >= 3  # caddy, fork server, worker
        first.popen.kill()
        first.popen.wait()
        with daemon(tmp_path, caddyfile, "--caddy", environ=environ) as second:
            assert get("/", port) == (200, b"ok")
            eventually(lambda: not any(alive(pid) for pid in left))
            eventually_answers(port)
            assert second.stop() == 0


# Debian's Caddy has no such option.
@pytest.mark.parametrize("environ", ["current"], indirect=True)
def test_behind_proxies_that_caddy_trusts_the_client_is_whom_they_name(tmp_path: Path, environ: dict[str, str]) -> None:
    """And nobody whom the client names: Caddy goes through the list from its end."""
    port = free_port()
    (tmp_path / "blog.py").write_text(
        "def app(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [environ['REMOTE_ADDR'].encode()]\n"
    )
    options = (
        "{\n\tadmin off\n\tservers {\n\t\ttrusted_proxies static 127.0.0.0/8 192.0.2.0/24\n"
        "\t\ttrusted_proxies_strict\n\t}\n}\n"
    )
    site = f"http://127.0.0.1:{port} {{\n\tpython {{\n\t\tmodule_wsgi blog:app\n\t\tworkers 1\n\t}}\n}}\n"
    with daemon(tmp_path, options + site, "--caddy", environ=environ):
        forwarded = {"X-Forwarded-For": "6.6.6.6, 198.51.100.7, 192.0.2.1"}
        assert get("/", port, **forwarded) == (200, b"198.51.100.7")
        assert get("/", port) == (200, b"127.0.0.1")


def test_an_app_that_knows_no_root_path_is_put_below_a_prefix(tmp_path: Path, environ: dict[str, str]) -> None:
    """By Caddy's ``uri strip_prefix``, as docs/caddyfile.md says: the app sees no prefix at all."""
    port = free_port()
    (tmp_path / "api.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': repr((scope['path'], scope['root_path'])).encode()})\n"
    )
    block = "\t\tpython {\n\t\t\tmodule_asgi api:app\n\t\t\tworkers 1\n\t\t}\n"
    handles = f"\thandle /api/* {{\n\t\turi strip_prefix /api\n{block}\t}}\n\thandle {{\n\t\trespond other\n\t}}\n"
    with daemon(tmp_path, f"http://127.0.0.1:{port} {{\n{handles}}}\n", "--caddy", environ=environ):
        assert get("/api/items?a=1", port) == (200, b"('/items', '')")
        assert get("/items", port) == (200, b"other")
