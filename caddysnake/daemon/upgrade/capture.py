"""All that runs, to a state: what ``serving`` holds, for the next image of the daemon.

Reading it changes nothing, so a state may be made for a rehearsal. What is on its way just then is not in it, and comes
about anew: apps that are starting, code that is being tried, needs that wait (a relay's are asked again).
"""

from __future__ import annotations

from ..apps.app import App
from ..apps.source import WorkerSource
from ..sockets.addresses import plain_key
from ..sockets.connections import Connection
from ..supervisor.supervisor import Supervisor
from ..system import tempdirs
from ..system.state import CarriedApp, CarriedConnection, CarriedNeed, State
from ..tenants.tenants import Tenants


def capture(serving: Supervisor, state: State) -> None:
    """Put all that ``serving`` runs into ``state``."""
    numbers = _Numbers()
    state.apps = [numbers.carry(app) for app in serving.apps.values()]
    state.parting = [numbers.carry(each) for each in serving._parting if isinstance(each, App)]
    for gone in serving._parting:
        if isinstance(gone, Tenants):
            state.parting += [numbers.carry(app) for app in gone.all_apps()]
    if serving.relays is not None:
        state.relays = numbers.carry(serving.relays)
        state.relay_pids = serving.starter.carry()
        state.relay_outlets = serving.starter.carry_outlets()
    for tenants in serving.templates.values():
        state.estates.append(tenants.carry(numbers.carry))
    for connection in serving.connections:
        if isinstance(connection.app, App) and connection.app not in numbers.known:
            _carry_former(connection.app, serving, state, numbers)
        state.connections.append(_carry_connection(connection, numbers))
    if serving.relays is not None:
        for generation, desk in serving.relays.desks().items():
            state.desks.append(desk.carry(generation, numbers.known))
            state.needs += [CarriedNeed(relay=number, **need._asdict()) for number, need in desk.needs()]
    for key, bound in serving._bound.items():
        owner = bound.app
        app = numbers.known[owner] if isinstance(owner, App) and owner is not serving.relays else -1
        carried = bound.listener.carry(bound.number, plain_key(key), app)
        carried.origin = serving._openings.origin(bound.listener)
        state.listeners.append(carried)
    state.listener_numbers = serving._numbers
    state.worker_numbers = WorkerSource.numbered()
    state.spawners = serving.spawners.carry()
    serving.spawners.hosts.carry(state)
    state.uids = sorted(serving.spawners.uids)
    state.disbelieved = sorted(serving.trust.disbelieved)
    state.scratch = tempdirs.base()
    state.changes_from = serving._autoreload.unheeded_since()


class _Numbers:
    """The ids of the apps that have been carried."""

    def __init__(self) -> None:
        self.known: dict[App, int] = {}

    def carry(self, app: App) -> CarriedApp:
        self.known[app] = len(self.known)
        return app.carry(self.known[app])


def _carry_former(app: App, serving: Supervisor, state: State, numbers: _Numbers) -> None:
    """``app`` has ended; idle connections that it had wait for whoever comes after it."""
    for tenants, carried in zip(serving.templates.values(), state.estates, strict=True):
        key = tenants.successor_key(app)
        if key is not None:
            carried.leaving.append((key, numbers.carry(app)))
            return
    state.parting.append(numbers.carry(app))


def _carry_connection(connection: Connection, numbers: _Numbers) -> CarriedConnection:
    worker = connection.worker
    return CarriedConnection(
        fd=connection.fd,
        flags=connection.flags,
        app=numbers.known[connection.app] if isinstance(connection.app, App) else -1,
        listener=connection.bound.number if connection.bound is not None else -1,
        worker=worker.number if worker is not None else -1,
        slot=connection.slot,
    )
