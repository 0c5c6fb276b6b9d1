"""How a relay gives connections back, drains, and outlives the daemon."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time

from support.relay import Relay, get, ok, read_all, read_exactly, read_head, response, running

from caddysnake.channel import vitals
from caddysnake.channel.messages import (
    TAKE_BORROWED,
    TAKE_TRUSTED,
    Drained,
    Dump,
    Message,
    Returned,
    Shed,
)

BORROWED = TAKE_TRUSTED | TAKE_BORROWED


def returned(relay: Relay, slot: int) -> socket.socket:
    """The daemon's duplicate of a connection that has just been given back."""
    assert relay.message() == Returned(slot)
    assert relay.slot_state(slot) == vitals.SLOT_RETURNED
    return relay.duplicate(slot)


def still_works(client: socket.socket, duplicate: socket.socket) -> None:
    client.sendall(b"ping")
    assert duplicate.recv(4) == b"ping"
    duplicate.sendall(b"pong")
    assert client.recv(4) == b"pong"


def until(relay: Relay, kind: type) -> Message:
    while not isinstance(message := relay.message(), kind):
        pass
    return message


def test_a_borrowed_connection_goes_back_after_an_answer() -> None:
    with running() as relay, relay.connect(BORROWED) as client:
        client.sendall(get())
        relay.refuse(503, "starting", 1)
        answer = response(client)
        answer.read()
        assert answer.status == 503
        still_works(client, returned(relay, relay.last_slot))


def test_a_borrowed_connection_goes_back_after_a_request() -> None:
    with running() as relay, relay.connect(BORROWED) as client:
        client.sendall(get())
        relay.link().sendall(ok())
        assert response(client).read() == b"ok"
        still_works(client, returned(relay, relay.last_slot))


def test_a_borrowed_connection_with_more_requests_is_served_first() -> None:
    with running() as relay, relay.connect(BORROWED) as client:
        client.sendall(get("/1") + get("/2"))
        for _ in range(2):
            relay.refuse(503, "starting", 1)
            answer = response(client)
            answer.read()
            assert answer.status == 503
        still_works(client, returned(relay, relay.last_slot))


def test_a_borrowed_connection_whose_client_closes_ends_here() -> None:
    with running() as relay, relay.connect(BORROWED) as client:
        client.sendall(get(more="Connection: close\r\n"))
        relay.refuse(503, "starting", 1)
        assert b"connection: close" in read_all(client)


def test_drained_idle_connections_go_back_at_once_and_busy_ones_after_their_request() -> None:
    with running() as relay, relay.connect() as idle, relay.connect() as busy, relay.connect() as waiting:
        busy.sendall(get())
        link = relay.link()
        read_head(link)
        waiting.sendall(get())
        relay.need()
        relay.drain(30)
        still_works(idle, returned(relay, 0))
        link.sendall(ok(b"finished"))
        assert response(busy).read() == b"finished"
        still_works(busy, returned(relay, 1))
        read_head(link)
        link.sendall(ok(b"waited"))
        assert response(waiting).read() == b"waited"
        still_works(waiting, returned(relay, 2))
        assert relay.message() == Drained()
        assert relay.process.wait(30) == 0
        assert read_all(link) == b""


def test_what_comes_while_draining_goes_back_untouched() -> None:
    with running() as relay, relay.connect() as busy:
        busy.sendall(get())
        link = relay.link()
        read_head(link)
        relay.drain(30)
        late = relay.connect()
        with late:
            late.sendall(b"ping")
            duplicate = returned(relay, 1)
            assert duplicate.recv(4) == b"ping"
        link.sendall(ok())
        assert response(busy).read() == b"ok"
        until(relay, Drained)


def test_a_head_that_has_begun_is_finished_before_the_connection_goes_back() -> None:
    with running() as relay, relay.connect() as client:
        client.sendall(get()[:-2])
        while relay.slot_state(0) != vitals.SLOT_READING:
            time.sleep(0.01)
        relay.drain(30)
        client.sendall(b"\r\n")
        relay.link().sendall(ok())
        assert response(client).read() == b"ok"
        still_works(client, returned(relay, 0))
        assert relay.message() == Drained()


def test_a_tunnel_outlives_the_grace_unless_told_twice() -> None:
    with running() as relay, relay.connect() as client:
        client.sendall(get(more="Connection: upgrade\r\nUpgrade: x\r\n"))
        link = relay.link()
        read_head(link)
        link.sendall(b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        read_head(client)
        relay.drain(0.3)
        time.sleep(0.6)
        link.sendall(b"still open")
        assert read_exactly(client, 10) == b"still open"
        relay.drain(0.3)
        assert read_all(client) == b""
        with contextlib.suppress(ConnectionResetError):
            assert read_all(link) == b""
        assert relay.message() == Drained()
        assert relay.slot_state(0) == vitals.SLOT_CLOSED
        assert relay.process.wait(30) == 0


def test_a_busy_relay_sheds_what_is_idle() -> None:
    with running() as relay, relay.connect(), relay.connect():
        relay.endpoint.send(Shed(1))
        returned(relay, 0)
        assert relay.slot_state(1) == vitals.SLOT_IDLE


def test_an_end_is_seen_although_the_daemon_holds_a_duplicate() -> None:
    with running() as relay, relay.connect() as client:
        client.sendall(get(more="Connection: close\r\n"))
        relay.link().sendall(ok())
        assert read_all(client).endswith(b"ok")
        while relay.slot_state(0) != vitals.SLOT_CLOSED:
            time.sleep(0.01)


def test_without_a_daemon_everybody_gets_an_answer_and_it_leaves() -> None:
    with running() as relay, relay.connect() as idle, relay.connect() as busy, relay.connect() as waiting:
        busy.sendall(get())
        link = relay.link()
        read_head(link)
        waiting.sendall(get())
        relay.need()
        relay.endpoint.close()
        assert read_all(idle) == b""
        answer = response(waiting)
        answer.read()
        assert (answer.status, answer.getheader("caddysnake-code")) == (503, "stopping")
        assert answer.getheader("connection") == "close"
        link.sendall(ok(b"finished"))
        finished = response(busy)
        assert finished.read() == b"finished"
        assert finished.getheader("connection") == "close"
        assert read_all(busy) == b""
        assert relay.process.wait(30) == 0


def test_a_dump_says_what_it_is_doing() -> None:
    with running() as relay:
        relay.endpoint.send(Dump())
        relay.drain()
        until(relay, Drained)
    assert b"<Links of 0 apps" in relay.errors


def test_it_imports_nothing_of_an_app_s_world() -> None:
    code = "import caddysnake.relay.main, sys; print(' '.join(sys.modules))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name.split(".")[1] for name in names if name.startswith("caddysnake.") and name.count(".") > 1}
    assert ours <= {"relay", "aio", "channel", "http1", "libraries", "matchers", "placeholders", "caddyfile"}
    assert not {"pydantic", "orjson", "websockets"} & set(names)
