"""Autobahn's fuzzing client against a WebSocket echo: RFC 6455 and RFC 7692, directly and behind Caddy and the relay.

``CADDYSNAKE_WSTEST`` is the command of the client, as ``.ci/autobahn`` prints it, and ``CADDYSNAKE_WSTEST_CASES`` may
name others. Left to that are section 9 (large messages) and most of 12 and 13: minutes of a client in Python 2.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.caddies import caddy as find_caddy
from support.daemon import caddy, daemon, free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

CLIENT = os.environ["CADDYSNAKE_WSTEST"].split()
RULES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
DEFLATE = ["12.1.1", "12.2.2", "13.1.1", "13.3.1", "13.5.1", "13.7.1"]
"""A thousand messages each: some of sections 12 and 13."""
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}

ECHO = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
"""
BLOCK = "\tpython{matcher} {{\n\t\tmodule_asgi echo:app\n\t\tworkers 1\n\t}}\n"


@pytest.fixture(params=["direct", "relay and caddy"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "echo.py").write_text(ECHO)
    port = free_port()
    with ExitStack() as stack:
        if request.param == "direct":
            block = BLOCK.format(matcher="")
        else:
            block = BLOCK.format(matcher=" /*") + BLOCK.format(matcher=" /other/*")
        stack.enter_context(daemon(tmp_path, f"tcp/127.0.0.1:{port} {{\n{block}}}\n"))
        if request.param != "direct":
            site = f"http://:{{port}} {{\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:{port}\n}}\n"
            _, port = stack.enter_context(caddy(tmp_path, site, find_caddy("current")))
        yield f"ws://127.0.0.1:{port}"


def fuzzed(url: str, cases: list[str], folder: Path) -> dict[str, dict[str, str]]:
    """What became of each case."""
    wanted = {"outdir": str(folder / "reports"), "servers": [{"agent": "us", "url": url}], "cases": cases}
    (folder / "client.json").write_text(json.dumps({**wanted, "exclude-cases": [], "exclude-agent-cases": {}}))
    base = str(Path(CLIENT[-1]).parent.parent)
    done = subprocess.run(
        [*CLIENT, "-m", "fuzzingclient", "-s", str(folder / "client.json")],
        cwd=folder,
        env={**os.environ, "PYTHONUSERBASE": base, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, dict[str, str]] = json.loads((folder / "reports" / "index.json").read_text())["us"]
    return found


def test_no_case_fails(url: str, tmp_path: Path) -> None:
    cases = os.environ.get("CADDYSNAKE_WSTEST_CASES", "").split() or RULES + DEFLATE
    results = fuzzed(url, cases, tmp_path)
    assert results
    bad = {case: result for case, result in results.items() if not GOOD.issuperset(_verdicts(result))}
    assert not bad


def _verdicts(result: dict[str, str]) -> set[str]:
    return {result["behavior"], result["behaviorClose"]}
