"""What the daemon may count on, whichever server is at the other end of a channel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import relay, worker
from support.daemon import eventually
from support.rawhttp import Answer, RawClient

from caddysnake.channel import vitals
from caddysnake.channel.endpoint import ChannelClosed
from caddysnake.channel.messages import (
    PROTOCOL_VERSION,
    TAKE_LAST,
    TAKE_TRUSTED,
    Drained,
    Dump,
    Message,
    Ready,
    Returned,
    Shed,
)

APPS = """
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
HALF = b"GET / HTTP/1.1\r\n"
OTHER_HALF = b"Host: a.example\r\n\r\n"
UNKNOWN = b"\xfe"

Agent = relay.Relay | worker.Worker


@pytest.fixture(params=["asgi on uvloop", "asgi on asyncio", "wsgi", "relay"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    interface, _, loop = request.param.partition(" on ")
    if interface == "relay":
        nowhere = {"sites": [], "templates": {}, "variables": {}}
        with relay.running(nowhere) as running_relay:
            yield running_relay
    else:
        (tmp_path / "apps_of_agents.py").write_text(APPS)
        more = {"loop": loop} if loop else {}
        wanted = worker.settings(f"apps_of_agents:{interface}", interface, tmp_path, **more)
        with worker.running(wanted) as running_worker:
            yield running_worker


def answers(client: RawClient) -> Answer:
    answer = client.get("/")
    assert answer.status in (200, 404)
    return answer


def clients(agent: Agent, count: int, stack: ExitStack) -> list[RawClient]:
    """So many clients whose first request was answered."""
    found = [stack.enter_context(RawClient(agent.connect())) for _ in range(count)]
    for client in found:
        answers(client)
    eventually(lambda: bytes(agent.page.slots[:count]) == bytes([vitals.SLOT_IDLE]) * count)
    return found


def messages(agent: Agent, count: int) -> set[Message]:
    return {agent.message() for _ in range(count)}


def said_all(agent: Agent) -> bool:
    try:
        agent.message()
    except ChannelClosed:
        return True
    return False


def has_left(agent: Agent) -> bool:
    if isinstance(agent, relay.Relay):
        return agent.process.poll() is not None
    try:
        state = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def works_between(client: RawClient, duplicate: socket.socket) -> bool:
    """Nobody else has ended the connection, or reads it."""
    client.send(b"ping")
    assert duplicate.recv(4) == b"ping"
    duplicate.sendall(b"pong")
    return client.exactly(4) == b"pong"


def test_it_says_once_that_it_is_ready(agent: Agent) -> None:
    if isinstance(agent, worker.Worker):  # a relay's first message is looked at where it is started
        assert isinstance(agent.ready, Ready)
        assert agent.ready.version == PROTOCOL_VERSION
    with pytest.raises(TimeoutError):
        agent.message(0.2)


def test_a_slot_says_how_far_its_connection_is(agent: Agent) -> None:
    slots = agent.page.slots
    with RawClient(agent.connect()) as client:
        eventually(lambda: slots[0] == vitals.SLOT_IDLE)
        assert agent.page.word(vitals.WORD_CONNECTIONS) == 1
        client.send(HALF)
        eventually(lambda: slots[0] == vitals.SLOT_READING)
        client.send(OTHER_HALF)
        client.answer()
        eventually(lambda: slots[0] == vitals.SLOT_IDLE)
    eventually(lambda: slots[0] == vitals.SLOT_CLOSED)
    eventually(lambda: agent.page.word(vitals.WORD_CONNECTIONS) == 0)


def test_what_is_trusted_and_last_ends_with_its_answer(agent: Agent) -> None:
    with RawClient(agent.connect(TAKE_TRUSTED | TAKE_LAST)) as client:
        assert answers(client).header("connection") == "close"
        assert client.is_ended()
    eventually(lambda: agent.page.slots[0] == vitals.SLOT_CLOSED)


def test_as_many_idle_connections_go_back_as_are_asked_for(agent: Agent) -> None:
    with ExitStack() as stack:
        clients(agent, 3, stack)
        agent.endpoint.send(Shed(2))
        gone = messages(agent, 2)
        assert len(gone) == 2
        slots = {message.slot for message in gone if isinstance(message, Returned)}
        assert {slot for slot in range(3) if agent.page.slots[slot] == vitals.SLOT_RETURNED} == slots
        with pytest.raises(TimeoutError):
            agent.message(0.2)
        eventually(lambda: agent.page.word(vitals.WORD_CONNECTIONS) == 1)


def test_shedding_takes_no_request_from_a_connection_and_a_worker_gives_it_back_after_that(agent: Agent) -> None:
    with RawClient(agent.connect()) as client:
        client.send(HALF)
        eventually(lambda: agent.page.slots[0] == vitals.SLOT_READING)
        agent.endpoint.send(Shed(9))
        with pytest.raises(TimeoutError):
            agent.message(0.2)
        client.send(OTHER_HALF)
        client.answer()
        if isinstance(agent, relay.Relay):
            answers(client)
        else:
            assert agent.message() == Returned(0)
            assert works_between(client, agent.duplicate(0))


def test_what_is_returned_is_the_daemons_alone(agent: Agent) -> None:
    with ExitStack() as stack:
        (client,) = clients(agent, 1, stack)
        agent.endpoint.send(Shed(1))
        assert agent.message() == Returned(0)
        assert agent.page.slots[0] == vitals.SLOT_RETURNED
        assert works_between(client, agent.duplicate(0))


def test_it_leaves_when_told_and_gives_back_what_is_idle(agent: Agent) -> None:
    with ExitStack() as stack:
        found = clients(agent, 2, stack)
        agent.drain()
        assert messages(agent, 2) == {Returned(0), Returned(1)}
        assert agent.message() == Drained()
        assert said_all(agent)
        for slot, client in enumerate(found):
            assert works_between(client, agent.duplicate(slot))
    eventually(lambda: has_left(agent))


def test_a_request_that_has_begun_is_answered_before_its_connection_goes_back(agent: Agent) -> None:
    with RawClient(agent.connect()) as client:
        client.send(HALF)
        eventually(lambda: agent.page.slots[0] == vitals.SLOT_READING)
        agent.drain(20)
        with pytest.raises(TimeoutError):
            agent.message(0.2)
        client.send(OTHER_HALF)
        assert client.answer().header("connection") != "close"
        assert messages(agent, 2) == {Returned(0), Drained()}
        assert works_between(client, agent.duplicate(0))


def test_what_comes_while_it_leaves_goes_back_untouched(agent: Agent) -> None:
    with RawClient(agent.connect()) as busy:
        busy.send(HALF)
        eventually(lambda: agent.page.slots[0] == vitals.SLOT_READING)
        agent.drain(20)
        with RawClient(agent.connect()) as late:
            assert agent.message() == Returned(1)
            assert agent.page.slots[1] == vitals.SLOT_RETURNED
            assert works_between(late, agent.duplicate(1))
        busy.send(OTHER_HALF)
        busy.answer()
        assert messages(agent, 2) == {Returned(0), Drained()}


def test_the_grace_is_the_longest_that_a_request_may_take(agent: Agent) -> None:
    with RawClient(agent.connect()) as client:
        client.send(HALF)
        eventually(lambda: agent.page.slots[0] == vitals.SLOT_READING)
        agent.drain(0.1)
        assert client.is_ended()
        assert agent.message() == Drained()
        assert said_all(agent)


def test_when_the_daemon_is_gone_idle_connections_end_and_others_after_their_answer(agent: Agent) -> None:
    with ExitStack() as stack:
        idle, busy = clients(agent, 2, stack)
        busy.send(HALF)
        eventually(lambda: agent.page.slots[1] == vitals.SLOT_READING)
        agent.endpoint.close()
        for slot in range(2):
            agent.duplicate(slot).close()
        assert idle.is_ended()
        busy.send(OTHER_HALF)
        assert busy.answer().header("connection") == "close"
        assert busy.is_ended()
    eventually(lambda: has_left(agent))


def test_whoever_breaks_a_rule_of_the_channel_is_no_daemon(agent: Agent) -> None:
    with ExitStack() as stack:
        (client,) = clients(agent, 1, stack)
        with socket.socket(fileno=os.dup(agent.endpoint.fileno())) as raw:
            raw.setblocking(True)
            raw.send(UNKNOWN)
        assert client.is_ended()
    eventually(lambda: has_left(agent))


def test_telling_where_it_stands_changes_nothing(agent: Agent) -> None:
    with ExitStack() as stack:
        (client,) = clients(agent, 1, stack)
        agent.endpoint.send(Dump())
        answers(client)
        with pytest.raises(TimeoutError):
            agent.message(0.2)


def test_many_messages_at_once_are_all_obeyed(agent: Agent) -> None:
    """More than one turn of the loop takes."""
    with ExitStack() as stack:
        found = clients(agent, 3, stack)
        for _ in range(150):
            agent.endpoint.send(Shed(0))
        agent.endpoint.send(Shed(3))
        assert messages(agent, 3) == {Returned(0), Returned(1), Returned(2)}
        for slot, client in enumerate(found):
            assert works_between(client, agent.duplicate(slot))


def test_a_burst_of_connections_is_served_as_if_they_had_come_one_by_one(agent: Agent) -> None:
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(5)]
        found = []
        for client, server in pairs:
            client.settimeout(worker.PATIENCE_S)
            found.append(stack.enter_context(RawClient(client)))
            stack.callback(server.close)
        agent.give_together([server for _, server in pairs])
        for each in found:
            answers(each)
