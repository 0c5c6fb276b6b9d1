"""The relays as an app of their own, kept up as an app's workers are."""

from __future__ import annotations

from ...channel.messages import FromRelay, Left
from ..apps.app import App
from ..apps.dispatcher import Recourse
from ..apps.pool import Pool
from ..apps.spec import PoolSpec
from ..sockets.connections import Connection, Connections
from ..workers.worker import Worker
from .launcher import RelayStarter
from .link_broker import LinkBroker


class Relays(App):
    """The relays as an app of their own. Each generation has the broker that knows its names of the apps."""

    is_ours = True

    def __init__(self, spec: PoolSpec, starter: RelayStarter, connections: Connections, recourse: Recourse) -> None:
        super().__init__(spec, starter, connections, recourse)
        self._brokers: dict[int, LinkBroker] = {}
        self._starter = starter
        self.is_wanted = False
        """There is, or was, something that needs them."""

    async def start_as(self, spec: PoolSpec, broker: LinkBroker) -> float:
        """Start for the first time, as ``spec`` has it; the seconds it took. Raises ``StartFailed``."""
        self.is_wanted = True
        if self.pool.is_begun:  # and has failed
            took = await self.prepare(spec)
            self.set_broker(broker)
            self.swap()
            return took
        self.takeover.present = Pool(spec, self.pool.generation, self._starter, self)
        self.set_broker(broker)
        return await self.start()

    def set_broker(self, broker: LinkBroker) -> None:
        """``broker`` answers the generation that is prepared, or else the present one."""
        living = {pool.generation for pool in self.pools()}
        self._brokers = {generation: each for generation, each in self._brokers.items() if generation in living}
        self._brokers[self.newest.generation] = broker

    def asked(self, worker: Worker, message: FromRelay) -> None:
        """Hand ``message`` to the broker of the worker's generation; one that is gone is not heard."""
        for pool in self.pools():
            if pool.workers.get(worker.settings.worker_index) is worker or worker in pool.leaving:
                self._brokers[pool.generation].asked(worker, message)
                return

    def untied(self, worker: int) -> None:
        """Tell relays that ``worker`` gives up what is tied to it."""
        for pool in self.pools():
            for relay in pool.everyone():
                relay.tell(Left(worker))

    def brokers(self) -> dict[int, LinkBroker]:
        """The brokers of living generations, by generation."""
        return dict(self._brokers)

    def restore_brokers(self, brokers: dict[int, LinkBroker]) -> None:
        """Go on with those of another image of the daemon."""
        self.is_wanted = True
        self._brokers = brokers

    def sweep(self) -> None:
        """To be called every second or so."""
        for broker in self._brokers.values():
            broker.sweep()
        if self.pool.ready and not self.is_stopping:
            self._starter.keep_spare()

    def stop(self) -> None:
        """See ``App.stop``; nobody need stand by any more."""
        self._starter.let_spare_go()
        super().stop()

    def borrow(self, connection: Connection) -> bool:
        """Take a connection of an app that is not up; False when no relay can take it now."""
        if not self.pool.ready:
            return False
        relay = min(self.pool.ready, key=lambda each: each.load().busy)
        if not relay.give(connection, borrowed=True):
            return False
        self._connections.watch(connection)
        return True

    def returned(self, connection: Connection, worker: Worker) -> None:
        """See ``App.returned``; what was borrowed is its app's own again."""
        if connection.app is not self:
            # Borrowed: the app's own again. Whether it has a worker by now matters when the next request comes.
            self._connections.park(connection)
        else:
            super().returned(connection, worker)

    def orphaned(self, connection: Connection, state: int) -> None:
        """See ``App.orphaned``; what was borrowed is its app's to see to."""
        if isinstance(connection.app, App) and connection.app is not self:
            connection.app.orphaned(connection, state)
        else:
            super().orphaned(connection, state)
