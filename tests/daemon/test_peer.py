"""The daemon's end of a child's channel, over a real one."""

from __future__ import annotations

import asyncio
import socket

from support.house import run, until

from caddysnake.channel.endpoint import Endpoint, pair
from caddysnake.channel.messages import Drained, Message, Returned, Shed
from caddysnake.daemon.workers.child.peer import MESSAGES_A_TURN, Peer, socket_of


class Heard:
    """A peer, what it told, and the child's end."""

    def __init__(self, per_second: int = 1000) -> None:
        ours, theirs = pair()
        self.child = Endpoint(theirs)
        self.messages: list[Message] = []
        self.closed = 0
        self.breaches: list[str] = []
        self.peer = Peer(ours, per_second, self.hear, self.on_closed, self.breaches.append)
        self.peer.listen()

    def hear(self, message: Message) -> None:
        self.peer.count()
        self.messages.append(message)

    def on_closed(self) -> None:
        assert not self.peer.is_open
        self.closed += 1

    def end(self) -> None:
        self.peer.close()
        self.child.close()


def test_a_child_is_heard_and_its_end_is_told_once() -> None:
    async def work() -> None:
        heard = Heard()
        heard.child.send(Returned(3))
        await until(lambda: bool(heard.messages))
        assert heard.messages == [Returned(3)]
        heard.child.close()
        await until(lambda: heard.closed > 0)
        assert (heard.closed, heard.breaches, heard.peer.channel, heard.peer.sources()) == (1, [], -1, [])
        assert not heard.peer.send(Shed(1))
        heard.end()

    run(work())


def test_more_than_a_turns_messages_do_not_hold_up_the_loop_and_last_words_are_all_heard() -> None:
    async def work() -> None:
        heard = Heard()
        for slot in range(3 * MESSAGES_A_TURN):
            heard.child.send(Returned(slot))
        heard.child.close()
        heard.peer.read()
        assert len(heard.messages) == MESSAGES_A_TURN
        heard.peer.hear_last_words()
        assert len(heard.messages) == 3 * MESSAGES_A_TURN
        assert heard.closed == 1
        heard.end()

    run(work())


def test_who_says_too_much_breaks_a_rule_and_is_not_heard_any_more() -> None:
    async def work() -> None:
        heard = Heard(per_second=5)
        for _ in range(10):
            heard.child.send(Drained())
        await until(lambda: bool(heard.breaches))
        assert heard.breaches == ["more than 5 messages a second"]
        assert len(heard.messages) == 5
        assert not heard.peer.is_open
        heard.end()

    run(work())


def test_what_a_child_has_no_room_for_waits_and_arrives_in_order() -> None:
    async def work() -> None:
        heard = Heard()
        sent = 0
        while not heard.peer.outbox:
            assert heard.peer.send(Shed(sent))
            sent += 1
        assert heard.peer.send(Shed(sent))
        got: list[int] = []

        def all_there() -> bool:
            while (received := heard.child.receive()) is not None:
                assert isinstance(received[0], Shed)
                got.append(received[0].connections)
            return len(got) == sent + 1

        await until(all_there)
        assert got == list(range(sent + 1))
        assert heard.peer.outbox == []
        heard.end()

    run(work())


def test_a_channel_that_was_closed_before_is_a_peer_that_says_nothing() -> None:
    async def work() -> None:
        peer = Peer(socket_of(-1), 5, lambda message: None, lambda: None, lambda what: None)
        peer.listen()
        await asyncio.sleep(0)
        assert (peer.is_open, peer.send(Shed(1))) == (False, False)
        peer.close()
        with socket.socket() as other:
            found = socket_of(other.detach())
            assert found is not None
            found.close()

    run(work())
