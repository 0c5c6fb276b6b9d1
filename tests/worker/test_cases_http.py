"""The table of raw requests, against both servers, however the bytes are cut into packets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rawhttp import RawClient
from support.worker import Worker, running, settings
from worker.cases_http import CASES, SETTINGS, Case

HERE = Path(__file__).parent
LONG = 4000
"""Bytes beyond which a case is not sent one by one."""


TALKING = """
from _caddysnake.aio import early_answers

early_answers.IDLE_S = early_answers.TOTAL_S = early_answers.END_S = 3600.0

async def asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ready", "more_body": True})
    content, more = b"", True
    while more:
        message = await receive()
        content, more = content + message["body"], message["more_body"]
    await send({"type": "http.response.body", "body": content})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    yield b"ready"
    yield environ["wsgi.input"].read()
"""
"""Answers to a request that has only begun, in a worker where such an answer waits for an hour."""


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    wanted = settings(f"cases_app:{request.param}", request.param, HERE, lifespan="off", threads=2, **SETTINGS)
    with running(wanted) as started:
        yield started


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "bytewise"])
def test_raw_bytes(worker: Worker, case: Case, piecewise: bool) -> None:
    if piecewise and len(case.data) > LONG:
        piecewise = False
    # Not trusted, so that an Expect is answered.
    with RawClient(worker.connect(flags=0)) as client:
        give(client, case.data, piecewise)
        statuses = []
        bodies = []
        while len(statuses) < len(case.statuses):
            answer = client.answer()
            if answer.status == 100:
                continue
            statuses.append(answer.status)
            bodies.append(answer.body)
            assert answer.whole
        assert tuple(statuses) == case.statuses
        if case.bodies:
            assert tuple(bodies) == case.bodies
        if case.ends:
            assert client.is_ended()
        elif case.statuses:
            assert client.get("/after").body == b"GET /after - "
        else:
            assert client.is_quiet()
            client.sock.shutdown(socket.SHUT_WR)
            assert client.is_ended()
    worker.drop_duplicates()


def give(client: RawClient, data: bytes, piecewise: bool) -> None:
    try:
        if not piecewise:
            client.send(data)
            return
        for at in range(len(data)):
            client.send(data[at : at + 1])
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before the end, which the answer will say


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("via", ["2.0", "3.0"])
def test_over_http_2_and_3_an_answer_does_not_wait_for_content_without_a_length(
    tmp_path: Path, kind: str, via: str
) -> None:
    (tmp_path / "talking.py").write_text(TALKING)
    fields = f"Host: a\r\nTransfer-Encoding: chunked\r\nVia: 1.1 first, 1.1 second\r\nVia: {via} Caddy\r\n\r\n"
    with (
        running(settings(f"talking:{kind}", kind, tmp_path, lifespan="off")) as worker,
        RawClient(worker.connect()) as client,
    ):
        client.send(f"POST / HTTP/1.1\r\n{fields}3\r\none\r\n".encode())
        assert client.head()[0] == 200
        assert client.exactly(10) == b"5\r\nready\r\n"
        client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        assert client.exactly(16) == b"6\r\nonetwo\r\n0\r\n\r\n"
