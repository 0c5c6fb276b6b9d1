"""Lines that an app prints while it answers a request of a trace have its trace id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.admin import command
from support.daemon import Process, UnixHTTPConnection, daemon, eventually

pytestmark = pytest.mark.system

APP = """
import asyncio, contextvars, logging, os, sys, threading

logging.basicConfig(format="%(levelname)s %(message)s")  # as apps do: it keeps sys.stderr
log = logging.getLogger("shop")

def tell(what):
    print(what, "printed")
    print(what, "in", "pieces", end="", flush=True)
    print(" of a line")
    sys.stdout.write(f"{what} one\\n{what} two\\n")
    try:
        raise LookupError(what)
    except LookupError:
        log.exception("%s failed", what)

async def later(what):
    await asyncio.sleep(0.01)
    tell(what)

def wsgi(environ, start_response):
    start_response("200 OK", [])
    what = environ["QUERY_STRING"]
    def answer():
        tell(what)
        if what == "raises":
            raise RuntimeError(what)
        yield b"ok"
    return answer()

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    what = scope["query_string"].decode()
    tell(what)
    await asyncio.gather(later(what + "-task"), asyncio.to_thread(tell, what + "-thread"))
    if what == "raises":
        raise RuntimeError(what)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
SITE = "unix/a.sock {{\n\tpython {{\n\t\tmodule_{kind} main:{kind}\n\t\tworkers 1\n\t\t{more}\n\t}}\n}}\n"
TRACES = {"first": "4bf92f3577b34da6a3ce929d0e0e4736", "second": "0af7651916cd43dd8448eb211c80319c", "third": ""}


def records(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.splitlines()]


@pytest.mark.parametrize("more", ["", "workers_runtime thread"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_what_is_printed_for_a_request_has_the_id_of_its_trace(tmp_path: Path, kind: str, more: str) -> None:
    (tmp_path / "main.py").write_text(APP)
    with daemon(tmp_path, SITE.format(kind=kind, more=more)) as process:
        kept = UnixHTTPConnection(tmp_path / "a.sock")
        for what, trace in {"plain": None, **TRACES, "raises": TRACES["first"]}.items():
            fields = {} if trace is None else {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
            kept.request("GET", f"/?{what}", headers=fields)
            kept.getresponse().read()
        kept.close()
        process.wait_for_log('"the app raised an exception"')
        eventually(lambda: process.log.count('"LookupError: ') == (15 if kind == "asgi" else 5), "all lines")
        said = [each for each in records(process) if each["logger"].startswith("app.std")]
        for what, trace in TRACES.items():
            its = [each for each in said if what in each["msg"]]
            lines = [each["msg"] for each in its if each["msg"].startswith(f"{what} ")]
            assert lines == [f"{what} printed", f"{what} in pieces of a line", f"{what} one", f"{what} two"]
            assert {each.get("traceID", "") for each in its} == {trace}, its
            assert len(its) == (18 if kind == "asgi" else 6)
        (raised,) = (each for each in records(process) if each["msg"] == "the app raised an exception")
        assert raised["traceID"] == TRACES["first"]
        assert "\x1e" not in process.log
        shown = command(process, tmp_path, "logs", "--grep", TRACES["second"], check=True).stdout
        assert "second printed" in shown
        assert "first printed" not in shown
