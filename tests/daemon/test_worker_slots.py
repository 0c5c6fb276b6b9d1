"""Which connection of a worker is in which slot, whatever the worker writes there."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.channel import vitals
from caddysnake.channel.endpoint import ChannelError
from caddysnake.daemon.sockets.connections import Connection
from caddysnake.daemon.workers.slots import SlotTable


def connection(number: int, is_link: bool = False) -> Connection:
    return Connection(number, 0, cast(Any, None), None if is_link else cast(Any, object()))


def table(limit: int = 4) -> tuple[SlotTable, bytearray]:
    states = bytearray(64)
    return SlotTable(memoryview(states), limit), states


def give(slots: SlotTable, number: int, is_link: bool = False) -> int:
    slot = slots.reserve()
    assert slot is not None
    slots.hold(slot, connection(number, is_link))
    return slot


def test_no_more_slots_are_given_than_there_may_be() -> None:
    slots, _ = table(limit=2)
    assert [give(slots, 1), give(slots, 2)] == [0, 1]
    assert slots.reserve() is None


def test_what_could_not_be_handed_over_frees_its_slot() -> None:
    slots, states = table(limit=1)
    slot = slots.reserve()
    assert slot is not None
    assert states[slot] == vitals.SLOT_GIVEN
    slots.put_back(slot)
    assert (states[slot], slots.connections) == (vitals.SLOT_CLOSED, 0)
    assert slots.reserve() == slot


def test_a_slot_that_is_not_held_cannot_be_given_back() -> None:
    slots, _ = table()
    slot = give(slots, 7)
    back = slots.take_back(slot)
    assert back is not None
    assert back.fd == 7
    for wrong in (slot, 3, 1 << 40, -1):
        with pytest.raises(ChannelError, match="does not hold"):
            slots.take_back(wrong)


def test_the_slot_of_a_connection_that_has_left_is_the_workers_until_it_closes_it() -> None:
    slots, states = table(limit=1)
    slot = give(slots, 7)
    states[slot] = vitals.SLOT_HEAD_SENT
    slots.drop(slot)
    assert slots.reserve() is None
    states[slot] = vitals.SLOT_CLOSED
    assert slots.reserve() == slot


def test_what_has_left_may_still_be_given_back_once() -> None:
    slots, _ = table()
    slot = give(slots, 7)
    slots.drop(slot)
    assert slots.take_back(slot) is None
    with pytest.raises(ChannelError):
        slots.take_back(slot)


def test_what_a_worker_has_not_taken_is_counted_until_it_does() -> None:
    slots, states = table()
    first, second = give(slots, 1), give(slots, 2)
    assert (slots.untaken, slots.is_behind) == (2, True)
    states[first] = states[second] = vitals.SLOT_READING
    assert (slots.untaken, slots.is_behind) == (0, False)


def test_states_say_who_is_idle_and_what_is_under_way() -> None:
    slots, states = table()
    first, link, third = give(slots, 1), give(slots, 2, is_link=True), give(slots, 3)
    states[first] = states[link] = vitals.SLOT_IDLE
    states[third] = vitals.SLOT_READING
    assert slots.idle == 1, "a link does not count"
    assert [each.fd for each in slots.reading()] == [3]
    assert (slots.may_ask, slots.has_open_ends) == (True, False)
    states[first] = states[link] = states[third] = vitals.SLOT_HEAD_SENT
    assert (slots.may_ask, slots.has_open_ends) == (False, True)


def test_a_worker_that_is_gone_leaves_every_connection_with_its_last_state() -> None:
    slots, states = table()
    states[give(slots, 1)] = vitals.SLOT_IDLE
    give(slots, 2)
    found = {each.fd: state for each, state in slots.take_all()}
    assert found == {1: vitals.SLOT_IDLE, 2: vitals.SLOT_GIVEN}
    assert (slots.connections, slots.may_ask, slots.is_behind) == (0, False, False)


def test_another_image_goes_on_and_leaves_slots_alone_of_which_it_knows_nothing() -> None:
    slots, states = table(limit=6)
    kept, dropped, unknown = give(slots, 1), give(slots, 2), give(slots, 3)
    slots.drop(dropped)
    states[kept] = states[dropped] = states[unknown] = vitals.SLOT_HEAD_SENT
    restored = SlotTable(memoryview(states), 6)
    restored.restore(slots.state())
    restored.attach(kept, connection(1))
    restored.reconcile()
    assert {give(restored, 4), give(restored, 5), give(restored, 6)}.isdisjoint({kept, dropped, unknown})
    assert restored.reserve() is None


@given(st.lists(st.tuples(st.sampled_from(["give", "back", "drop", "write"]), st.integers(0, 7), st.integers(0, 255))))
def test_no_slot_is_ever_given_twice_whatever_a_worker_writes(steps: list[tuple[str, int, int]]) -> None:
    slots, states = table(limit=8)
    held: set[int] = set()
    for what, slot, value in steps:
        if what == "give":
            given_slot = slots.reserve()
            if given_slot is not None:
                assert given_slot not in held
                slots.hold(given_slot, connection(1))
                held.add(given_slot)
        elif what == "back" and slot in held:
            assert slots.take_back(slot) is not None
            held.remove(slot)
        elif what == "drop" and slot in held:
            slots.drop(slot)
            held.remove(slot)
        elif what == "write":
            states[slot] = value
        assert slots.connections == len(held)
