"""From a state to all that runs: the next image of the daemon goes on where the last one was."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from ...channel.messages import Need, Seek
from ..apps.app import App
from ..apps.counters import Counters
from ..apps.dispatcher import ALONE, Recourse
from ..apps.source import WorkerSource
from ..apps.spec import PoolSpec
from ..relays.link_broker import LinkBroker
from ..sockets.addresses import key_of, plain_key
from ..sockets.connections import Connection, ListenerOwner
from ..supervisor.change import ListenersChange
from ..supervisor.desired import Desired, successors
from ..supervisor.running import Running
from ..system import tempdirs
from ..system.as_json import named
from ..system.sealed import malformed
from ..system.state import (
    AppSnapshot,
    DaemonSnapshot,
    PoolSnapshot,
    TenantsSnapshot,
    WorkerSnapshot,
)
from ..workers.child.child import Launcher
from ..workers.child.launcher import ForkServerKey
from ..workers.threads.host import HostPlace
from ..workers.worker import Worker

_Kind = TypeVar("_Kind")


def spec_of(pool: PoolSnapshot) -> PoolSpec:
    """What ``pool`` runs. Raises ``StateError``."""
    return _restored(PoolSpec, pool.spec)


def _restored(kind: type[_Kind], raw: dict[str, Any]) -> _Kind:
    """The ``kind`` of which ``plain`` made ``raw``. Raises ``StateError``."""
    try:
        return named(kind, raw)
    except ValidationError as exc:
        raise malformed(exc) from None


def differences(state: DaemonSnapshot, composition: Desired) -> list[str]:
    """What ``composition`` has otherwise than what runs: nothing, if all is well. Raises ``StateError``."""
    found = []
    open_now = {tuple(each.key) for each in state.listeners}
    wanted = {tuple(plain_key(key_of(binding.address))) for binding in composition.bindings}
    found += [f"listens on {_written(key)} no more" for key in sorted(open_now - wanted, key=str)]
    found += [f"listens on {_written(key)}" for key in sorted(wanted - open_now, key=str)]
    running = {spec.name: spec.identity for spec in (spec_of(app.pool) for app in state.apps)}
    named = {spec.name: spec.identity for spec in composition.apps.values()}
    kept = successors(running, named)
    found += [f"has an app {name}" for name in named if name not in kept]
    found += [f"has no app {name}" for name in running if name not in kept.values()]
    templates, living = {spec.name for spec in composition.templates.values()}, {each.name for each in state.estates}
    found += [f"has a template {name}" for name in sorted(templates - living)]
    found += [f"has no template {name}" for name in sorted(living - templates)]
    if not found and state.relays is not None and state.desks:
        newest = max(state.desks, key=lambda broker: broker.generation)
        names = {app.id: str(app.pool.spec["name"]) for app in state.apps}
        routes = {route: names.get(number, "") for route, number in newest.apps.items()} | newest.estates
        wanted_routes = {number: spec.name for number, spec in composition.apps.items()}
        wanted_routes |= {number: spec.name for number, spec in composition.templates.items()}
        if routes != wanted_routes:
            found.append("names its apps, or orders them, otherwise")
    return found


def _written(key: tuple[str | int, ...]) -> str:
    return f"{key[0]}/{':'.join(map(str, key[1:]))}"


class Resumption:
    """Lets ``running``, which is new and runs nothing, go on where ``state`` says."""

    def __init__(self, running: Running, state: DaemonSnapshot) -> None:
        self._running = running
        self._state = state
        self._fork_servers: dict[int, Launcher] = {}
        self._workers: dict[int, Worker] = {}
        self._apps: dict[int, App] = {}
        self._waiting: set[int] = set()

    def run(self) -> None:
        """All of it, at once. Raises ``StateError``, ``OSError``, ``ValueError``."""
        running, state = self._running, self._state
        WorkerSource.number_from(state.worker_numbers)
        tempdirs.restore(state.scratch)
        running.app_metrics.restore(state.app_metrics)
        running.origins.uids |= set(state.uids)
        running.trust.disbelieved |= set(state.disbelieved)
        running.expect(running.desired)
        keyed = ((each, _restored(ForkServerKey, each.key)) for each in state.spawners)
        self._fork_servers.update(running.origins.restore(keyed))
        running.starter.restore(state.relay_pids, state.relay_outlets)
        running.origins.hosts.restore(
            state,
            lambda host: _restored(HostPlace, host.place),
            lambda pid: self._fork_servers.get(pid, running.starter),
        )
        running.listeners.restore(state.listeners, state.listener_numbers)
        self._resume_apps()
        running.oneoffs.restore(state.sessions)
        self._resume_connections()
        for worker in self._workers.values():
            worker.slots.reconcile()
        self._resume_brokers()
        running.watch_from(state.changes_from)
        for tenants in running.templates.values():
            tenants.watch_from(state.changes_from)

    def _resume_apps(self) -> None:
        running, state = self._running, self._state
        desired = running.desired
        specs = {each.id: spec_of(each.pool) for each in state.apps}
        present = {specs[each.id].name: specs[each.id].identity for each in state.apps}
        wanted = {spec.name: spec for spec in desired.apps.values()}
        identities = {name: spec.identity for name, spec in wanted.items()}
        kept = {former: name for name, former in successors(present, identities).items()}
        for each in state.apps:
            spec = specs[each.id]
            successor = kept.get(spec.name)
            # What starts from now on is what this version makes of the configuration; how many there are, is as it was.
            # One whose folder, say, is not there just now goes on as it is.
            # Perhaps the definition was refused, or is being tried.
            is_behind = each.builds.refused is not None or each.trial is not None
            later = None if successor is None or is_behind or wanted[successor].cannot else wanted[successor]
            app = running.new_app(spec if later is None else later._replace(workers=spec.workers))
            self._resume_app(each, app)
            if successor is None:
                running.part_with(app)
            else:
                running.apps[successor] = app
                if app.attempts:
                    running.begin(app)
        for each in state.parting:
            app = self._resume_tenant(each, Recourse(pass_on=running.pass_on))
            if app.is_stopping:
                running.drain_out(app)
            else:
                running.part_with(app)
        running.bound_queues(desired)
        running.make_templates(desired)
        for saved in state.estates:
            self._resume_template(saved)
        if state.relays is not None:
            former = spec_of(state.relays.pool)
            spec = former if differences(state, desired) else self._arranged()._replace(workers=former.workers)
            running.relays = running.new_relays(spec)
            self._resume_app(state.relays, running.relays)
        owners: dict[int, ListenerOwner] = {**self._apps}
        if state.relays is not None:
            owners[-1] = running.relays
        running.listeners.restore_owners(state.listeners, owners.__getitem__)

    def _arranged(self) -> PoolSpec:
        """How relays are to run, now that listeners are open."""
        return ListenersChange(self._running, self._running.desired).arranged(self._running.desired.relay)

    def _resume_template(self, saved: TenantsSnapshot) -> None:
        running = self._running
        tenants = running.templates.get(saved.name)
        if tenants is not None:
            tenants.ledger.restore(saved.ledger)
            tenants.restore(saved, lambda each, recourse: self._resume_tenant(each, recourse, tenants.ledger))
            return
        for each in [*(tenant.app for tenant in saved.apps), *(app for _, app in saved.leaving)]:
            running.part_with(self._resume_tenant(each))

    def _resume_tenant(self, saved: AppSnapshot, recourse: Recourse = ALONE, ledger: Counters | None = None) -> App:
        spec, running = spec_of(saved.pool), self._running
        app = App(spec, running.origins, running.connections, recourse, Counters(ledger), has_schedules=False)
        return self._resume_app(saved, app)

    def _resume_app(self, saved: AppSnapshot, app: App) -> App:
        self._workers |= app.restore(saved, spec_of, self._launcher_of)
        self._apps[saved.id] = app
        return app

    def _launcher_of(self, worker: WorkerSnapshot) -> Launcher:
        # The children of a fork server that has died are ours, as relays are.
        return self._fork_servers.get(worker.spawner, self._running.starter)

    def _resume_connections(self) -> None:
        connections = self._running.connections
        listeners = self._running.listeners.by_number()
        restored: dict[int, Connection] = {}
        for each in self._state.connections:
            app = self._apps[each.app] if each.app >= 0 else self._running.fallback
            connection = Connection(each.fd, each.flags, app, listeners.get(each.listener))
            connections.adopt(connection)
            restored[each.fd] = connection
            worker = self._workers.get(each.worker)
            if worker is not None:
                worker.attach(connection, each.slot)
                connections.watch(connection)
            else:
                connections.park(connection)
        for saved in self._state.all_apps():
            for fd in saved.waiting:
                if fd in restored:
                    self._apps[saved.id].await_worker(restored[fd])

    def _resume_brokers(self) -> None:
        if self._state.relays is None:
            return
        brokers = {}
        known = self._running.templates
        for each in self._state.desks:
            apps = {route: self._apps[number] for route, number in each.apps.items()}
            templates = {route: known[name] for route, name in each.estates.items() if name in known}
            brokers[each.generation] = LinkBroker(
                self._running.connections, apps, templates, each.max_queue, frozenset(each.development)
            )
        self._running.relays.restore_brokers(brokers)

    def serve(self) -> None:
        """Take up what waited: to be called when everything can be answered."""
        for app in self._apps.values():
            app.serve_waiting()
        for each in self._state.needs:
            relay = self._workers.get(each.relay)
            if relay is not None:
                need: Need | Seek = Need(each.need, each.route, each.key)
                if each.worker is not None:
                    need = Seek(each.need, each.route, each.worker, each.key)
                self._running.relays.asked(relay, need)
