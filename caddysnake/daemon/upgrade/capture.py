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
from ..system.snapshots import LinkNeedSnapshot
from ..system.state import AppSnapshot, ConnectionSnapshot, DaemonSnapshot
from ..tenants.tenants import Tenants


def capture(running: Running, state: DaemonSnapshot) -> None:
    """Put all of ``running`` into ``state``."""
    numbers = _Numbers()
    state.apps = [numbers.snapshot(app) for app in running.apps.values()]
    state.parting = [numbers.snapshot(each) for each in running.parting if isinstance(each, App)]
    for gone in running.parting:
        if isinstance(gone, Tenants):
            state.parting += [numbers.snapshot(app) for app in gone.all_apps()]
    if running.relays.pool.is_begun:
        state.relays = numbers.snapshot(running.relays)
        state.relay_pids = running.starter.snapshot()
        state.relay_outlets = running.starter.snapshot_pipes()
    for tenants in running.templates.values():
        state.estates.append(tenants.snapshot(numbers.snapshot))
    for connection in running.connections:
        if isinstance(connection.app, App) and connection.app not in numbers.known:
            _carry_former(connection.app, running, state, numbers)
        state.connections.append(_carry_connection(connection, numbers))
    if running.relays.pool.is_begun:
        for generation, broker in running.relays.brokers().items():
            state.desks.append(broker.snapshot(generation, numbers.known))
            state.needs += [LinkNeedSnapshot(relay=number, **need._asdict()) for number, need in broker.needs()]
    state.listeners = running.listeners.snapshot(
        lambda owner: numbers.known[owner] if isinstance(owner, App) and owner is not running.relays else -1
    )
    state.listener_numbers = running.listeners.numbers
    state.worker_numbers = WorkerSource.numbered()
    state.sessions = running.oneoffs.snapshot()
    state.spawners = running.origins.snapshot()
    running.origins.hosts.snapshot(state)
    state.uids = sorted(running.origins.uids)
    state.disbelieved = sorted(running.trust.disbelieved)
    state.scratch = tempdirs.base()
    state.app_metrics = running.app_metrics.snapshot()
    state.changes_from = running.autoreload.unheeded_since()


class _Numbers:
    """The ids of the apps that have been carried."""

    def __init__(self) -> None:
        self.known: dict[App, int] = {}

    def snapshot(self, app: App) -> AppSnapshot:
        self.known[app] = len(self.known)
        return app.snapshot(self.known[app])


def _carry_former(app: App, running: Running, state: DaemonSnapshot, numbers: _Numbers) -> None:
    """``app`` has ended; idle connections that it had wait for whoever comes after it."""
    for tenants, saved in zip(running.templates.values(), state.estates, strict=True):
        key = tenants.successor_key(app)
        if key is not None:
            saved.leaving.append((key, numbers.snapshot(app)))
            return
    state.parting.append(numbers.snapshot(app))


def _carry_connection(connection: Connection, numbers: _Numbers) -> ConnectionSnapshot:
    worker = connection.worker
    return ConnectionSnapshot(
        fd=connection.fd,
        flags=connection.flags,
        app=numbers.known[connection.app] if isinstance(connection.app, App) else -1,
        listener=connection.bound.number if connection.bound is not None else -1,
        worker=worker.number if worker is not None else -1,
        slot=connection.slot,
    )
