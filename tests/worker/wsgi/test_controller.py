"""The threaded server on its channel: taking, returning, draining, leaving, timers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import eventually
from support.rawhttp import RawClient
from support.worker import PATIENCE_S, Worker, running, settings

from caddysnake.channel import vitals
from caddysnake.channel.messages import Drained, Dump, Ready, Returned, Shed

HERE = Path(__file__).parent


def serving(**more: Any) -> Any:
    return running(settings("wsgi_apps:application", "wsgi", HERE, **{"threads": 2, **more}))


@pytest.fixture
def worker() -> Iterator[Worker]:
    with serving() as started:
        yield started


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True


def given(worker: Worker) -> tuple[RawClient, int]:
    client, server = socket.socketpair()
    client.settimeout(PATIENCE_S)
    return RawClient(client), worker.give(server)


def test_it_says_what_it_is_when_ready(worker: Worker) -> None:
    assert isinstance(worker.ready, Ready)
    assert worker.ready.detail.endswith("2 threads")


def test_the_slot_tells_the_state_of_its_connection(worker: Worker) -> None:
    slots = worker.page.slots
    client, slot = given(worker)
    with client:
        eventually(lambda: slots[slot] == vitals.SLOT_IDLE, "idle once taken")
        client.send(b"GET /waiting HT")
        eventually(lambda: slots[slot] == vitals.SLOT_READING, "reading")
        client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        with RawClient(worker.connect()) as other:
            time.sleep(0.05)
            assert slots[slot] == vitals.SLOT_READING
            other.get("/open_gate")
        client.answer()
        eventually(lambda: slots[slot] == vitals.SLOT_IDLE, "idle after the answer")
        client.send(b"GET /gated HTTP/1.1\r\nHost: a\r\n\r\n")
        client.head()
        assert slots[slot] == vitals.SLOT_HEAD_SENT
        with RawClient(worker.connect()) as other:
            other.get("/open_gate")
    eventually(lambda: slots[slot] == vitals.SLOT_CLOSED, "closed")


def test_requests_are_counted(worker: Worker) -> None:
    with RawClient(worker.connect()) as client:
        client.get("/plain")
        client.get("/raises")
        client.post("/echo", b"12345")
        client.get("/status", "X-Status: 404 Not Found")
    page = worker.page
    eventually(lambda: page.total(vitals.CELL_REQUESTS, 2) == 4, "four requests")
    assert page.total(vitals.CELL_ERRORS, 2) == 1
    assert page.total(vitals.CELL_CLASS_1XX + 1, 2) == 2
    assert page.total(vitals.CELL_CLASS_1XX + 3, 2) == 1
    assert page.total(vitals.CELL_CLASS_1XX + 4, 2) == 1
    assert page.total(vitals.CELL_BYTES_IN, 2) == 5
    assert page.total(vitals.CELL_BYTES_OUT, 2) > 10
    assert sum(page.total(vitals.CELL_LATENCY + i, 2) for i in range(12)) == 4
    assert page.total(vitals.CELL_STARTED, 2) == 0


def test_a_running_request_can_be_seen(worker: Worker) -> None:
    with RawClient(worker.connect()) as client, RawClient(worker.connect()) as other:
        client.send(b"GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: worker.page.total(vitals.CELL_STARTED, 2) > 0, "started")
        started = worker.page.total(vitals.CELL_STARTED, 2)
        assert abs(started - time.monotonic() * 1000) < PATIENCE_S * 1000
        other.get("/open_gate")
        client.answer()
        eventually(lambda: worker.page.total(vitals.CELL_STARTED, 2) == 0, "ended")


def test_an_end_reaches_the_client_whoever_holds_a_duplicate(worker: Worker) -> None:
    client, slot = given(worker)
    with client:
        client.get("/closes_connection")
        assert client.is_ended()
        assert worker.duplicate(slot).recv(10) == b""


def test_a_connection_that_cannot_be_taken_is_ended_and_the_others_are_served(worker: Worker) -> None:
    with RawClient(worker.connect()) as client:
        client.get("/fail_to_take")
        failed, slot = given(worker)
        with failed, RawClient(worker.connect()) as other:
            assert failed.is_ended()
            eventually(lambda: worker.page.slots[slot] == vitals.SLOT_CLOSED, "closed")
            assert other.get("/plain").body == client.get("/plain").body == b"plain"


# Giving back


def test_idle_connections_are_shed_and_stay_usable(worker: Worker) -> None:
    clients = [given(worker) for _ in range(3)]
    slots = worker.page.slots
    eventually(lambda: all(slots[slot] == vitals.SLOT_IDLE for _, slot in clients), "taken")
    worker.endpoint.send(Shed(2))
    returned = {message.slot for message in (worker.message(), worker.message()) if isinstance(message, Returned)}
    assert len(returned) == 2
    for client, slot in clients:
        with client:
            if slot in returned:
                assert slots[slot] == vitals.SLOT_RETURNED
                client.send(b"unread")
                assert worker.duplicate(slot).recv(10) == b"unread"
            else:
                assert client.get("/plain").body == b"plain"


def test_draining_gives_idle_connections_back_and_finishes_the_rest(worker: Worker) -> None:
    (idle, idle_slot), (busy, busy_slot), (half, half_slot) = given(worker), given(worker), given(worker)
    with idle, busy, half:
        idle.get("/plain")
        busy.send(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        busy.send(bytes(2_000_000))
        half.send(b"GET /plain HTTP/1.1\r\n")
        eventually(lambda: worker.page.slots[half_slot] == vitals.SLOT_READING, "half read")
        eventually(lambda: worker.page.total(vitals.CELL_STARTED, 2) > 0, "busy")
        worker.drain(20)
        assert worker.message() == Returned(idle_slot)
        half.send(b"Host: a\r\n\r\n")
        assert half.answer().body == b"plain"
        assert worker.message() == Returned(half_slot)
        late, late_slot = given(worker)
        with late:
            # What was handed over before the daemon's Drain arrived goes back untouched.
            assert worker.message() == Returned(late_slot)
        busy.send(bytes(1_000_000))
        assert busy.answer().body == b"3000000"
        assert worker.message() == Returned(busy_slot)
        assert worker.message() == Drained()


def test_a_drained_worker_says_so_and_ends(worker: Worker) -> None:
    client, slot = given(worker)
    with client:
        client.get("/plain")
        worker.drain()
        assert worker.message() == Returned(slot)
        assert worker.message() == Drained()
        eventually(lambda: gone(worker.pid), "the worker's end")


def test_a_request_in_flight_is_finished_and_its_connection_returned(worker: Worker) -> None:
    client, slot = given(worker)
    with client:
        client.send(b"GET /closing?0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().body == b"closed"
        worker.drain()
        assert worker.message() == Returned(slot)
        # close() of the response is still running: that too is finished.
        assert worker.message() == Drained()


def test_unread_bytes_stay_for_the_next_worker(worker: Worker) -> None:
    with serving() as successor:
        client, slot = given(worker)
        with client:
            client.get("/plain")
            worker.drain()
            assert worker.message() == Returned(slot)
            client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n")
            successor.give(worker.duplicate(slot).dup())
            assert client.answer().body == b"plain"


def stuck(worker: Worker, seconds: float, count: int = 2) -> list[RawClient]:
    clients = [given(worker)[0] for _ in range(count)]
    for client in clients:
        client.send(f"GET /closing?{seconds} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.answer().body == b"closed"
    return clients


def test_when_all_threads_are_stuck_what_has_a_request_goes_to_another_worker() -> None:
    with serving(workers=2) as worker:
        (early, early_slot), (late, late_slot), (idle, _) = given(worker), given(worker), given(worker)
        with early, late, idle:
            for client in (early, late, idle):
                client.get("/plain")
            holders = stuck(worker, 1.0)
            early.send(b"GET /plain HTTP/1.1\r\n")
            assert worker.message() == Returned(early_slot)
            late.send(b"GET /plain HTTP/1.1\r\n")
            assert worker.message() == Returned(late_slot)
            assert worker.duplicate(late_slot).recv(100) == b"GET /plain HTTP/1.1\r\n"
            new, new_slot = given(worker)
            with new:
                new.send(b"GET /plain HTTP/1.1\r\n")
                assert worker.message() == Returned(new_slot)
            # Without a request on it nothing is gained by giving it back, so it is still here when threads are free.
            eventually(lambda: worker.page.total(vitals.CELL_STARTED, 2) == 0, "the end of what was stuck")
            assert idle.get("/plain").body == b"plain"
            for holder in holders:
                with holder:
                    assert holder.get("/plain").body == b"plain"


def test_half_read_requests_stay_with_threads_that_are_stuck() -> None:
    with serving(workers=2) as worker:
        half, _ = given(worker)
        with half:
            half.send(b"GET /plain HTTP/1.1\r\n")
            time.sleep(0.1)
            holders = stuck(worker, 0.5)
            time.sleep(0.2)
            half.send(b"Host: a\r\n\r\n")
            assert half.answer().body == b"plain"
            for holder in holders:
                holder.close()


def test_busy_threads_that_move_on_keep_their_connections() -> None:
    with serving(workers=2) as worker:
        clients = [RawClient(worker.connect()) for _ in range(12)]
        deadline = time.monotonic() + 0.6
        while time.monotonic() < deadline:
            for client in clients:
                client.send(b"GET /closing?0.01 HTTP/1.1\r\nHost: a\r\n\r\n")
            for client in clients:
                assert client.answer().body == b"closed"
        with pytest.raises(TimeoutError):
            worker.message(0.05)
        for client in clients:
            client.close()


def test_a_worker_alone_keeps_them(worker: Worker) -> None:
    with RawClient(worker.connect()) as idle, RawClient(worker.connect()) as one, RawClient(worker.connect()) as two:
        idle.get("/plain")
        for client in (one, two):
            client.send(b"GET /closing?0.4 HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        with pytest.raises(TimeoutError):
            worker.message(0.1)
        assert idle.get("/plain").body == b"plain"


# The daemon's end


def test_without_the_daemon_held_requests_are_answered_and_idle_connections_end() -> None:
    with serving() as worker:
        idle, busy = RawClient(worker.connect()), RawClient(worker.connect())
        with idle, busy:
            idle.get("/plain")
            busy.send(b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
            time.sleep(0.1)
            worker.endpoint.close()
            assert idle.is_ended()
            busy.send(bytes(3_000_000))
            answer = busy.answer()
            assert answer.body == b"3000000"
            assert busy.is_ended()
            eventually(lambda: gone(worker.pid), "the worker's end")


# Timers


def test_a_head_that_takes_too_long_is_answered_408() -> None:
    with serving(head_timeout_s=0.3) as worker, RawClient(worker.connect()) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        time.sleep(0.1)
        client.send(b"Host: a\r\n")
        answer = client.answer()
        assert answer.status == 408
        assert answer.header("connection") == "close"
        assert client.is_ended()


def test_the_time_for_a_head_begins_with_that_head() -> None:
    with serving(head_timeout_s=2.0) as worker, RawClient(worker.connect()) as client:
        client.send(b"GET /plain HTT")
        time.sleep(0.1)
        client.send(b"P/1.1\r\nHost: a\r\n\r\n")
        client.answer()
        time.sleep(1.5)
        client.send(b"GET /generator HTTP/1.1\r\nHost: a\r\n\r\nGET /plain HTT")
        assert client.answer().body == b"onetwo"
        time.sleep(0.7)
        client.send(b"P/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().body == b"plain"


def test_an_idle_connection_is_never_ended(worker: Worker) -> None:
    with serving(head_timeout_s=0.2, body_timeout_s=0.2) as hasty, RawClient(hasty.connect()) as client:
        client.get("/plain")
        assert client.is_quiet(1.0)
        assert client.get("/plain").body == b"plain"


@pytest.mark.parametrize("path", ["/echo", "/nested"])
def test_content_that_stops_coming_is_answered_408(path: str) -> None:
    with serving(body_timeout_s=0.5) as worker, RawClient(worker.connect()) as client:
        client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf".encode())
        answer = client.answer()
        assert answer.status == 408
        assert client.is_ended()


def test_content_that_an_app_did_not_want_is_not_waited_for_longer() -> None:
    with serving(body_timeout_s=0.5) as worker, RawClient(worker.connect()) as client:
        client.send(b"POST /refuses HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n")
        assert client.answer().status == 413
        assert client.is_ended()


def test_a_reader_who_takes_nothing_is_given_up() -> None:
    with serving(write_timeout_s=0.5) as worker, RawClient(worker.connect()) as client:
        for path in ("large?8", "large_generator?8", "file?800000"):
            with RawClient(worker.connect()) as slow:
                slow.send(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                time.sleep(1.2)
                assert not slow.answer().whole
        assert client.get("/plain").body == b"plain"


def test_slow_readers_of_finished_responses_hold_no_thread() -> None:
    with serving(threads=1) as worker, RawClient(worker.connect()) as client:
        slow = [RawClient(worker.connect()) for _ in range(6)]
        paths = ["/large?4", "/file?400000", "/file?400000"] * 2
        for reader, path in zip(slow, paths, strict=True):
            reader.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.get("/plain").body == b"plain"
        for reader, path in zip(slow, paths, strict=True):
            with reader:
                answer = reader.answer()
                assert answer.whole
                assert len(answer.body) == (4 << 20 if "large" in path else 4_000_000)
                assert reader.get("/plain").body == b"plain"


def test_slow_uploads_hold_no_thread() -> None:
    with serving(threads=1) as worker, RawClient(worker.connect()) as client:
        slow = [RawClient(worker.connect()) for _ in range(4)]
        for sender in slow:
            sender.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
        # One of them may have been let in for its patience; the others must not be.
        for sender in slow:
            sender.send(b"half")
        assert client.get("/plain").body == b"plain"
        for sender in slow:
            with sender:
                assert sender.answer().body == b"halfhalf"


def test_the_stacks_of_all_threads_can_be_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as worker, RawClient(worker.connect()) as client:
        client.send(b"GET /closing?10 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.answer()
        log = ""
        deadline = time.monotonic() + 10
        while "in close" not in log and time.monotonic() < deadline:  # it begins behind the answer's end
            worker.endpoint.send(Dump())
            time.sleep(0.1)
            log += capfd.readouterr().err
        client.get("/plain")
    log += capfd.readouterr().err
    assert "in close" in log
    assert "wsgi/controller.py" in log
