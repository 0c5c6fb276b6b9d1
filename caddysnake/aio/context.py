"""What the connections of one event loop's server share, so that none of them needs the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from ..channel.records import Mishaps
from ..channel.settings import RelaySettings, Settings
from ..channel.vitals import SLOT_CLOSED, SLOT_RETURNED, WORD_ACTIVE, WORD_TICK, Page
from ..http1.errors import ProtocolError
from ..http1.limits import Limits
from ..http1.request import HEADS_MAX, Heads, RequestParser
from ..http1.speedups import Reader
from .counters import PUBLISH_S, Counters


class Watched(Protocol):
    """What may take too long."""

    def overdue(self, now: float) -> bool:
        """Act if it does, at ``now`` (monotonic seconds); False when there is nothing to watch any more."""
        ...

    def cut(self) -> None:
        """End it at once."""
        ...


class Context:
    """Settings, limits, slots, counters and how far the server is. ``ended`` is told of each slot that is settled, and
    whether its connection was given back.
    """

    settings: Settings | RelaySettings

    def __init__(
        self,
        settings: Settings | RelaySettings,
        page: Page,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[int, bool], None],
    ) -> None:
        self.settings = settings
        self.loop = loop
        self.limits = Limits(
            settings.max_head_bytes, settings.max_target_bytes, settings.max_header_count, settings.max_body_bytes
        )
        self.heads = Heads(HEADS_MAX, rests=True)
        """Whole heads that came before."""
        self.reader: Reader | None = None
        """What reads plain heads, where it is installed."""
        self.slots = page.slots
        self.header = page.header
        self.counters = Counters()
        self.active = 0
        """Requests that are being answered."""
        self.is_publishing = False
        self.is_leaving = False
        """Idle connections are not kept."""
        self.owed = 0  # so many are to leave when they become idle
        self.is_orphaned = False
        """The daemon is gone: answers end their connections."""
        self.is_forced = False
        """The grace is over: what runs is cancelled."""
        self.keeps_upgraded = False
        """WebSockets stay although the server is leaving."""
        self.grace_s = 0.0
        """What is under way may take so long once the server is leaving."""
        self._cells = page.thread(0)
        self._ended = ended
        self._watched: set[Watched] = set()
        self.mishap = Mishaps().tell
        """For an error of ours, for which a connection is ended."""

    # Connections

    def new_parser(self) -> RequestParser:
        """Make the parser of one connection."""
        return RequestParser(self.limits, self.heads, self.reader)

    def connection_lost(self, connection: Watched, slot: int, returned: bool) -> None:
        """Settle the slot of a connection that has ended, or been ``returned``, once our copy is closed."""
        self._watched.discard(connection)
        if returned:
            # Our copy is closed when this callback of the transport has returned.
            self.loop.call_soon(self.release, slot, True)
        else:
            self.release(slot, False)

    def release(self, slot: int, returned: bool) -> None:
        """Settle a slot whose connection is ours no more."""
        self.slots[slot] = SLOT_RETURNED if returned else SLOT_CLOSED
        self._ended(slot, returned)

    def watch(self, connection: Watched) -> None:
        """Look at ``connection``, which has a deadline now, in each ``tick`` while it needs that."""
        self._watched.add(connection)

    def tick(self, now: float) -> None:
        """Show that the loop turns, publish the counters, and look at what may take too long."""
        self.header[WORD_TICK] = int(now * 1000)
        self.publish()
        for connection in list(self._watched):
            try:
                if not connection.overdue(now):
                    self._watched.discard(connection)
            except Exception as exc:  # the others have deadlines too
                self._watched.discard(connection)
                self.mishap(exc)
                connection.cut()

    # Vital signs

    def count(self, status: int, started: float) -> None:
        """Count a request that was answered with ``status``; it had ``started`` at so many monotonic seconds."""
        self.active -= 1
        self.header[WORD_ACTIVE] = self.active
        self.counters.finished(status, monotonic() - started)
        if not self.is_publishing:
            self.is_publishing = True
            self.loop.call_later(PUBLISH_S, self.publish)

    def count_refusal(self, error: ProtocolError) -> None:
        """Count a request that was answered with the status of ``error``, and not understood."""
        self.counters.finished(error.status, 0.0)
        self.publish()

    def publish(self) -> None:
        """Write the counters to the page."""
        self.is_publishing = False
        self.counters.publish(self._cells)
