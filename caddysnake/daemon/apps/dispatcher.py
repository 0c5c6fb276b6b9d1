"""Connections of an app: who gets the next one, and what becomes of those that come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

from ...channel import vitals
from ...channel.messages import TAKE_LAST, TAKE_ROUND, TAKE_TIED
from ...config.language.models import MAX_QUEUE
from ...config.plan.accounts import Account
from ..sockets.connections import Connection, ConnectionHolder, Connections, ListenerOwner
from ..sockets.refusals import QUEUE_FULL, Refusal
from ..system import mishaps
from ..workers.balancer import choose, excess
from ..workers.worker import Worker
from .counters import Counters
from .pool import Pool
from .queue import ConnectionQueue, Waiters
from .spec import StartFailed
from .takeover import Fate, Takeover

_UNTOUCHED = (vitals.SLOT_GIVEN, vitals.SLOT_IDLE, vitals.SLOT_RETURNED)
"""Of a slot whose worker had not begun to read from the connection."""


class Successor(Protocol):
    """Has the connections of an app that was told to go."""

    def take(self, connection: Connection) -> None:
        """Something has come on an idle one: a request for the successor, or its end."""

    def left(self, connection: Connection) -> None:
        """The other side of one that waits has left."""


class Recourse(NamedTuple):
    """Who else sees to an app's connections."""

    lend: Callable[[Connection], bool] | None = None
    """Gives one to a relay, which waits or answers in the place of an app that is not up."""
    pass_on: Callable[[Connection, ListenerOwner], None] | None = None
    """Has those that come back when the app was told to go, or when their listener is another's; None: they end."""
    turn_away: Callable[[Connection], None] | None = None
    """Has those that come when ``max_queue`` wait already."""
    successor: Successor | None = None
    """Has those of an app that was told to go because another follows it."""


ALONE = Recourse()
"""Nobody else."""


class Dispatcher:
    """Gives connections to the workers that serve; each is with one of them, in the queue, or parked."""

    ledger: Counters
    is_ours = False
    """Whether it runs no code of anybody's but ours."""

    def __init__(self, pool: Pool, connections: Connections, recourse: Recourse) -> None:
        self.takeover = Takeover(pool)
        self._connections = connections
        self._recourse = recourse
        self._queue = ConnectionQueue(connections, self._give, lambda: bool(self.pool.ready))
        self.max_queue = MAX_QUEUE
        """How many connections may wait here, apart from what its workers have been given."""
        self.waiters = Waiters()
        """Those who wait to be told by ``when_ready``."""
        self._turn = 0
        self.goes_round: Callable[[], bool] = lambda: False
        """Whether connections pass from worker to worker, also while there is little to do."""
        self.next_side: Callable[[bool], tuple[list[Worker], int]] | None = None
        """While two builds are compared: who gets the next request, and after how many it is asked again; or, when
        called with True, who gets all that a client will ask.
        """

    @property
    def pool(self) -> Pool:
        """The generation that serves."""
        return self.takeover.present

    @property
    def account(self) -> Account | None:
        """The user that its workers run as; None: the daemon's."""
        return self.pool.spec.key.account

    @property
    def waiting(self) -> int:
        """How many connections wait in the queue for a worker."""
        return len(self._queue)

    @property
    def successor(self) -> Successor | None:
        """Whose its connections are that come back, since it was told to go."""
        return self._recourse.successor if self.takeover.is_succeeded else None

    # -- giving --------------------------------------------------------------------------------------------------

    @mishaps.or_else(lambda self, connection, *_: self.over(connection))
    def place(self, connection: Connection) -> None:
        """Give ``connection`` to the least busy worker, or let it wait."""
        fate = self.takeover.placed(connection.bound is not None and connection.bound.app is not connection.app)
        if fate is not Fate.PLACE:
            self._see_to(connection, fate)
        elif self._queue or not self._give(connection):
            self._keep_waiting(connection)

    def _keep_waiting(self, connection: Connection) -> None:
        lend, turn_away = self._recourse.lend, self._recourse.turn_away
        if self.is_hopeless and lend is not None and lend(connection):
            return
        if len(self._queue) >= self.max_queue and turn_away is not None and connection.bound is not None:
            self.ledger.refused(QUEUE_FULL.code)
            turn_away(connection)
            return
        self._queue.add(connection)
        self._queue.retry_soon()

    def _give(self, connection: Connection) -> bool:
        ready, turns = (self.pool.ready, 0) if self.next_side is None else self.next_side(False)
        self._turn += 1
        loads = [worker.load() for worker in ready]
        goes_round = self.goes_round() and connection.bound is not None and len(ready) > 1
        connection.flags = connection.flags & ~TAKE_ROUND | (TAKE_ROUND if goes_round else 0)
        if goes_round and not any(excess([each.connections for each in loads])):
            loads = [each._replace(connections=0) for each in loads]  # else it comes back to who has given it back
        index = choose(loads, self._turn) if len(loads) != 1 else None if loads[0].saturated else 0
        if index is None or not ready[index].give(connection, turns=turns):
            return False
        self._connections.watch(connection)
        return True

    def tie(self, connection: Connection, wanted: Worker | None) -> Worker | None:
        """Give ``connection`` to the worker that is ``wanted``, else to one in turn: who has it, if anybody."""
        self._turn += 1
        ready = self.pool.ready if wanted is not None or self.next_side is None else self.next_side(True)[0]
        first = self._turn % len(ready) if ready else 0
        for worker in (*([wanted] if wanted is not None else []), *ready[first:], *ready[:first]):
            if worker.give(connection):
                self._connections.watch(connection)
                return worker
        return None

    def known_to_clients(self) -> list[Worker]:
        """Return whom a relay may choose for a client that is new; nobody while two builds are compared: it asks."""
        return self.pool.ready if self.next_side is None else []

    def choose_for_clients(self) -> None:
        """Have relays ask, from now on, who gets a client that is new."""
        for worker in self.pool.ready if self.pool.spec.ties else ():
            self._connections.on_untied(worker.number)

    def serve_waiting(self) -> None:
        """Give away what waits, as far as there are workers to take it."""
        if self.pool.ready:
            self.waiters.tell(None)
        self._queue.serve()

    def place_waiting_again(self) -> None:
        """Perhaps there is somebody now who takes what waits."""
        for connection in self._queue.take_all():
            self.place(connection)

    def await_worker(self, connection: Connection) -> None:
        """It waits, behind those that wait already."""
        self._queue.add(connection)

    def even_out(self) -> None:
        """To be called every second or so: after a death or a slow spell some workers hold more than their share."""
        ready = [] if self.pool.spec.ties else self.pool.ready
        for worker, surplus in zip(ready, excess([worker.slots.connections for worker in ready]), strict=True):
            if surplus or (self.goes_round() and worker.slots.idle_keeping):
                worker.shed(surplus or worker.slots.idle)

    # -- what comes back -----------------------------------------------------------------------------------------

    def over(self, connection: Connection) -> None:
        """Its other side has left."""
        if connection.worker is not None:
            # The worker may still be answering a half-closed client, so only our duplicate goes.
            connection.worker.drop(connection)
            self._connections.forget(connection)
        else:
            self._queue.discard(connection)
            if self.successor is not None:
                self.successor.left(connection)
            self._connections.end(connection)

    @mishaps.or_else(lambda self, connection, *_: self.over(connection))
    def returned(self, connection: Connection, worker: Worker) -> None:
        """``worker`` gave it back at a request boundary."""
        connection.since = time.monotonic()
        self._untie(connection, worker)
        self._see_to(connection, self.takeover.returned(worker in self._serving()))

    @mishaps.or_else(lambda self, connection, *_: self.over(connection))
    def orphaned(self, connection: Connection, state: int) -> None:
        """Its worker is dead: what that worker had not begun to read is as good as new."""
        self._untie(connection, connection.worker)
        connection.worker = None
        self._see_to(connection, self.takeover.orphaned(state in _UNTOUCHED))

    def _untie(self, connection: Connection, worker: ConnectionHolder | None) -> None:
        """It stays with ``worker`` no more: another may answer what is on its way on it, and nothing behind that."""
        if connection.flags & TAKE_TIED:
            connection.flags = (connection.flags | TAKE_LAST) & ~TAKE_TIED
            if worker is not None:
                self._connections.on_untied(worker.number)

    def _see_to(self, connection: Connection, fate: Fate) -> None:
        pass_on, successor = self._recourse.pass_on, self._recourse.successor
        if fate is Fate.PLACE:
            self.place(connection)
        elif fate is Fate.PARK:
            self._connections.park(connection)
        elif fate is Fate.REOPEN and successor is not None:
            successor.take(connection)
        elif fate is Fate.PASS_ON and pass_on is not None:
            pass_on(connection, self)
        else:
            self._connections.end(connection)

    def _part_with_queue(self) -> None:
        """This app is told to go, and what waits is idle, as far as anybody knows."""
        for connection in self._queue.take_all():
            self._see_to(connection, self.takeover.idle())

    # -- those who ask whether there is a worker -----------------------------------------------------------------

    @property
    def is_hopeless(self) -> bool:
        """There is no worker, and there have been many failures in a row, or its code is broken."""
        return not self.pool.ready and (self.takeover.broken is not None or self.pool.is_hopeless)

    def _serving(self) -> list[Worker]:
        """Those that get requests, of a build that is tried, too."""
        coming = self.takeover.coming
        return self.pool.ready if coming is None else [*self.pool.ready, *coming.ready]

    @property
    def is_idle(self) -> bool:
        """Nothing is being answered, and nobody waits."""
        return not self._queue and not any(worker.load().busy for worker in self._serving())

    @property
    def has_open_ends(self) -> bool:
        """See ``SlotTable.has_open_ends``."""
        return any(worker.slots.has_open_ends for worker in self._serving())

    def requests_begun(self) -> int:
        """A number that grows with each request, for as long as no worker is replaced."""
        return sum(worker.gauges.requests() for worker in self._serving())

    def when_ready(self, token: Hashable, tell: Callable[[Refusal | None], None]) -> None:
        """Call ``tell(None)`` once there is a worker, at once if there is; with a refusal when there will be none."""
        if self.pool.ready:
            tell(None)
            return
        hopeless: StartFailed | None = self.pool.core.last_failure if self.pool.is_hopeless else None
        refusal = self.takeover.refusal(hopeless)
        if refusal is not None:
            tell(refusal)
        else:
            self.waiters[token] = tell
