"""A listener changes its owner: no idle connection is closed under a request that is on its way."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest
from support.crowd import Crowd, source
from support.daemon import PATIENCE_S, Process, caddy, daemon
from support.rawhttp import RawClient

pytestmark = pytest.mark.system


def block(version: int, matcher: str = "") -> str:
    return f"\tpython {matcher} {{\n\t\tmodule_asgi main:app\n\t\tworking_dir {version}\n\t\tworkers 1\n\t}}\n"


def site(name: str, *blocks: str) -> str:
    return f"unix/{name}.sock {{\n{''.join(blocks)}}}\n"


THREADED_SOURCE = """
def app(environ, start_response):
    told = f"3 {environ['REQUEST_METHOD']} {len(environ['wsgi.input'].read())}".encode()
    start_response("200 OK", [("Content-Length", str(len(told)))])
    return [told]
"""

DIRECT = site("x", block(1))
OTHER = site("x", block(2))
THREADED = site("x", block(2).replace("module_asgi main:app", "module_wsgi threaded:app"))
ROUTED = site("x", block(2, "/two*"), block(1))
BESIDE = site("x", block(1)) + site("y", block(2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version in (1, 2):
        (tmp_path / str(version)).mkdir()
        (tmp_path / str(version) / "main.py").write_text(source(version))
    (tmp_path / "2" / "threaded.py").write_text(THREADED_SOURCE)
    return tmp_path


def change(process: Process, folder: Path, text: str, times: int) -> None:
    (folder / "Caddyfile").write_text(text)
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for_log('"reloaded"', times)


def test_no_request_fails_when_sites_come_and_go_and_listeners_change_hands(folder: Path) -> None:
    with (
        daemon(folder, DIRECT) as process,
        caddy(folder, "http://:{port} {\n\treverse_proxy unix/%s\n}\n" % (folder / "x.sock")) as (_, port),
    ):

        async def work() -> None:
            async with Crowd(port, 20, 0, 0.3) as crowd, Crowd(folder / "x.sock", 20, 0, 0.3) as close:
                for turn, text in enumerate((BESIDE, ROUTED, DIRECT, OTHER, ROUTED, THREADED, DIRECT), 1):
                    await asyncio.to_thread(change, process, folder, text, turn)
                    await asyncio.gather(crowd.more(150), close.more(150))
            assert crowd.failures == []
            assert close.failures == []
            assert set(crowd.versions) == {"1", "2", "3"}

        asyncio.run(work())


def idle(path: Path) -> RawClient:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(str(path))
    client = RawClient(sock)
    assert client.post("/", b"x").status == 200
    return client


@pytest.mark.parametrize(
    ("before", "after", "says", "ends"),
    [
        (DIRECT, OTHER, b"2 POST 1", False),
        (DIRECT, THREADED, b"3 POST 1", True),
        (THREADED, DIRECT, b"1 POST 1", True),
        (DIRECT, ROUTED, b"1 POST 1", True),
        (ROUTED, DIRECT, b"1 POST 1", False),
        (ROUTED, OTHER, b"2 POST 1", False),
    ],
    ids=[
        "other code",
        "an app of threads",
        "an app of a loop",
        "direct to relay",
        "relay to direct",
        "relay to another",
    ],
)
def test_an_idle_connection_gets_one_more_answer_from_the_new_owner(
    folder: Path, before: str, after: str, says: bytes, ends: bool
) -> None:
    with daemon(folder, before) as process, idle(folder / "x.sock") as client:
        change(process, folder, after, 1)
        assert client.is_quiet()
        answer = client.post("/", b"x")
        assert (answer.status, answer.body) == (200, says)
        assert (answer.header("connection") == "close") is ends
        if ends:
            assert client.is_ended()
        else:
            assert client.post("/", b"x").body == says


def test_an_idle_connection_of_a_listener_that_is_gone_is_answered(folder: Path) -> None:
    with daemon(folder, BESIDE) as process, idle(folder / "y.sock") as client:
        change(process, folder, DIRECT, 1)
        assert client.is_quiet()
        answer = client.post("/", b"x" * 100_000)
        assert (answer.status, answer.header("caddysnake-code")) == (503, "stopping")
        assert answer.header("connection") == "close"
        assert client.is_ended()
