"""``slow_request``: requests that take long are told of; and the trace that a request belongs to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Process, daemon, eventually, get

pytestmark = pytest.mark.system

APP = """
import asyncio, time

def query_database():
    time.sleep(1.5)

async def await_others():
    await asyncio.sleep(1.5)

class Rows:
    def __iter__(self):
        time.sleep(1.5)
        yield b"ok"
    def close(self):
        print("closed")

def wsgi(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/cart":
        query_database()
    if environ["PATH_INFO"] == "/rows":
        return Rows()
    if environ["PATH_INFO"] == "/fails":
        raise LookupError
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    if scope["path"] == "/cart":
        query_database()
    if scope["path"] == "/rows":
        await await_others()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
SITE = """unix/a.sock {{
	python {{
		module_{kind} main:{kind}
		workers 1
		slow_request 1s
		{more}
		log
	}}
}}
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def records(process: Process, text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.splitlines() if text in line]


@pytest.mark.parametrize("more", ["", "workers_runtime thread"])
@pytest.mark.parametrize(("kind", "place"), [("wsgi", "Rows.__iter__|__iter__"), ("asgi", "await_others")])
def test_a_slow_request_is_told_of_while_it_runs_and_at_its_end(
    tmp_path: Path, kind: str, place: str, more: str
) -> None:
    (tmp_path / "main.py").write_text(APP)
    with daemon(tmp_path, SITE.format(kind=kind, more=more)) as process:
        get("/quick", path=tmp_path / "a.sock")
        parent = f"00-{TRACE}-00f067aa0ba902b7-01"
        get("/cart?card=4111", path=tmp_path / "a.sock", traceparent=parent)
        eventually(lambda: len(records(process, '"slow request')) == 2, "two records")
        standing, ended = records(process, '"slow request')
        assert (standing["level"], standing["path"], standing["method"]) == ("warn", "/cart", "GET")
        assert re.match(r"slow request: GET /cart has taken \d", standing["msg"])
        assert standing["msg"].endswith(" in query_database")
        assert [line.rpartition(" ")[2] for line in standing["error"].splitlines()] == ["query_database", kind]
        assert re.match(r"slow request: GET /cart took \d", ended["msg"])
        assert 1.5 <= ended["duration"] < 60
        assert standing["traceID"] == ended["traceID"] == TRACE
        assert standing["app"] == f"main:{kind}"

        get("/rows", path=tmp_path / "a.sock", traceparent="00-nonsense")
        eventually(lambda: len(records(process, '"slow request')) == 4, "two more")
        standing, ended = records(process, '"slow request')[2:]
        assert standing["msg"].rpartition(" ")[2] in place.split("|")
        assert "traceID" not in standing
        assert "4111" not in "".join(str(each) for each in records(process, '"slow request'))
        eventually(lambda: '"uri":"/rows"' in process.log, "its access record")
        handled = {each["request"]["uri"]: each for each in records(process, '"handled request"')}
        assert handled["/cart?card=4111"]["traceID"] == TRACE
        assert "traceID" not in handled["/rows"]


def test_not_more_is_told_than_somebody_can_read(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    text = SITE.format(kind="wsgi", more="threads 4").replace("1s", "1us")
    with daemon(tmp_path, text) as process:
        for _ in range(60):
            get("/quick", path=tmp_path / "a.sock")
        assert 0 < len(records(process, '"slow request')) < 60
        eventually(
            lambda: get("/quick", path=tmp_path / "a.sock") and '"not_told"' in process.log, "how many were not told"
        )
