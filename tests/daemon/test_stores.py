"""Stores of tenants with users of their own: neither reaches the other's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import daemon
from support.estate import Estate, caddyfile
from support.tenants import ALICE, BOB, Public, give, needs_root, public_folder

from caddysnake.daemon.commands.store import find_server

pytestmark = needs_root

APP = """
import json, os
from caddysnake import CacheError, cache

def app(environ, start_response):
    told = json.loads(environ["wsgi.input"].read())
    if "at" in told:
        os.environ["CADDYSNAKE_STORE_URL"] = told["at"]
        cache._local.__dict__.clear()
    try:
        getattr(cache, told["call"])(*told["words"])
        found = cache.get("secret")
        found = found and found.decode()
    except CacheError as exc:
        found = str(exc)
    start_response("200 OK", [])
    return [json.dumps([os.environ["CADDYSNAKE_STORE_URL"], found]).encode()]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as found:
        for name, uid in (("alice", ALICE), ("bob", BOB)):
            (found / name).mkdir()
            (found / name / "main.py").write_text(APP)
            give(found / name, uid)
        server = find_server({"PATH": "/nonexistent"})
        assert server is not None
        (found / "bin").mkdir()
        shutil.copy(server, found / "bin" / "valkey-server")
        yield found


def test_a_tenant_does_not_reach_the_store_of_another(folder: Path, public: Public) -> None:
    lines = "cache {\n\t\t\tpersist on\n\t\t}"
    text = caddyfile(folder, public, (f"user {ALICE}", lines), (f"user {BOB}", lines))
    environ = {
        "PYTHONPATH": public.site,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "STATE_DIRECTORY": f"{folder}/state",
    }
    with daemon(folder, text, environ=environ) as process:
        estate = Estate(folder, process)
        at, found = estate.ask("bob", "store", call="set", words=["secret", "of bob"])
        assert found == "of bob"
        assert os.stat(at.removeprefix("unix://")).st_uid == BOB
        own, found = estate.ask("alice", "store", call="set", words=["x", "1"])
        assert own != at
        assert found is None
        _, found = estate.ask("alice", "store", at=at, call="get", words=["secret"])
        assert "Permission denied" in found
        kept = list(Path(f"{folder}/state/stores").iterdir())
        assert {path.stat().st_uid for path in kept} == {ALICE, BOB}
        assert {path.stat().st_mode & 0o777 for path in kept} == {0o700}
