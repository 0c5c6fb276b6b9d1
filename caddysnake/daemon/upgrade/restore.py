"""From a state to all that runs: the next image of the daemon goes on where the last one was."""

from __future__ import annotations

from ...channel.messages import Need
from ..apps.app import App
from ..apps.counters import Counters
from ..apps.dispatcher import ALONE, Recourse
from ..apps.source import WorkerSource
from ..apps.spec import PoolSpec
from ..relays.link_broker import LinkBroker
from ..sockets.addresses import key_from_plain, key_of, plain_key
from ..sockets.connections import BoundListener, Connection
from ..sockets.listener import resume as resume_listener
from ..supervisor.desired import Desired, successors
from ..supervisor.supervisor import Supervisor
from ..system import tempdirs
from ..system.state import (
    CarriedApp,
    CarriedEstate,
    CarriedPool,
    CarriedWorker,
    State,
    StateError,
)
from ..workers.child.launcher import Launcher
from ..workers.worker import Worker
from .specs import place_of, spawner_key_of, spec_of


def differences(state: State, composition: Desired) -> list[str]:
    """What ``composition`` has otherwise than what runs. None is what should be: an upgrade is not a reload.

    Raises ``StateError`` for a state that cannot be read.
    """
    found = []
    open_now = {tuple(each.key) for each in state.listeners}
    wanted = {tuple(plain_key(key_of(binding.address))) for binding in composition.bindings}
    found += [f"listens on {_written(key)} no more" for key in sorted(open_now - wanted, key=str)]
    found += [f"listens on {_written(key)}" for key in sorted(wanted - open_now, key=str)]
    running = {spec.name: spec.identity for spec in (spec_of(app.pool.spec) for app in state.apps)}
    named = {spec.name: spec.identity for spec in composition.apps.values()}
    kept = successors(running, named)
    found += [f"has an app {name}" for name in named if name not in kept]
    found += [f"has no app {name}" for name in running if name not in kept.values()]
    templates, living = {spec.name for spec in composition.templates.values()}, {each.name for each in state.estates}
    found += [f"has a template {name}" for name in sorted(templates - living)]
    found += [f"has no template {name}" for name in sorted(living - templates)]
    if not found and state.relays is not None and state.desks:
        newest = max(state.desks, key=lambda desk: desk.generation)
        names = {app.id: str(app.pool.spec["name"]) for app in state.apps}
        routes = {route: names.get(number, "") for route, number in newest.apps.items()} | newest.estates
        wanted_routes = {number: spec.name for number, spec in composition.apps.items()}
        wanted_routes |= {number: spec.name for number, spec in composition.templates.items()}
        if routes != wanted_routes:
            found.append("names its apps, or orders them, otherwise")
    return found


def adopt_listeners(serving: Supervisor, state: State) -> None:
    """What ``serving``, which runs nothing, listens on is open already."""
    for each in state.listeners:
        listener = resume_listener(each)
        serving._openings.resume(listener, each.origin)
        serving._openings.adopt(key_from_plain(each.key), listener)


def _written(key: tuple[str | int, ...]) -> str:
    return f"{key[0]}/{':'.join(map(str, key[1:]))}"


class Resumption:
    """Lets ``serving``, which is new and runs nothing, go on where ``state`` says."""

    def __init__(self, serving: Supervisor, state: State) -> None:
        self._serving = serving
        self._state = state
        self._spawners: dict[int, Launcher] = {}
        self._workers: dict[int, Worker] = {}
        self._apps: dict[int, App] = {}
        self._waiting: set[int] = set()

    def run(self) -> None:
        """All of it, at once. Raises ``StateError``, ``OSError``, ``ValueError``."""
        serving, state = self._serving, self._state
        WorkerSource.number_from(state.worker_numbers)
        tempdirs.resume(state.scratch)
        serving.spawners.uids |= set(state.uids)
        serving.trust.disbelieved |= set(state.disbelieved)
        serving._set_trusted(serving.composition)
        self._spawners.update(serving.spawners.resume((each, spawner_key_of(each.key)) for each in state.spawners))
        serving.starter.resume(state.relay_pids, state.relay_outlets)
        serving.spawners.hosts.resume(state, place_of, lambda pid: self._spawners.get(pid, serving.starter))
        self._resume_listeners()
        self._resume_apps()
        self._resume_connections()
        for worker in self._workers.values():
            worker.slots.reconcile()
        self._resume_desks()
        serving.watch_from(state.changes_from)
        for tenants in serving.templates.values():
            tenants.watch_from(state.changes_from)

    def _resume_listeners(self) -> None:
        serving = self._serving
        serving._numbers = self._state.listener_numbers
        for each in self._state.listeners:
            listener = resume_listener(each)
            serving._openings.resume(listener, each.origin)
            serving._bound[key_from_plain(each.key)] = BoundListener(listener, each.number)

    def _resume_apps(self) -> None:
        serving, state = self._serving, self._state
        composition = serving.composition
        specs = {each.id: spec_of(each.pool.spec) for each in state.apps}
        running = {specs[each.id].name: specs[each.id].identity for each in state.apps}
        wanted = {spec.name: spec for spec in composition.apps.values()}
        identities = {name: spec.identity for name, spec in wanted.items()}
        kept = {former: name for name, former in successors(running, identities).items()}
        for each in state.apps:
            spec = specs[each.id]
            successor = kept.get(spec.name)
            # What starts from now on is what this version makes of the configuration; how many there are, is as it was.
            # One whose folder, say, is not there just now goes on as it is.
            later = None if successor is None or wanted[successor].cannot else wanted[successor]
            app = serving._new_app(spec if later is None else later._replace(workers=spec.workers))
            self._resume_app(each, app)
            if successor is None:
                serving._part_with(app)
            else:
                serving.apps[successor] = app
                serving.resume_beginning(app)
        for each in state.parting:
            app = self._resume_tenant(each, Recourse(pass_on=serving._pass_on))
            if app.is_stopping:
                serving._see_off(app)
            else:
                serving._part_with(app)
        serving._bound_queues(composition)
        serving._make_templates(composition)
        for carried in state.estates:
            self._resume_template(carried)
        if state.relays is not None:
            former = spec_of(state.relays.pool.spec)
            arranged = None if differences(state, composition) else serving.arranged(composition)
            spec = former if arranged is None else arranged._replace(workers=former.workers)
            relays = serving._new_relays(spec, composition)
            self._resume_app(state.relays, relays)
            serving.relays = relays
        for listener, bound in zip(state.listeners, serving._bound.values(), strict=True):
            bound.app = serving.relays if listener.app < 0 else self._apps[listener.app]
            if bound.app is None:
                raise StateError(f"nobody serves {listener.name}")
            serving._accept(bound)

    def _resume_template(self, carried: CarriedEstate) -> None:
        serving = self._serving
        tenants = serving.templates.get(carried.name)
        if tenants is not None:
            tenants.ledger.resume(carried.ledger)
            tenants.resume(carried, lambda each, recourse: self._resume_tenant(each, recourse, tenants.ledger))
            return
        for each in [*(tenant.app for tenant in carried.apps), *(app for _, app in carried.leaving)]:
            serving._part_with(self._resume_tenant(each))

    def _resume_tenant(
        self, carried: CarriedApp, recourse: Recourse = ALONE, ledger: Counters | None = None
    ) -> App:
        spec, serving = spec_of(carried.pool.spec), self._serving
        app = App(spec, serving.spawners, serving.connections, recourse, Counters(ledger))
        return self._resume_app(carried, app)

    def _resume_app(self, carried: CarriedApp, app: App) -> App:
        self._workers |= app.resume(carried, _spec_of, self._spawner_of)
        self._apps[carried.id] = app
        return app

    def _spawner_of(self, worker: CarriedWorker) -> Launcher:
        # The children of a spawner that has died are ours, as relays are.
        return self._spawners.get(worker.spawner, self._serving.starter)

    def _resume_connections(self) -> None:
        connections = self._serving.connections
        listeners = {bound.number: bound for bound in self._serving._bound.values()}
        resumed: dict[int, Connection] = {}
        for each in self._state.connections:
            app = self._apps[each.app] if each.app >= 0 else self._serving.farewell
            connection = Connection(each.fd, each.flags, app, listeners.get(each.listener))
            connections.adopt(connection)
            resumed[each.fd] = connection
            worker = self._workers.get(each.worker)
            if worker is not None:
                worker.attach(connection, each.slot)
                connections.watch(connection)
            else:
                connections.park(connection)
        for carried in self._state.all_apps():
            for fd in carried.waiting:
                if fd in resumed:
                    self._apps[carried.id].await_worker(resumed[fd])

    def _resume_desks(self) -> None:
        relays = self._serving.relays
        if relays is None:
            return
        desks = {}
        known = self._serving.templates
        for each in self._state.desks:
            apps = {route: self._apps[number] for route, number in each.apps.items()}
            templates = {route: known[name] for route, name in each.estates.items() if name in known}
            desks[each.generation] = LinkBroker(
                self._serving.connections, apps, templates, each.max_queue, frozenset(each.development)
            )
        relays.resume_desks(desks)

    def serve(self) -> None:
        """Take up what waited: to be called when everything can be answered."""
        for app in self._apps.values():
            app.serve_waiting()
        relays = self._serving.relays
        for each in self._state.needs:
            relay = self._workers.get(each.relay)
            if relays is not None and relay is not None:
                relays.asked(relay, Need(each.need, each.route, each.key))


def _spec_of(pool: CarriedPool) -> PoolSpec:
    return spec_of(pool.spec)

