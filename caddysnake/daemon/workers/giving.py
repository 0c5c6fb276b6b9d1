"""Connections on their way to one worker: one at a time, or together those that came in one burst."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...channel.endpoint import ChannelClosed
from ...channel.messages import TAKES_MAX, Take, Takes
from ...channel.vitals import KNOWS_TAKES

if TYPE_CHECKING:
    from ..sockets.connections import Connection
    from .process import WorkerProcess


class Giving:
    """To ``process``. ``not_taken`` gets each connection kept for its burst that could not be handed over."""

    def __init__(self, process: WorkerProcess, not_taken: Callable[[Connection], None]) -> None:
        self._process = process
        self._not_taken = not_taken
        self._gathered: list[tuple[Take, Connection]] = []
        self._is_full = False

    def give(self, connection: Connection, flags: int) -> int | None:
        """Return the slot that ``connection`` has now; None: it cannot be handed over. ``flags``: ``TAKE_*``."""
        slots = self._process.gauges.slots
        slot = None if self._is_full else slots.reserve()
        if slot is None:
            return None
        take = Take(slot, flags)
        gathering = None if connection.bound is None else connection.bound.gathering
        if gathering is not None and self._process.knows(KNOWS_TAKES):
            if len(self._gathered) == TAKES_MAX:
                self._end_burst()
            if not self._gathered:
                gathering.append(self._end_burst)
            self._gathered.append((take, connection))
        elif not self._send(take, [connection.fd]):
            slots.put_back(slot)
            return None
        slots.hold(slot, connection)
        return slot

    def _end_burst(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not gathered:  # sent already, as there were so many
            return
        takes = [take for take, _ in gathered]
        if self._send(takes[0] if len(takes) == 1 else Takes.several(takes), [each.fd for _, each in gathered]):
            return
        self._is_full = True  # whoever is asked now who is to have them would name this worker again
        try:
            for take, connection in gathered:
                self._process.gauges.slots.withdraw(take.slot)
                connection.worker = None
                self._not_taken(connection)
        finally:
            self._is_full = False

    def _send(self, message: Take | Takes, descriptors: list[int]) -> bool:
        try:
            return self._process.peer.hand_over(message, descriptors)
        except ChannelClosed:
            return False  # its pidfd will say the rest
