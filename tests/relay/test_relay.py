"""A real relay process between real sockets: what clients and workers see of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from support.daemon import eventually
from support.relay import (
    Relay,
    everything,
    get,
    ok,
    read_all,
    read_exactly,
    read_head,
    read_until,
    response,
    running,
    sites,
)

from caddysnake.aio.early_answers import STALL_S, unread_bytes
from caddysnake.channel import vitals
from caddysnake.channel.messages import TAKE_TRUSTED, Unneed

POST = b"POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


def linked(relay: Relay, client: socket.socket) -> socket.socket:
    """A link that has served one request of ``client``, and is idle."""
    client.sendall(get("/first"))
    link = relay.link()
    read_head(link)
    link.sendall(ok())
    assert response(client).read() == b"ok"
    return link


def is_at_end(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


# Requests and their apps


def test_requests_of_one_connection_go_to_different_apps() -> None:
    with running(sites("a.test", "b.test")) as relay, relay.connect() as client:
        workers = {}
        for host, route in (("a.test", 0), ("b.test", 1)):
            client.sendall(get("/x", host))
            need = relay.need()
            assert (need.route, need.key) == (route, "")
            workers[host] = relay.link(need)
            assert read_head(workers[host]).startswith(b"GET /x HTTP/1.1\r\nHost: " + host.encode())
            workers[host].sendall(ok(host.encode()))
            assert response(client).read() == host.encode()
        for host in ("b.test", "a.test", "b.test"):
            client.sendall(get("/again", host))
            assert read_head(workers[host]).startswith(b"GET /again ")
            workers[host].sendall(ok())
            assert response(client).read() == b"ok"


def test_each_listener_has_its_own_routes() -> None:
    with running(everything(3), everything(7)) as relay:
        for listener, route in ((0, 3), (1, 7)):
            with relay.connect(listener=listener) as client:
                client.sendall(get())
                need = relay.need()
                assert need.route == route
                relay.link(need).sendall(ok())
                assert response(client).read() == b"ok"


def test_no_app_is_a_404_and_the_connection_stays() -> None:
    with running(sites("a.test")) as relay, relay.connect() as client:
        for _ in range(2):
            client.sendall(get("/", "nobody.test"))
            answer = response(client)
            answer.read()
            assert (answer.status, answer.getheader("caddysnake-code")) == (404, "no-route")
        client.sendall(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\nhe")
        assert response(client).status == 404
        client.sendall(b"llo" + get("/", "a.test"))
        relay.link().sendall(ok())
        client.recv(10)  # the rest of the 404


def test_what_an_app_cannot_give_is_answered_as_the_daemon_says(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    relay.refuse(503, "starting", 3, "soon")
    answer = response(client)
    assert answer.read() == b"Service Unavailable: soon\n"
    assert (answer.status, answer.getheader("caddysnake-code"), answer.getheader("retry-after")) == (
        503,
        "starting",
        "3",
    )
    assert linked(relay, client)


def test_more_than_may_wait_are_turned_away_at_once() -> None:
    with running(max_needs=1) as relay, relay.connect() as first, relay.connect() as second:
        first.sendall(get())
        need = relay.need()
        second.sendall(get())
        answer = response(second)
        answer.read()
        assert (answer.status, answer.getheader("caddysnake-code")) == (503, "queue-full")
        relay.link(need).sendall(ok())
        assert response(first).read() == b"ok"


def test_a_freed_link_serves_who_waits(relay: Relay) -> None:
    with relay.connect() as first, relay.connect() as second:
        first.sendall(get("/1"))
        link = relay.link()
        read_head(link)
        second.sendall(get("/2"))
        relay.need()
        link.sendall(ok(b"one"))
        assert response(first).read() == b"one"
        assert read_head(link).startswith(b"GET /2 ")
        link.sendall(ok(b"two"))
        assert response(second).read() == b"two"


def test_who_leaves_is_not_waited_for(relay: Relay) -> None:
    with relay.connect() as client:
        client.sendall(get())
        need = relay.need()
    assert relay.message() == Unneed(need.need)
    assert is_at_end(relay.link(need))  # on its way when nobody wanted it any more


def test_who_leaves_within_its_content_is_not_waited_for(relay: Relay) -> None:
    with relay.connect() as client:
        client.sendall(POST + b"he")
        need = relay.need()
        client.shutdown(socket.SHUT_WR)
        assert relay.message() == Unneed(need.need)
        assert is_at_end(client)


def test_who_breaks_a_rule_while_waiting_is_not_waited_for(relay: Relay, client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    need = relay.need()
    client.sendall(b"zz\r\n")
    assert relay.message() == Unneed(need.need)
    answer = response(client)
    answer.read()
    assert answer.status == 400


def test_who_only_stops_writing_still_gets_what_it_waits_for(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    need = relay.need()
    client.shutdown(socket.SHUT_WR)
    link = relay.link(need)
    assert read_head(link)
    link.sendall(ok())
    assert read_all(client).endswith(b"ok")


def test_a_value_that_must_not_be_used_is_a_404_and_one_line_in_the_log() -> None:
    table = everything() | {"templates": {"0": [["working_dir", "path", "/srv/{http.request.host}"]]}}
    with running(table) as relay, relay.connect() as client:
        for _ in range(5):
            client.sendall(get(host=".."))
            answer = response(client)
            answer.read()
            assert (answer.status, answer.getheader("caddysnake-code")) == (404, "no-route")
        client.sendall(get(host="blog"))
        need = relay.need()
        assert (need.route, need.key) != (0, "")
        relay.link(need).sendall(ok())
    assert relay.errors.count(b"404: ") == 1


def test_a_listener_without_routes_is_a_500() -> None:
    with running() as relay, relay.connect(listener=5) as client:
        client.sendall(get())
        answer = response(client)
        answer.read()
        assert (answer.status, answer.getheader("caddysnake-code")) == (500, "routing")
    assert b"looking for the app failed" in relay.errors


# Content, both ways


def test_content_goes_on_as_it_comes(relay: Relay, client: socket.socket) -> None:
    client.sendall(POST + b"he")
    link = relay.link()
    assert read_head(link) == POST
    assert read_until(link, b"he") == b"he"
    client.sendall(b"llo")
    assert read_until(link, b"llo") == b"llo"
    link.sendall(ok())
    assert response(client).read() == b"ok"


def test_chunks_go_on_as_they_come(relay: Relay, client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n")
    link = relay.link()
    assert read_head(link).endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert read_until(link, b"abc\r\n") == b"3\r\nabc\r\n"
    client.sendall(b"0\r\nTrailer: dropped\r\n\r\n")
    assert read_until(link, b"\r\n\r\n") == b"0\r\n\r\n"
    link.sendall(ok())
    assert response(client).read() == b"ok"


def test_a_response_streams(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    link = relay.link()
    link.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert read_head(client).startswith(b"HTTP/1.1 200 OK")
    for piece in (b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\nx-sum: 6\r\n\r\n"):
        link.sendall(piece)
        assert read_until(client, piece[-6:]) == piece
    client.sendall(get())
    assert read_head(link)


def test_hints_come_before_their_response(relay: Relay, client: socket.socket) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
    client.sendall(get())
    link = relay.link()
    link.sendall(hint)
    assert read_head(client) == hint
    link.sendall(ok())
    assert response(client).read() == b"ok"


def test_an_early_answer_arrives_and_the_rest_of_the_request_is_dropped(relay: Relay, client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
    link = relay.link()
    read_head(link)
    link.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
    answer = response(client)
    assert (answer.status, answer.read()) == (413, b"no")
    client.sendall(b"x" * 999_000)
    client.sendall(get("/next"))
    other = relay.link()
    assert read_head(other).startswith(b"GET /next ")
    other.sendall(ok())
    assert response(client).read() == b"ok"
    read_all(link)


def test_requests_that_come_at_once_are_answered_one_after_the_other(relay: Relay, client: socket.socket) -> None:
    client.sendall(get("/1") + POST + b"hello" + get("/3"))
    link = relay.link()
    for path, body in ((b"/1", b""), (b"/p", b"hello"), (b"/3", b"")):
        assert read_head(link).split(b" ")[1] == path
        assert link.recv(len(body)) == body if body else True
        link.sendall(ok(path))
        assert response(client).read() == path


def test_thousands_of_requests_that_come_at_once_end() -> None:
    with running(sites("a.test")) as relay, relay.connect() as client:
        requests = get("/", "b") * 5000
        thread = threading.Thread(target=client.sendall, args=(requests,))
        thread.start()
        received = b""
        while received.count(b"\nNot Found\n") < 5000:
            received += client.recv(1 << 20)
        thread.join()


def test_the_rest_of_a_request_waits_until_its_early_answer_is_read(relay: Relay) -> None:
    """Go's transport cuts an answer that it has not read when it finds that its request was too short."""
    for _ in range(20):
        with relay.connect() as client:
            client.sendall(POST)
            link = relay.link()
            read_head(link)
            began = time.monotonic()
            link.sendall(ok(b"no"))
            eventually(lambda: select.select([client], [], [], 0)[0], "the answer")
            client.sendall(b"12345")
            time.sleep(0.05)
            is_held = unread_bytes(client) > 0
            if is_in_time := time.monotonic() - began < STALL_S:
                assert is_held
            assert response(client).read() == b"no"
            eventually(lambda: not unread_bytes(client), "the rest to be read")
            client.sendall(get("/second"))
            link = relay.link()
            read_head(link)
            link.sendall(ok())
            assert response(client).read() == b"ok"
        if is_in_time:
            return
    pytest.fail("no client's answer came within a second")


def test_a_large_upload_and_a_large_download_arrive_whole(relay: Relay, client: socket.socket) -> None:
    data = os.urandom(1_000_003)
    client_thread = threading.Thread(
        target=client.sendall, args=(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data) + data,)
    )
    client_thread.start()
    link = relay.link()
    read_head(link)
    received = b""
    while len(received) < len(data):
        received += link.recv(65536)
    client_thread.join()
    assert received == data
    worker_thread = threading.Thread(target=link.sendall, args=(ok(data),))
    worker_thread.start()
    assert response(client).read() == data
    worker_thread.join()


# Ends


def test_a_get_survives_the_worker_it_was_sent_to(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    link = relay.link()
    read_head(link)
    link.close()
    other = relay.link()
    assert read_head(other).startswith(b"GET / ")
    other.sendall(ok())
    assert response(client).read() == b"ok"


def test_a_request_that_ends_two_workers_is_not_given_to_a_third(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    for _ in range(2):
        link = relay.link()
        read_head(link)
        link.close()
    answer = response(client)
    answer.read()
    assert (answer.status, answer.getheader("caddysnake-code")) == (502, "worker-gone")
    assert linked(relay, client)


def test_a_post_is_sent_once_and_its_worker_s_end_is_a_502(relay: Relay, client: socket.socket) -> None:
    client.sendall(POST + b"hello")
    link = relay.link()
    read_until(link, b"hello")
    link.close()
    answer = response(client)
    answer.read()
    assert (answer.status, answer.getheader("caddysnake-code")) == (502, "worker-gone")
    assert linked(relay, client)


def test_a_post_is_not_lost_on_a_link_that_ended_while_it_was_idle(relay: Relay, client: socket.socket) -> None:
    link = linked(relay, client)
    os.kill(relay.process.pid, signal.SIGSTOP)  # so that it finds both at once
    client.sendall(POST + b"hello")
    link.close()
    os.kill(relay.process.pid, signal.SIGCONT)
    other = relay.link()
    assert read_until(other, b"hello").startswith(b"POST /p ")
    other.sendall(ok())
    assert response(client).read() == b"ok"


@pytest.mark.parametrize("begun", [b"content-length: 9\r\n\r\nhalf", b"transfer-encoding: chunked\r\n\r\n"])
def test_a_response_that_breaks_off_is_cut_and_not_ended(relay: Relay, client: socket.socket, begun: bytes) -> None:
    client.sendall(get())
    link = relay.link()
    read_head(link)
    begun = b"HTTP/1.1 200 OK\r\n" + begun
    link.sendall(begun)
    assert read_exactly(client, len(begun)) == begun
    link.close()
    assert is_at_end(client)


def test_a_worker_learns_that_its_client_left(relay: Relay) -> None:
    with relay.connect() as client:
        client.sendall(get())
        link = relay.link()
        read_head(link)
    assert is_at_end(link)


def test_a_worker_learns_within_a_response_that_its_client_left(relay: Relay) -> None:
    with relay.connect() as client:
        client.sendall(get())
        link = relay.link()
        link.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        read_until(client, b"one\r\n")
    read_head(link)
    assert is_at_end(link)


def test_a_worker_learns_that_its_client_left_within_its_content(relay: Relay) -> None:
    with relay.connect() as client:
        client.sendall(POST + b"he")
        link = relay.link()
        read_until(link, b"he")
    assert is_at_end(link)


def test_a_client_may_end_its_side_and_read_on(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    client.shutdown(socket.SHUT_WR)
    link = relay.link()
    read_head(link)
    assert is_at_end(link)
    link.sendall(ok(b"late"))
    assert read_all(client).endswith(b"\r\nconnection: close\r\n\r\nlate")


def test_an_idle_link_that_speaks_is_not_used_again(relay: Relay, client: socket.socket) -> None:
    link = linked(relay, client)
    link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned")
    assert is_at_end(link)
    assert linked(relay, client) is not link


def test_bytes_behind_a_response_are_not_the_next_ones(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    link = relay.link()
    read_head(link)
    link.sendall(ok() + ok(b"poisoned"))
    assert response(client).read() == b"ok"
    assert is_at_end(link)
    assert linked(relay, client) is not link


def test_links_that_nobody_uses_are_closed() -> None:
    with running(link_idle_s=0.1) as relay, relay.connect() as client:
        assert is_at_end(linked(relay, client))
        assert linked(relay, client)


def test_a_worker_that_wants_to_close_is_not_asked_again(relay: Relay, client: socket.socket) -> None:
    client.sendall(get())
    link = relay.link()
    read_head(link)
    link.sendall(ok(more=b"Connection: close\r\n"))
    answer = response(client)
    assert answer.read() == b"ok"
    assert answer.getheader("connection") is None
    assert is_at_end(link)
    assert linked(relay, client)


# Upgrades


@contextlib.contextmanager
def tunnel(relay: Relay, client: socket.socket) -> Iterator[socket.socket]:
    client.sendall(get("/ws", more=UPGRADE))
    link = relay.link()
    assert b"connection: upgrade\r\nupgrade: websocket\r\n" in read_head(link)
    link.sendall(SWITCHED)
    assert read_head(client) == SWITCHED
    yield link


def test_an_upgrade_passes_bytes_both_ways(relay: Relay, client: socket.socket) -> None:
    with tunnel(relay, client) as link:
        for data in (b"\x81\x05hello", b"HTTP/1.1 200 OK\r\n\r\n", os.urandom(50_000)):
            client.sendall(data)
            assert read_exactly(link, len(data)) == data
            link.sendall(data[::-1])
            assert read_exactly(client, len(data)) == data[::-1]


def test_what_a_client_sends_behind_its_upgrade_arrives(relay: Relay, client: socket.socket) -> None:
    client.sendall(get("/ws", more=UPGRADE) + b"early")
    link = relay.link()
    read_head(link)
    link.sendall(SWITCHED + b"bird")
    assert read_until(client, b"bird") == SWITCHED + b"bird"
    client.sendall(b"-worm")
    assert read_until(link, b"worm") == b"early-worm"


def test_either_end_of_a_tunnel_ends_the_other(relay: Relay) -> None:
    with relay.connect() as client, tunnel(relay, client) as link:
        link.sendall(b"last")
        link.close()
        assert read_all(client) == b"last"
    with relay.connect() as client, tunnel(relay, client) as link:
        client.sendall(b"last")
        client.close()
        assert read_all(link) == b"last"


def test_a_client_of_a_tunnel_may_go_on_sending_when_the_worker_has_said_its_last(relay: Relay) -> None:
    with relay.connect() as client, tunnel(relay, client) as link:
        link.sendall(b"last")
        link.close()
        assert read_all(client) == b"last"
        for _ in range(3):
            client.sendall(b"more")  # a Caddy whose write fails passes nothing on of what it has not read yet


def test_an_upgrade_that_is_refused_leaves_both_in_use(relay: Relay, client: socket.socket) -> None:
    client.sendall(get("/ws", more=UPGRADE))
    link = relay.link()
    read_head(link)
    link.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
    answer = response(client)
    answer.read()
    assert answer.status == 403
    client.sendall(get())
    assert read_head(link)


# Who is who


def test_a_strangers_words_about_itself_are_replaced(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        relay.give(accepted, flags=0)
        client.settimeout(30)
        client.sendall(get(more="X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nExpect: 100-continue\r\n"))
        link = relay.link()
        head = read_head(link)
        assert b"6.6.6.6" not in head
        assert b"\r\nx-forwarded-for: 127.0.0.1\r\n" in head
        assert b"\r\nx-forwarded-proto: http\r\n" in head
        link.sendall(ok())
        assert response(client).read() == b"ok"


def test_a_stranger_that_waits_to_go_on_may_when_there_is_a_link(relay: Relay) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with relay.connect(flags=0) as client:
        client.sendall(request)
        link = relay.link()
        assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        read_until(link, b"hello")
        link.sendall(ok())
        assert response(client).read() == b"ok"


def test_caddy_is_not_told_to_go_on(relay: Relay) -> None:
    with relay.connect(flags=TAKE_TRUSTED) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
        link = relay.link()
        read_until(link, b"hello")
        link.sendall(ok())
        assert response(client).read() == b"ok"


# Requests that break rules


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
    ],
)
def test_what_is_no_request_is_answered_and_reaches_no_app(relay: Relay, raw: bytes, status: int) -> None:
    with relay.connect() as client:
        client.sendall(raw)
        answer = response(client)
        answer.read()
        assert answer.status == status
        assert answer.getheader("caddysnake-code")
        assert answer.getheader("connection") == "close"
        client.shutdown(socket.SHUT_WR)
        assert is_at_end(client)


def test_chunks_that_are_none_end_the_request_for_both(relay: Relay, client: socket.socket) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    link = relay.link()
    read_until(link, b"a\r\n")
    client.sendall(b"zz\r\n")
    answer = response(client)
    answer.read()
    assert answer.status == 400
    assert is_at_end(link)


def test_a_head_that_does_not_come_is_a_408() -> None:
    with running(head_timeout_s=0.1) as relay, relay.connect() as client:
        client.sendall(b"GET / HT")
        answer = response(client)
        answer.read()
        assert (answer.status, answer.getheader("caddysnake-code")) == (408, "head-timeout")


# Vital signs


def test_slots_say_what_their_connections_do(relay: Relay, client: socket.socket) -> None:
    slot = relay.last_slot
    client.sendall(get())
    link = relay.link()
    read_head(link)
    assert relay.slot_state(slot) == vitals.SLOT_READING
    link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
    read_head(client)
    assert relay.slot_state(slot) == vitals.SLOT_HEAD_SENT
    assert relay.page.word(vitals.WORD_ACTIVE) == 1
    link.sendall(b"ok")
    assert read_exactly(client, 2) == b"ok"
    with relay.connect() as second:
        second.sendall(get())  # by now the first is done with
        read_head(link)
        link.sendall(ok())
        assert response(second).read() == b"ok"
        assert relay.slot_state(slot) == vitals.SLOT_IDLE
        assert relay.page.word(vitals.WORD_CONNECTIONS) == 2
    client.close()
    with relay.connect() as third:
        third.sendall(get())
        read_head(link)
    assert relay.slot_state(slot) == vitals.SLOT_CLOSED
