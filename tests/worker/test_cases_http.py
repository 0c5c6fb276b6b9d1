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
