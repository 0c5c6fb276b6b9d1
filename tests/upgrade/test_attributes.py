"""Whatever the daemon remembers is carried into its next image, or left out knowingly.

Who gives one of these classes another attribute decides which: `snapshot` and `restore` beside it, and a field with a
default in `daemon/system/state.py`; or nothing, where it comes about anew. Then its name belongs in the table.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

LOOKED_AT = {
    "workers.worker.Worker": (
        "_deadline _failure _giving _grace_s _is_held _reaping _sink _start_timeout_s _timings detail ended gauges "
        "has_served is_hung last_cpu_s number peer process ready_at reported settings slots started_at state watch"
    ),
    "workers.process.WorkerProcess": (
        "_settings gauges shares_process"
    ),
    "workers.gauges.Gauges": (
        "_at_the_end _threads answered_for fd is_over last_cells page slots"
    ),
    "workers.slots.SlotTable": (
        "_drop_order _dropped _free _fresh _held _limit _moved_at _states _untaken"
    ),
    "workers.deadline.Deadline": (
        "_gauges _grace_s _kept_until _loop _on_over _silence _timer"
    ),
    "workers.child.child.Child": (
        "_outlets _reaping _theirs confinement killed_for launcher number peer pid pidfd"
    ),
    "workers.child.child.Confinement": (
        "_app _bounds _group _number _task"
    ),
    "workers.child.peer.Peer": (
        "_allowance _endpoint _hear _is_writing _loop _on_breach _on_closed _per_second"
    ),
    "apps.folder.PrivateFolder": (
        "_app _lock _path _uid"
    ),
    "apps.surroundings.AppSurroundings": (
        "_coming _folder _ledger"
    ),
    "commands.background.Background": (
        "_due _fullness _has_schedules _is_over _predecessors _seen app around closed leaving processes schedules"
    ),
    "commands.process.SupervisedProcess": (
        "_backoff _due _execution _leaving _pid _renewing _stop_by _surroundings _task _told app ended index is_full "
        "label last_end restarts since spec state"
    ),
    "commands.schedule.Schedule": (
        "_is_over _surroundings _tasks _timetable app last_run missed runs skipped spec"
    ),
    "tenants.schedules.TenantSchedules": (
        "_is_over _looked_up _slots _table _tasks _told _waiting active last left_out may_begin timetables"
    ),
    "commands.session.Session": (
        "_is_starting _sock app command execution"
    ),
    "supervisor.oneoff.OneOffs": (
        "_patient_until _running _tasks sessions"
    ),
    "commands.execution.Execution": (
        "_group _mark _outlets _pidfd _process _reaped _reaping app ending name pid started_at"
    ),
    "apps.pool.Pool": (
        "_audit _home _news _pauses _source _started _starts _tasks _warming core generation leaving ledger ready "
        "spec upkeep workers"
    ),
    "apps.generation.Generation": (
        "awaited backoff crashes goal last_failure leaving ready replacing restarts size state workers"
    ),
    "apps.source.WorkerSource": (
        "_build _folder _launchers _spec _threads"
    ),
    "apps.upkeep.Upkeep": (
        "_carry_out _generation _ledger _limits _source _spawn _spec"
    ),
    "apps.app.App": (
        "_growing _launchers _loop _reaps _renewing background builds changing comes_up deploys exchange fallen folder "
        "goes_round hurry ledger scaled surroundings"
    ),
    "apps.takeover.Takeover": (
        "attempts broken coming former is_stopping is_succeeded kept present retry_after_s"
    ),
    "apps.dispatcher.Dispatcher": (
        "_connections _queue _recourse _turn goes_round max_queue next_side takeover waiters"
    ),
    "apps.queue.ConnectionQueue": (
        "_connections _give _has_worker _retry"
    ),
    "tenants.tenants.Tenants": (
        "_connections _loop _renewals _starter _table ages all_apps leaving ledger outdated reload schedules"
    ),
    "tenants.tenant.TenantTable": (
        "_complaints _connections _successor_of _tenants guard is_stopping launchers leaving ledger loop policy "
        "released known spec tasks"
    ),
    "tenants.tenant.Tenant": (
        "app is_outdated key looking promised_at renewal requests spec starting waiters"
    ),
    "tenants.starting.TenantStarter": (
        "_late _starts _table _took _under_way"
    ),
    "tenants.renewing.TenantRenewals": (
        "_canary _table _task"
    ),
    "tenants.policy.TenantPolicy": (
        "_absent _capacity _evicted _failures _idle_timeout_s _is_idle _max_queue _queue _stages _used _waiting"
    ),
    "workers.forking.fork_server.ForkServer": (
        "_broken _busy_at _forks _key _libraries _loop _output _pidfd _prepared _reapings _reaps _unwanted "
        "_waiting gone peer process sight timings workers"
    ),
    "workers.forking.fork_servers.ForkServers": (
        "_by_key _kept _leaving _libraries _looked_at _most _outdated _sights _told_of timings uids"
    ),
    "workers.threads.host.ThreadHost": (
        "_answer_by _answers _ended _idle_since _left_behind _loop _lost_s _on_crash _reaping _scratch _settings "
        "_stragglers _threads child ever gone groups is_private launcher number peer place state status"
    ),
    "workers.threads.placement.Placement": (
        "_group _host _hosts _of is_private key root settings"
    ),
    "workers.threads.hosts.ThreadHosts": (
        "_crashes _fork_servers _hosts _locks _may_share_folders _numbers _private"
    ),
    "relays.launcher.RelayStarter": (
        "_early _processes _spare"
    ),
    "relays.relays.Relays": (
        "_brokers _starter is_wanted"
    ),
    "relays.link_broker.LinkBroker": (
        "_apps _connections _development _templates _loop _max_queue _needs _open"
    ),
    "sockets.listener.Listener": (
        "_complained _identity _kind _lock _loop _on_burst _on_connection _paused _told_at has_room name path "
        "sock trouble"
    ),
    "sockets.opener.ListenerOpener": (
        "_adopted _notifier _origins _passed"
    ),
    "sockets.connections.Connection": (
        "app bound events fd flags parked since slot turns worker"
    ),
    "sockets.connections.Connections": (
        "_by_fd _epoll _loop _on_over _on_request on_untied shares"
    ),
    "sockets.connections.BoundListener": (
        "app gathering held listener number"
    ),
    "sockets.listeners.Trust": (
        "_proxies _users disbelieved"
    ),
    "sockets.listeners.Listeners": (
        "_bound _connections _former _given _looked_at _loop _opener _trust numbers"
    ),
    "supervisor.beginnings.Beginnings": (
        "_again _is_up _starts deciding hopes"
    ),
    "supervisor.running.Running": (
        "_lend _loop _tasks app_metrics apps autoreload bell beginnings connections desired fallback is_hurried "
        "is_stopping listeners oneoffs origins parting relays restarts starter starts templates trust"
    ),
    "supervisor.supervisor.Supervisor": (
        "_changers _changing _may_change _shutdown budget running"
    ),
    "supervisor.reloads.Reloads": (
        "_coming _control_endpoints _front_proxy _is_stopping _is_up _loop _service _serving _turn _unasked builds "
        "configuration reader under_way"
    ),
    "apps.counters.Counters": (
        "_parent cells cpu_s is_trial last_failure over_at refusals relayed restarts starts"
    ),
    "apps.builds.Builds": (
        "_number refused running times_accepted times_refused verdicts"
    ),
    "supervisor.caddy.process.Caddy": (
        "_asking _backoff _binary _door _ended _file _folder _knows_default _loop _output _part _pidfd "
        "_process _ready _restart _spared _started_at _stopping"
    ),
    "system.log.process.LogProcess": (
        "_again _answers _asking _beat_at _channel _is_armed _is_wanted _lock _lost _loop _outbox _outlets _pidfd "
        "_process _remembers _unanswered unmarks"
    ),
    "main.Daemon": (
        "_control_endpoints _control_task _front_proxy _exchanging _forced _has_served _inheritance _loop _service "
        "_signalled _stop _sweeping _told_at _upgrade _upgrading phase reloads running serving started_at "
        "upgrade_refused upgrades"
    ),
}


def attributes(module: str, name: str) -> set[str]:
    """All that are set on `self`."""
    file = import_module(f"caddysnake.daemon.{module}").__file__
    assert file is not None
    (body,) = (
        node
        for node in ast.parse(Path(file).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        node.attr
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


@pytest.mark.parametrize("place", LOOKED_AT)
def test_every_attribute_was_looked_at(place: str) -> None:
    module, _, name = place.rpartition(".")
    assert attributes(module, name) == set(LOOKED_AT[place].split()), "carry it over an upgrade, or not? See above"
