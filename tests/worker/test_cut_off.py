"""The end of a generation is orderly: what it still does when its time is over, and what the log says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.house import House, run, spec, until

SOURCE = """
import asyncio, atexit, pathlib, time
HERE = pathlib.Path(__file__).parent

def note(what):
    with (HERE / "order").open("a") as file:
        file.write(what + " ")

atexit.register(note, "atexit")

def wsgi(environ, start):
    note("begun")
    time.sleep(1.5)
    start("200 OK", [])
    return [b""]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            what = (await receive())["type"]
            if what == "lifespan.shutdown":
                note("shutdown")
            await send({"type": what + ".complete"})
            if what == "lifespan.shutdown":
                return
    note("begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    finally:
        await asyncio.sleep(0.05)
        note("finally")
"""


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_what_is_cut_is_named_in_the_log_and_the_app_ends_in_order(
    tmp_path: Path, interface: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow.py").write_text(SOURCE)
    order = tmp_path / "order"

    async def work() -> None:
        async with House() as house:
            app = await house.started(spec(f"slow:{interface}", interface, tmp_path, grace_s=0.3))
            client = house.connect(app)
            client.sendall(b"GET /report?token=secret HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: order.exists() and "begun" in order.read_text(), "the request")
            app.stop()
            await until(lambda: not app.pool.workers, "its end")

    run(work())
    line = next(line for line in capfd.readouterr().err.splitlines() if "the grace period is over" in line)
    assert "GET /report" in line
    assert "secret" not in line
    expected = ["begun", "cancelled", "finally", "shutdown", "atexit"] if interface == "asgi" else ["begun", "atexit"]
    assert order.read_text().split() == expected
