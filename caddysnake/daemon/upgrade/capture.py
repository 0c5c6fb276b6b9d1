"""All that runs, to a state: what ``running`` holds, for the next image of the daemon.

Reading it changes nothing, so a state may be made for a rehearsal. What is on its way just then is not in it, and comes
about anew: apps that are starting, code that is being tried, needs that wait (a relay's are asked again).
"""

from __future__ import annotations

from ..apps.app import App
from ..apps.source import WorkerSource
from ..sockets.connections import Connection
from ..supervisor.running import Running
from ..system import tempdirs
from ..system.carried import CarriedNeed
from ..system.state import CarriedApp, CarriedConnection, State
from ..tenants.tenants import Tenants


def capture(running: Running, state: State) -> None:
    """Put all of ``running`` into ``state``."""
    numbers = _Numbers()
    state.apps = [numbers.carry(app) for app in running.apps.values()]
    state.parting = [numbers.carry(each) for each in running.parting if isinstance(each, App)]
    for gone in running.parting:
        if isinstance(gone, Tenants):
            state.parting += [numbers.carry(app) for app in gone.all_apps()]
    if running.relays.pool.is_begun:
        state.relays = numbers.carry(running.relays)
        state.relay_pids = running.starter.carry()
        state.relay_outlets = running.starter.carry_outlets()
    for tenants in running.templates.values():
        state.estates.append(tenants.carry(numbers.carry))
    for connection in running.connections:
        if isinstance(connection.app, App) and connection.app not in numbers.known:
            _carry_former(connection.app, running, state, numbers)
        state.connections.append(_carry_connection(connection, numbers))
    if running.relays.pool.is_begun:
        for generation, desk in running.relays.desks().items():
            state.desks.append(desk.carry(generation, numbers.known))
            state.needs += [CarriedNeed(relay=number, **need._asdict()) for number, need in desk.needs()]
    state.listeners = running.listeners.carry(
        lambda owner: numbers.known[owner] if isinstance(owner, App) and owner is not running.relays else -1
    )
    state.listener_numbers = running.listeners.numbers
    state.worker_numbers = WorkerSource.numbered()
    state.sessions = running.oneoffs.carry()
    state.spawners = running.spawners.carry()
    running.spawners.hosts.carry(state)
    state.uids = sorted(running.spawners.uids)
    state.disbelieved = sorted(running.trust.disbelieved)
    state.scratch = tempdirs.base()
    state.app_metrics = running.app_metrics.carry()
    state.changes_from = running.autoreload.unheeded_since()


class _Numbers:
    """The ids of the apps that have been carried."""

    def __init__(self) -> None:
        self.known: dict[App, int] = {}

    def carry(self, app: App) -> CarriedApp:
        self.known[app] = len(self.known)
        return app.carry(self.known[app])


def _carry_former(app: App, running: Running, state: State, numbers: _Numbers) -> None:
    """``app`` has ended; idle connections that it had wait for whoever comes after it."""
    for tenants, carried in zip(running.templates.values(), state.estates, strict=True):
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
