"""Connections on their way to a worker, over a channel as the daemon has it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from caddysnake.channel.endpoint import Endpoint, pair
from caddysnake.channel.messages import TAKES_MAX, Message, Take, Takes
from caddysnake.channel.vitals import SLOT_CLOSED
from caddysnake.daemon.sockets.connections import BoundListener, Connection
from caddysnake.daemon.workers.giving import Giving
from caddysnake.daemon.workers.slots import SlotTable


class Rig:
    """A worker's end of a channel, and what the daemon has of that worker. ``knows``: it understands ``Takes``."""

    def __init__(self, stack: ExitStack, knows: bool) -> None:
        ours, theirs = pair()
        self.ours, self.theirs = Endpoint(ours, takes_descriptors=False), Endpoint(theirs)
        stack.callback(self.ours.close)
        stack.callback(self.theirs.close)
        self.states = memoryview(bytearray(4096))
        self.slots = SlotTable(self.states, 4096)
        process: Any = SimpleNamespace(
            gauges=SimpleNamespace(slots=self.slots), peer=self.ours, knows=lambda _: knows
        )
        self.back: list[Connection] = []
        self.giving = Giving(process, self.back.append)
        self.bound = BoundListener(None, 1)  # type: ignore[arg-type]
        self.stack = stack

    def burst(self, count: int) -> list[Connection]:
        """So many connections are accepted together."""
        self.bound.gathering = gathering = []
        given = []
        for _ in range(count):
            one, other = socket.socketpair()
            self.stack.callback(one.close)
            self.stack.callback(other.close)
            connection = Connection(one.fileno(), 0, None, self.bound)  # type: ignore[arg-type]
            slot = self.giving.give(connection, 0)
            if slot is not None:
                connection.slot = slot
                given.append(connection)
        self.bound.gathering = None
        for hand_over in gathering:
            hand_over()
        return given

    def messages(self) -> list[Message]:
        found = []
        while (received := self.theirs.receive()) is not None:
            found.append(received[0])
            for fd in received[1]:
                os.close(fd)
        return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_burst_is_one_message_and_one_connection_as_before(stack: ExitStack) -> None:
    rig = Rig(stack, knows=True)
    rig.burst(5)
    rig.burst(1)
    assert rig.messages() == [Takes.several([Take(slot, 0) for slot in range(5)]), Take(5, 0)]
    assert (rig.slots.connections, rig.slots.untaken, rig.back) == (6, 6, [])


def test_a_burst_of_many_is_as_many_messages_as_it_takes(stack: ExitStack) -> None:
    """A worker takes one with more connections for a breach, and would end."""
    rig = Rig(stack, knows=True)
    assert len(rig.burst(2 * TAKES_MAX + 3)) == 2 * TAKES_MAX + 3
    sent = [message for message in rig.messages() if isinstance(message, Takes)]
    assert [message.descriptors for message in sent] == [TAKES_MAX, TAKES_MAX, 3]
    assert [take.slot for message in sent for take in message.each()] == list(range(2 * TAKES_MAX + 3))
    assert rig.back == []


def test_a_worker_of_an_older_version_gets_them_one_by_one(stack: ExitStack) -> None:
    rig = Rig(stack, knows=False)
    rig.burst(3)
    assert rig.messages() == [Take(0, 0), Take(1, 0), Take(2, 0)]


def test_what_the_kernel_does_not_take_comes_back_and_is_the_daemons(stack: ExitStack) -> None:
    rig = Rig(stack, knows=True)
    given = []
    while not rig.back:
        given = rig.burst(2)
    assert rig.back == given
    assert {rig.states[each.slot] for each in given} == {SLOT_CLOSED}
    assert all(each.worker is None for each in given)
    assert rig.slots.connections == rig.slots.untaken
    assert rig.messages()[0] == Takes.several([Take(0, 0), Take(1, 0)])
    rig.back.clear()
    assert len(rig.burst(4)) == 4
    assert rig.back == [], "it has read, and there is room again"


def test_when_the_worker_is_gone_the_burst_comes_back(stack: ExitStack) -> None:
    rig = Rig(stack, knows=True)
    rig.theirs.close()
    given = rig.burst(3)
    assert rig.back == given
    assert rig.slots.connections == rig.slots.untaken == 0
