"""What a worker says on its page about a connection, on both servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import eventually
from support.probe import exchange, write
from support.worker import Worker, running, settings

from caddysnake.channel import vitals
from caddysnake.channel.messages import Drained, Returned, Shed


@pytest.fixture(params=["wsgi", "asgi"])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Worker]:
    write(tmp_path, "def one():\n    return 1\n")
    with running(settings(f"probe:{request.param}", request.param, tmp_path), interface=request.param) as worker:
        yield worker


def wait_for(worker: Worker, slot: int, state: int) -> None:
    eventually(lambda: worker.page.slots[slot] == state, f"state {state}")


def test_a_slot_tells_the_life_of_its_connection(worker: Worker) -> None:
    with worker.connect() as client:
        wait_for(worker, 0, vitals.SLOT_IDLE)
        client.sendall(b"GET / HT")
        wait_for(worker, 0, vitals.SLOT_READING)
        client.sendall(b"TP/1.1\r\nHost: test\r\n")
        client.sendall(b"\r\n")
        client.recv(1)
        client.recv(65536)
        exchange(client, "/one")
        wait_for(worker, 0, vitals.SLOT_IDLE)
    wait_for(worker, 0, vitals.SLOT_CLOSED)


def test_a_slot_given_back_says_so_until_the_daemon_frees_it(worker: Worker) -> None:
    """Closed, it might be given again while the message that names it is still on its way."""
    with worker.connect() as client:
        exchange(client, "/one")
        wait_for(worker, 0, vitals.SLOT_IDLE)
        worker.endpoint.send(Shed(1))
        assert worker.message() == Returned(0)
        assert worker.page.slots[0] == vitals.SLOT_RETURNED


def test_what_is_handed_over_to_a_worker_that_drains_comes_back_as_it_was(worker: Worker) -> None:
    with worker.connect() as busy:
        busy.sendall(b"GET /one HT")
        wait_for(worker, 0, vitals.SLOT_READING)
        worker.drain(5.0)
        with worker.connect() as client:
            client.sendall(b"GET /one HTTP/1.1\r\nHost: test\r\n\r\n")
            assert worker.message() == Returned(1)
            assert worker.page.slots[1] == vitals.SLOT_RETURNED
            assert len(worker.duplicate(1).recv(1000)) > 30
        busy.sendall(b"TP/1.1\r\nHost: test\r\n\r\n")
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert worker.message() == Returned(0)
        assert worker.message() == Drained()
