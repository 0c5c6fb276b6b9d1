"""Which connection of a worker is in which slot of its page. Pure: over the slots' state bytes, without I/O.

The worker writes the bytes as well, and is believed in nothing: what it holds is what it was given.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ...channel import vitals
from ...channel.endpoint import ChannelError
from ...channel.messages import TAKE_ROUND

if TYPE_CHECKING:
    from ..sockets.connections import Connection

UNTAKEN_LIMIT = 64
"""Hand-offs that a worker has not taken yet. More would pile up descriptors in flight, which are counted per user."""
_UNREAD = (vitals.SLOT_GIVEN, vitals.SLOT_IDLE, vitals.SLOT_READING)
_DROPPED_LOOKS = 4
"""At so many dropped slots is looked, each time that one is wanted, whether the worker has freed them."""


class SlotsState(NamedTuple):
    """What another image of the daemon must know, but for the connections, which know their slots."""

    dropped: list[int]
    fresh: int
    free: list[int]
    untaken: list[int]


class SlotTable:
    """The slots of one worker. ``states``: their bytes on its page (``vitals.SLOT_*``)."""

    def __init__(self, states: memoryview, limit: int) -> None:
        """``limit``: how many it may hold."""
        self._states = states
        self._limit = limit
        self._held: dict[int, Connection] = {}
        self._dropped: set[int] = set()  # their other side has left; the slot is the worker's until it says CLOSED
        self._drop_order: deque[int] = deque()
        self._fresh = 0  # the lowest slot never given
        self._free: deque[int] = deque()
        self._untaken: deque[int] = deque()
        self._moved_at = time.monotonic()

    # -- giving and taking back -------------------------------------------------------------------------------

    def reserve(self) -> int | None:
        """Return a slot that is given from now on; None when there is none. ``hold`` it next, or ``restore`` it."""
        slot = self._next()
        if slot is not None:
            self._states[slot] = vitals.SLOT_GIVEN
        return slot

    def _next(self) -> int | None:
        if self._free:
            return self._free.popleft()
        for _ in range(min(_DROPPED_LOOKS, len(self._drop_order))):
            slot = self._drop_order.popleft()
            if slot not in self._dropped:
                continue
            if self._states[slot] == vitals.SLOT_CLOSED:
                self._dropped.discard(slot)
                return slot
            self._drop_order.append(slot)
        if self._fresh < self._limit:
            self._fresh += 1
            return self._fresh - 1
        return None

    def put_back(self, slot: int) -> None:
        """Undo ``reserve``: the worker has not been given it."""
        self._states[slot] = vitals.SLOT_CLOSED
        self._free.append(slot)

    def hold(self, slot: int, connection: Connection) -> None:
        """Note that ``connection`` is on its way to the worker, in ``slot``."""
        self._held[slot] = connection
        if not self._untaken:
            self._moved_at = time.monotonic()
        self._untaken.append(slot)

    def withdraw(self, slot: int) -> None:
        """Undo ``hold`` and ``reserve``: the worker has not been given it after all."""
        del self._held[slot]
        self._untaken.remove(slot)
        self.put_back(slot)

    def disown(self, slot: int) -> None:
        """Leave a reserved ``slot`` to the worker: what it was given there is nobody's to take back."""
        self._dropped.add(slot)
        self._drop_order.append(slot)

    def take_back(self, slot: int) -> Connection | None:
        """Free ``slot``: its connection, None when the other side of that has left. Raises ``ChannelError``."""
        connection = self._held.pop(slot, None)
        if connection is None:
            if slot not in self._dropped:
                raise ChannelError(f"it returned slot {slot}, which it does not hold")
            self._dropped.discard(slot)
        self.put_back(slot)
        return connection

    def drop(self, slot: int) -> None:
        """Forget the connection in ``slot``, whose other side has left; the worker may still be writing to it."""
        if self._held.pop(slot, None) is not None:
            self.disown(slot)

    def take_all(self) -> list[tuple[Connection, int]]:
        """Take every connection from a worker that is gone, each with the last state of its slot."""
        found = [(connection, self._states[slot]) for slot, connection in self._held.items()]
        self._held.clear()
        self._untaken.clear()
        return found

    # -- what the slots say -----------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many connections the worker holds, idle ones included."""
        return len(self._held)

    @property
    def untaken(self) -> int:
        """How many of them it has not taken yet."""
        while self._untaken and self._states[self._untaken[0]] != vitals.SLOT_GIVEN:
            self._untaken.popleft()
            self._moved_at = time.monotonic()
        return len(self._untaken)

    @property
    def still_s(self) -> float:
        """For how long it has taken none of those that it was given; 0: nothing is left for it to take."""
        return time.monotonic() - self._moved_at if self.untaken else 0.0

    @property
    def is_behind(self) -> bool:
        """It has been given connections that it has not taken yet."""
        return any(self._states[slot] == vitals.SLOT_GIVEN for slot in self._untaken)

    @property
    def idle(self) -> int:
        """How many of them, other than links, wait for a request."""
        return sum(each.bound is not None for each in self._idle())

    def idle_fds(self, most: int) -> list[int]:
        """Return ours of up to ``most`` connections, links among them, of whose next request nothing has been read."""
        waiting = (vitals.SLOT_IDLE, vitals.SLOT_GIVEN)
        found = (each.fd for slot, each in self._held.items() if self._states[slot] in waiting)
        return list(islice(found, most))

    @property
    def uncounted(self) -> int:
        """How many of them have no answer to their request, or none yet, and do not come back by themselves."""
        soon = (vitals.SLOT_IDLE, vitals.SLOT_READING)
        return sum(not each.turns and self._states[slot] in soon for slot, each in self._held.items())

    @property
    def idle_keeping(self) -> bool:
        """One of Caddy's waits for a request, and was given to stay."""
        return any(each.bound is not None and not each.flags & TAKE_ROUND for each in self._idle())

    def _idle(self) -> Iterator[Connection]:
        return (each for slot, each in self._held.items() if self._states[slot] == vitals.SLOT_IDLE)

    @property
    def may_ask(self) -> bool:
        """Something that it holds may become, or is, a request that no app has read."""
        return any(self._states[slot] in _UNREAD for slot in self._held)

    @property
    def has_open_ends(self) -> bool:
        """It is in the middle of an answer, or has a WebSocket open, which is no request any more, and no rest."""
        return any(self._states[slot] == vitals.SLOT_HEAD_SENT for slot in self._held)

    def reading(self) -> list[Connection]:
        """Return those of which something has been read, and nothing been answered."""
        return [each for slot, each in self._held.items() if self._states[slot] == vitals.SLOT_READING]

    def unanswered(self) -> list[Connection]:
        """Return ours of those of which it has read something, or should have, and answered nothing."""
        waiting = (vitals.SLOT_READING, vitals.SLOT_GIVEN)
        return [each for slot, each in self._held.items() if self._states[slot] in waiting]

    # -- going on in another image of the daemon --------------------------------------------------------------

    def state(self) -> SlotsState:
        """Return what ``restore`` needs."""
        dropped = [slot for slot in self._drop_order if slot in self._dropped]
        return SlotsState(dropped, self._fresh, list(self._free), list(self._untaken))

    def restore(self, state: SlotsState) -> None:
        """Go on where ``state`` says. The connections come by ``attach``, and then ``reconcile``."""
        self._dropped, self._drop_order = set(state.dropped), deque(state.dropped)
        self._fresh, self._free, self._untaken = state.fresh, deque(state.free), deque(state.untaken)

    def attach(self, slot: int, connection: Connection) -> None:
        """Note that the worker has ``connection``, in ``slot``."""
        self._held[slot] = connection

    def reconcile(self) -> None:
        """Leave slots that are in use, and of which nobody knows why, to the worker until it frees them."""
        used = bytes(self._states).rstrip(b"\0")
        known = {*self._held, *self._dropped, *self._free}
        unknown = [slot for slot in range(self._fresh, len(used)) if slot not in known]
        self._fresh = max(self._fresh, len(used))
        unknown += [slot for slot in self._free if slot < len(used) and used[slot]]
        self._free = deque(slot for slot in self._free if slot >= len(used) or not used[slot])
        self._dropped.update(unknown)
        self._drop_order.extend(unknown)
