"""The fork server that is started before the daemon is imported, by real daemons."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.daemon import children, command_line, daemon, get

pytestmark = pytest.mark.system

BLOCK = "unix/{name}.sock {{\n\tpython {{\n\t\tmodule_{kind} app:{kind}\n\t\tworkers 1\n\t\t{more}\n\t}}\n}}\n"
APP = """
import os
def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.getppid()} {os.environ.get('MALLOC_ARENA_MAX')}".encode()]
async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(os.getppid()).encode()})
"""


def fork_servers(daemon: int) -> dict[int, bool]:
    """The pids of fork servers, and whether each was started ahead."""
    lines = {pid: command_line(pid) for pid in children(daemon)}
    return {pid: b'"is_ahead"' in line for pid, line in lines.items() if b"bootstrap.py" in line}


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_workers_come_from_the_one_that_was_started_ahead(tmp_path: Path, kind: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    with daemon(tmp_path, BLOCK.format(name="a", kind=kind, more="")) as process:
        parent = int(get("/", path=tmp_path / "a.sock")[1].split()[0])
        assert fork_servers(process.pid) == {parent: True}


def test_it_is_for_one_interface(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    text = BLOCK.format(name="w", kind="wsgi", more="") + BLOCK.format(name="a", kind="asgi", more="")
    with daemon(tmp_path, text) as process:
        parents = [int(get("/", path=tmp_path / f"{name}.sock")[1].split()[0]) for name in "wa"]
        assert fork_servers(process.pid) == dict(zip(parents, (False, True), strict=True))


def test_whoever_has_another_environment_has_another_and_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with daemon(tmp_path, BLOCK.format(name="a", kind="wsgi", more="env_var MALLOC_ARENA_MAX 1")) as process:
        parent, arenas = get("/", path=tmp_path / "a.sock")[1].split()
        assert arenas == b"1"
        assert fork_servers(process.pid) == {int(parent): False}
