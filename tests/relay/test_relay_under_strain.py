"""Workers and clients that mean no good, or are slow: what they cost, and whom."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest
from support.relay import Relay, everything, get, ok, read_all, read_exactly, read_head, response, running

from caddysnake.channel import vitals
from caddysnake.channel.messages import Dump

ROOM_BYTES = 24 * 1024 * 1024
STREAM_BYTES = 200 * 1024 * 1024
PIECE = bytes(1024 * 1024)


def asked(relay: Relay, client: socket.socket) -> socket.socket:
    client.sendall(get())
    link = relay.link()
    read_head(link)
    return link


def memory(relay: Relay) -> int:
    return int(Path(f"/proc/{relay.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def works(relay: Relay) -> None:
    """Another client gets its answer."""
    with relay.connect() as other:
        link = asked(relay, other)
        link.sendall(ok(b"well"))
        assert response(other).read() == b"well"


def sending(sock: socket.socket, *pieces: bytes, times: int = 1, last: bytes = b"") -> threading.Thread:
    """Send the first of ``pieces``, the second so many times, then ``last``; as far as anybody takes them."""

    def send() -> None:
        with contextlib.suppress(OSError):
            for piece in (*pieces[:-1], *[pieces[-1]] * times, last):
                sock.sendall(piece)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


# Memory


def test_a_slow_reader_of_a_long_response_costs_no_memory(relay: Relay, client: socket.socket) -> None:
    link = asked(relay, client)
    link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % STREAM_BYTES)
    before = memory(relay)
    sender = sending(link, PIECE, times=STREAM_BYTES // len(PIECE))
    read_head(client)
    time.sleep(0.3)
    most = memory(relay) - before
    left = STREAM_BYTES
    while left:
        left -= len(client.recv(1024 * 1024))
        if left % 50 == 0:
            most = max(most, memory(relay) - before)
    sender.join()
    assert max(most, memory(relay) - before) < ROOM_BYTES
    client.sendall(get("/next"))
    assert read_head(link).startswith(b"GET /next ")


def test_a_slow_reader_of_a_long_request_costs_no_memory(relay: Relay, client: socket.socket) -> None:
    before = memory(relay)
    client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    pieces = STREAM_BYTES // 4 // len(PIECE)
    chunk = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
    sender = sending(client, chunk, times=pieces, last=b"0\r\n\r\n")
    link = relay.link()
    read_head(link)
    time.sleep(0.3)
    assert memory(relay) - before < ROOM_BYTES
    received = 0
    tail = b""
    while not tail.endswith(b"\r\n0\r\n\r\n"):
        data = link.recv(1024 * 1024)
        received += len(data)
        tail = (tail + data)[-7:]
    sender.join()
    assert received >= pieces * len(PIECE)
    assert memory(relay) - before < ROOM_BYTES
    link.sendall(ok())
    assert response(client).read() == b"ok"


def test_a_request_that_waits_for_its_link_costs_no_memory(relay: Relay, client: socket.socket) -> None:
    before = memory(relay)
    sender = sending(client, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n", bytes(50_000_000))
    need = relay.need()
    time.sleep(0.3)
    assert memory(relay) - before < ROOM_BYTES
    link = relay.link(need)
    read_head(link)
    left = 50_000_000
    while left:
        left -= len(link.recv(1024 * 1024))
    sender.join()
    link.sendall(ok())
    assert response(client).read() == b"ok"


def test_a_client_that_asks_and_never_listens_is_not_served_without_end() -> None:
    with running({"sites": [], "templates": {}, "variables": {}}) as relay, relay.connect() as client:
        before = memory(relay)
        client.settimeout(1.0)
        with pytest.raises(TimeoutError):
            client.sendall(get() * 1_000_000)  # it is not read any further
        assert memory(relay) - before < ROOM_BYTES


def test_tunnels_wait_for_slow_readers(relay: Relay, client: socket.socket) -> None:
    client.sendall(get(more="Connection: upgrade\r\nUpgrade: x\r\n"))
    link = relay.link()
    read_head(link)
    link.sendall(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
    read_head(client)
    before = memory(relay)
    size = 40 * len(PIECE)
    for source, sink in ((client, link), (link, client)):
        sender = sending(source, PIECE, times=40)
        time.sleep(0.2)
        assert memory(relay) - before < ROOM_BYTES
        left = size
        while left:
            left -= len(sink.recv(1024 * 1024))
        sender.join()


def test_unknown_hosts_leave_nothing_behind() -> None:
    table = everything() | {"templates": {"0": [["working_dir", "path", "/srv/{http.request.host}"]]}}
    with running(table) as relay, relay.connect() as client:
        before = 0
        for number in range(3000):
            client.sendall(get(host=f"h{number}.test"))
            relay.refuse(404, "no-such-app")
            answer = response(client)
            answer.read()
            assert answer.getheader("caddysnake-code") == "no-such-app"
            if number == 500:
                before = memory(relay)
        assert memory(relay) - before < 2 * 1024 * 1024
        relay.endpoint.send(Dump())
    assert b"<Links of 0 apps" in relay.errors


# Workers that lie


def test_a_head_that_never_ends_is_a_502(relay: Relay, client: socket.socket) -> None:
    link = asked(relay, client)
    before = memory(relay)
    line = b"x: " + b"y" * 60_000 + b"\r\n"
    sender = sending(link, b"HTTP/1.1 200 OK\r\n", line, times=500)
    answer = response(client)
    answer.read()
    assert (answer.status, answer.getheader("caddysnake-code")) == (502, "bad-response")
    sender.join()
    assert memory(relay) - before < ROOM_BYTES
    works(relay)


def test_trailers_that_never_end_cut_the_response(relay: Relay, client: socket.socket) -> None:
    link = asked(relay, client)
    link.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    sender = sending(link, b"x: " + b"y" * 1000 + b"\r\n", times=500)
    received = read_all(client)
    sender.join()
    assert received.endswith(b"1\r\na\r\n0\r\n")
    works(relay)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nset-cookie: a\nset-cookie: b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/0.9\r\n\r\n",
        b"\x00" * 100,
        os.urandom(1000),
    ],
)
def test_nonsense_is_a_502_and_costs_the_link(relay: Relay, client: socket.socket, raw: bytes) -> None:
    link = asked(relay, client)
    link.sendall(raw)
    answer = response(client)
    answer.read()
    assert (answer.status, answer.getheader("caddysnake-code")) == (502, "bad-response")
    with pytest.raises((ConnectionResetError, AssertionError)):
        read_head(link)
    works(relay)


def test_less_than_was_promised_is_never_a_whole_response(relay: Relay, client: socket.socket) -> None:
    link = asked(relay, client)
    link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 999)
    link.shutdown(socket.SHUT_WR)
    assert len(read_all(client)) == len(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n") + 999


def test_a_worker_that_answers_in_single_bytes_is_understood(relay: Relay, client: socket.socket) -> None:
    link = asked(relay, client)
    raw = b"HTTP/1.1 103 Hi\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"3\r\nabc\r\n0\r\nx: y\r\n\r\n"
    for at in range(len(raw)):
        link.sendall(raw[at : at + 1])
    assert read_exactly(client, len(raw)) == raw
    client.sendall(get("/next"))
    assert read_head(link).startswith(b"GET /next ")


def test_nonsense_does_not_fill_the_log() -> None:
    with running() as relay:
        for _ in range(50):
            with relay.connect() as client:
                asked(relay, client).sendall(b"nonsense\r\n\r\n")
                assert response(client).status == 502
    assert 1 <= relay.errors.count(b"bad-response") < 25


# Clients that are slow or many


def test_a_client_that_does_not_read_is_given_up() -> None:
    with running(write_timeout_s=0.2) as relay, relay.connect() as client:
        link = asked(relay, client)
        sender = sending(link, ok(bytes(5_000_000)))
        sender.join(30)
        assert not sender.is_alive()
        assert len(read_all(client)) < 5_000_000


def test_a_client_that_does_not_read_the_last_of_its_response_is_given_up() -> None:
    with running(write_timeout_s=0.2) as relay, relay.connect() as client:
        client.sendall(get(more="Connection: close\r\n"))
        link = relay.link()
        read_head(link)
        sending(link, ok(bytes(260_000))).join(30)  # a little more than the socket holds
        deadline = time.monotonic() + 30
        while relay.slot_state(0) != vitals.SLOT_CLOSED and time.monotonic() < deadline:
            time.sleep(0.02)
        assert relay.slot_state(0) == vitals.SLOT_CLOSED


def test_many_clients_share_what_links_there_are(relay: Relay) -> None:
    """Each client asks on, each answer names its request; clients come and go, links end now and then."""
    chance = random.Random(1)
    stop = threading.Event()
    workers: list[threading.Thread] = []

    def work(link: socket.socket, lives: int) -> None:
        for life in range(lives):
            try:
                head = read_head(link)
            except (AssertionError, OSError):
                return
            link.sendall(ok(head.split(b" ")[1], b"" if life + 1 < lives else b"connection: close\r\n"))

    def daemon() -> None:
        while not stop.is_set():
            try:
                need = relay.message(0.05)
            except TimeoutError:
                continue
            link = relay.link(need)  # type: ignore[arg-type]
            workers.append(threading.Thread(target=work, args=(link, chance.choice([1, 5, 1000]))))
            workers[-1].start()

    wrong: list[bytes] = []

    def ask(number: int) -> None:
        for turn in range(10):
            with relay_connect() as client:
                for step in range(5):
                    path = f"/{number}/{turn}/{step}"
                    client.sendall(get(path))
                    body = response(client).read()
                    if body != path.encode():
                        wrong.append(body)

    lock = threading.Lock()

    def relay_connect() -> socket.socket:
        with lock:
            return relay.connect()

    thread = threading.Thread(target=daemon)
    thread.start()
    clients = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for each in clients:
        each.start()
    for each in clients:
        each.join(60)
    stop.set()
    thread.join()
    relay.forget()
    for worker in workers:
        worker.join(30)
    assert wrong == []
