"""What a change makes of the relays."""

from __future__ import annotations

from ..apps.spec import PoolSpec
from ..system.log.fields import FieldLog
from ..workers.worker import Worker
from .app_changes import AppsChange
from .change import ListenersChange
from .desired import Desired
from .running import Running

log = FieldLog("caddysnake.daemon")


class RelaysChange:
    """Starts the relays, where something needs them, or gives them new workers with new tables."""

    def __init__(
        self, running: Running, desired: Desired, listeners: ListenersChange, apps: AppsChange | None = None,
        changed_only: bool = False,
    ) -> None:  # fmt: skip
        self._running = running
        self._desired = desired
        self._listeners = listeners
        self._apps = apps
        self._changed_only = changed_only
        self._is_renewed = False

    async def prepare(self) -> None:
        """Raises ``StartFailed``."""
        await self._prepare()
        if self._apps is not None:
            self._apps.others_are_ready.set()

    async def _prepare(self) -> None:
        desired, relays = self._desired, self._running.relays
        relayed = [binding for binding in desired.bindings if binding.app is None]
        if not relayed and not relays.is_wanted:
            return
        spec = self._listeners.arranged(desired.relay)
        if self._changed_only and self._suits(spec):
            return
        if relays.pool.is_started:
            took = await relays.prepare(spec)
            self._is_renewed = True
        else:
            took = await relays.start_as(spec, self._running.new_broker(desired))
            for app in self._running.apps.values():
                app.place_waiting_again()  # what waits for one that is not up is answered by a relay
        names = self._listeners.names_of(relayed)
        templates = ", ".join(tenants.name for tenants in desired.templates.values())
        listener, ms = ", ".join(names) or "none", round(took * 1000)
        log.info("relay ready", listener=listener, mode="relay", relays=spec.workers, templates=templates, ms=ms)

    def _suits(self, spec: PoolSpec) -> bool:
        """The relays that run may go on: their tables say the same, and so do the numbers in them."""
        running, desired = self._running, self._desired
        kept = {} if self._apps is None else self._apps.kept
        if not running.relays.pool.is_started or running.relays.spec != spec:
            return False
        apps = {number: running.apps.get(each.name) for number, each in running.desired.apps.items()}
        if apps != {number: kept.get(each.name) for number, each in desired.apps.items()}:
            return False
        former = {number: (each.name, each.identity) for number, each in running.desired.templates.items()}
        return former == {number: (each.name, each.identity) for number, each in desired.templates.items()}

    def commit(self) -> None:
        """Swap generations; what is gone is let go, once no relay may still ask for it."""
        running, relays = self._running, self._running.relays
        asking: list[Worker] = []
        if relays.is_wanted:
            relays.set_broker(running.new_broker(self._desired))
        if self._is_renewed:
            asking = list(relays.pool.workers.values())
            relays.swap()
        for each in self._apps.gone if self._apps is not None else ():
            running.part_with(each, asking)

    def rollback(self) -> None:
        """Let the new relays go."""
        self._running.relays.discard()
