"""The table of raw requests, through a relay: it judges a request as the worker behind it would."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support import relay as relays
from support import worker as workers
from support.rawhttp import RawClient
from worker.cases_http import CASES, SETTINGS, Case

from caddysnake.channel.messages import TAKE_LINK, TAKE_TRUSTED, Need, Unneed

HERE = Path(__file__).parent.parent / "worker"


class Way(NamedTuple):
    worker: workers.Worker
    relay: relays.Relay


@pytest.fixture(scope="module")
def way() -> Iterator[Way]:
    """A relay before a worker, and someone in the daemon's place who gives it the links it needs."""
    wanted = workers.settings("cases_app:asgi", "asgi", HERE, lifespan="off", **SETTINGS)
    stop = threading.Event()
    with workers.running(wanted) as worker, relays.running() as relay:

        def daemon() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    message = relay.message(0.05)
                    assert isinstance(message, (Need, Unneed))
                    if isinstance(message, Need):
                        worker.give(relay.link(message), TAKE_TRUSTED | TAKE_LINK)

        thread = threading.Thread(target=daemon)
        thread.start()
        try:
            yield Way(worker, relay)
        finally:
            stop.set()
            thread.join()
            relay.forget()


@pytest.fixture(autouse=True)
def forgetting(way: Way) -> Iterator[None]:
    """Nothing of a case is left for the next."""
    yield
    way.worker.drop_duplicates()
    for kept in way.relay.take_kept():
        kept.close()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_raw_bytes(way: Way, case: Case) -> None:
    # Not trusted, so that an Expect is answered.
    with RawClient(way.relay.connect(flags=0)) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before the end
            client.send(case.data)
        answers = []
        while len(answers) < len(case.statuses):
            answer = client.answer()
            if answer.status != 100:
                assert answer.whole
                answers.append(answer)
        assert tuple(answer.status for answer in answers) == case.statuses
        if case.bodies:
            assert tuple(answer.body for answer in answers) == case.bodies
        if case.ends:
            assert client.is_ended()
        elif case.statuses:
            assert client.get("/after").body == b"GET /after - "
        else:
            assert client.is_quiet()
            client.sock.shutdown(socket.SHUT_WR)
            assert client.is_ended()
