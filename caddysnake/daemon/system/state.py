"""What a daemon leaves to the one that takes its place in the same process: everything that runs, as data.

Descriptors are named by their numbers, which execve(2) keeps. Times are those of CLOCK_MONOTONIC, which goes on. The
form is versioned: a daemon takes over from one that speaks a version it knows, and says so in its rehearsal, while
the other still runs. A field that is added needs a default; one that nobody knows any more is passed over.
"""

from typing import Any

from pydantic import Field

from ...channel.messages import PROTOCOL_VERSION
from . import snapshots

STATE_VERSION = 1
"""Raised whenever an older daemon's state would be misunderstood."""


class StateError(Exception):
    """The state cannot be taken over. The text says why."""


class FailureSnapshot(snapshots.Snapshot):
    """A ``StartFailed`` of the pool of ``app``; ``code`` is a stable word, ``text`` its traceback or reason."""

    app: str
    code: str
    text: str


class RefusedBuildSnapshot(snapshots.Snapshot):
    """A ``RefusedBuild``. ``since`` and ``at``: ``time.time()`` of the first and the last of its ``tries``."""

    number: int
    since: float
    at: float
    tries: int
    code: str
    text: str


class BuildsSnapshot(snapshots.Snapshot):
    """What ``Builds`` counts. ``running``: the number of the build that serves, and ``time.time()`` since when."""

    number: int = 0
    running: tuple[int, float] | None = None
    times_accepted: int = 0
    times_refused: int = 0
    refused: RefusedBuildSnapshot | None = None
    verdicts: dict[str, int] = {}


class CountersSnapshot(snapshots.Snapshot):
    """What was counted. ``starts``: a histogram."""

    cells: list[int] = []
    restarts: dict[str, int] = {}
    refusals: dict[str, int] = {}
    relayed: int = 0
    starts: list[int] = []
    starts_s: float = 0.0
    cpu_s: float = 0.0
    last_failure: tuple[float, str, str] | None = None
    over_at: float | None = None
    is_trial: bool = False


class WorkerSnapshot(snapshots.Snapshot):
    """``channel`` is -1 when it is closed; ``deadline_in_s``: when its present state must have ended."""

    number: int
    index: int
    pid: int
    pidfd: int
    channel: int
    page: int
    state: str
    detail: str = ""
    started_at: float
    ready_at: float | None = None
    deadline_in_s: float | None = None
    reported: bool = False
    has_served: bool = False
    is_hung: bool = False
    answered_for: int = 0
    kept_for_s: float | None = None
    """For so long its WebSockets may stay."""
    failure: tuple[str, str] = ("", "")
    outlets: snapshots.OutputPipesSnapshot | None = None
    group: tuple[str, int | None] | None = None
    """The path of its cgroup, and the bytes that it may have there."""
    outbox: list[bytes] = []
    dropped: list[int] = []
    fresh: int = 0
    free: list[int] = []
    untaken: list[int] = []
    spawner: int = 0
    """The pid of its parent."""


class ThreadPlacementSnapshot(snapshots.Snapshot):
    """Where the workers of a pool are threads: ``hosts`` by the workers' numbers. ``host`` 0: none yet for others."""

    group: int
    host: int = 0
    is_private: bool = False
    hosts: dict[int, int] = {}


class ThreadHostSnapshot(snapshots.Snapshot):
    """A thread host. ``threads``: by the worker's number, its group and what tells of its end."""

    number: int
    pid: int
    pidfd: int
    channel: int
    place: dict[str, Any]
    spawner: int
    groups: dict[int, tuple[str, str]] = {}
    is_private: bool = False
    threads: dict[int, tuple[int, int]] = {}
    ended: dict[int, int] = {}
    stragglers: dict[int, tuple[int, float]] = {}
    """By the worker's number, its group, and for how many seconds it has been one."""
    left_behind: int = 0
    is_doomed: bool = False
    scratch: str | None = None
    group: tuple[str, int | None] | None = None
    """As a worker's."""
    outlets: snapshots.OutputPipesSnapshot | None = None
    outbox: list[bytes] = []


class PoolSnapshot(snapshots.Snapshot):
    """``pauses``: places without a worker, and the seconds until the next start there. ``state``: its ``PoolState``."""

    spec: dict[str, Any]
    generation: int
    state: str = ""
    size: int = 0
    is_draining: bool = False
    is_started: bool = True
    workers: list[WorkerSnapshot] = []
    places: dict[int, int] = {}
    leaving: list[int] = []
    ready: list[int] = []
    replacing: dict[int, int] = {}
    pauses: dict[int, float] = {}
    last_failure: FailureSnapshot | None = None
    restarts: int = 0
    failures: int = 0
    seat: ThreadPlacementSnapshot | None = None
    ledger: CountersSnapshot = Field(default_factory=CountersSnapshot)


class TrialSnapshot(snapshots.Snapshot):
    """A generation that is tried beside the present one. ``base``: what both had done when that began, as figures."""

    pool: PoolSnapshot
    canary: tuple[float, int, float, int, float, float]
    began_at: float
    begun: float
    base: list[tuple[int, int, int, int, float, tuple[int, ...]]]


class KeptBuildSnapshot(snapshots.Snapshot):
    """The build before, kept until ``until`` (``time.time()``)."""

    pool: PoolSnapshot
    until: float
    build: int


class ScaleSnapshot(snapshots.Snapshot):
    """How many workers somebody asked for, and the last change: ``time.time()``, how many, why."""

    asked_for: int | None = None
    last: tuple[float, int, str] | None = None


class AppSnapshot(snapshots.Snapshot):
    """``waiting``: descriptors of connections, in their order."""

    id: int
    pool: PoolSnapshot
    former: list[PoolSnapshot] = []
    is_stopping: bool = False
    broken: FailureSnapshot | None = None
    attempts: int = 0
    builds: BuildsSnapshot = Field(default_factory=BuildsSnapshot)
    scale: ScaleSnapshot = Field(default_factory=ScaleSnapshot)
    trial: TrialSnapshot | None = None
    kept: KeptBuildSnapshot | None = None
    ledger: CountersSnapshot = Field(default_factory=CountersSnapshot)
    folder: tuple[str, int] | None = None
    """Its private one, and its user."""
    background: snapshots.BackgroundSnapshot = Field(default_factory=snapshots.BackgroundSnapshot)
    waiting: list[int] = []

    def pools(self) -> list[PoolSnapshot]:
        """Every generation."""
        beside = [each.pool for each in (self.trial, self.kept) if each is not None]
        return [self.pool, *self.former, *beside]


class TenantSnapshot(snapshots.Snapshot):
    """``idle_s``: since it was last asked for."""

    key: str
    app: AppSnapshot
    idle_s: float = 0.0
    is_due: bool = False
    """Its new workers were on their way."""


class TenantsSnapshot(snapshots.Snapshot):
    """``apps``: live ones, the least recently used first. ``leaving``: by whose key their connections ask anew."""

    name: str
    apps: list[TenantSnapshot] = []
    leaving: list[tuple[str | None, AppSnapshot]] = []
    ledger: CountersSnapshot = Field(default_factory=CountersSnapshot)
    released: list[str] = []
    """The keys of those whose release commands have run."""
    seen: list[str] = []
    """The keys of those that take part in schedules."""
    schedules: snapshots.TenantSchedulesSnapshot = Field(default_factory=snapshots.TenantSchedulesSnapshot)


class ConnectionSnapshot(snapshots.Snapshot):
    """``app`` and ``listener`` by their ids, ``app`` -1: nobody follows who had it; ``worker`` -1: nobody serves it."""

    fd: int
    flags: int
    app: int
    listener: int = -1
    worker: int = -1
    slot: int = -1


class ListenerSnapshot(snapshots.Snapshot):
    """``key``: what makes it the same as one of the configuration's. ``app``: its id; -1: the relays."""

    number: int
    key: list[str | int]
    fd: int
    name: str
    path: str | None = None
    identity: tuple[int, int] | None = None
    lock: int | None = None
    app: int = -1
    origin: str = ""
    """``stored``: a service manager has a copy. ``foreign``: somebody else made it, and takes it away."""


class ForkServerSnapshot(snapshots.Snapshot):
    """``prepared`` None: its preloads are being imported."""

    pid: int
    pidfd: int
    channel: int
    key: dict[str, Any]
    prepared: str | None = None
    useless: tuple[str, str] | None = None
    outlets: snapshots.OutputPipesSnapshot | None = None
    workers: list[int] = []
    idle_s: float = 0.0


class CaddySnapshot(snapshots.Snapshot):
    """A supervised Caddy; ``pid`` 0: it ended, and is to be started again in ``restart_in_s``."""

    pid: int = 0
    pidfd: int = -1
    started_at: float = 0.0
    failures: int = 0
    restart_in_s: float = 0.0
    listening: int = -1
    door: int = -1
    """Of its admin API: what it listens on, and how it is reached. -1: where the file says."""
    knows_default: bool = False
    """It was started with the variable that says where, should its part not."""
    outlets: snapshots.OutputPipesSnapshot | None = None
    """None: it has our standard error."""
    folder: str = ""
    """Of its file, and of the sockets; empty: a former version did not say."""


class SourceSnapshot(snapshots.Snapshot):
    """The Caddyfile whose configuration runs."""

    content: bytes
    file: str
    folder: str = ""
    """Where relative paths begin."""


class DaemonSnapshot(snapshots.Snapshot):
    """Everything."""

    version: int = STATE_VERSION
    protocol: int = PROTOCOL_VERSION
    release: str
    """The version of caddysnake that wrote it."""
    source: SourceSnapshot | None = None
    listeners: list[ListenerSnapshot] = []
    listener_numbers: int = 0
    worker_numbers: int = 1
    connections: list[ConnectionSnapshot] = []
    apps: list[AppSnapshot] = []
    parting: list[AppSnapshot] = []
    estates: list[TenantsSnapshot] = []
    relays: AppSnapshot | None = None
    desks: list[snapshots.LinkBrokerSnapshot] = []
    needs: list[snapshots.LinkNeedSnapshot] = []
    relay_pids: dict[int, int] = {}
    relay_outlets: dict[int, snapshots.OutputPipesSnapshot] = {}
    sessions: list[snapshots.SessionSnapshot] = []
    """One-off commands."""
    spawners: list[ForkServerSnapshot] = []
    hosts: list[ThreadHostSnapshot] = []
    host_numbers: int = 1 << 30
    uids: list[int] = []
    disbelieved: list[int] = []
    scratch: str | None = None
    app_metrics: str = ""
    """What who reads them is to remember."""
    cgroup: str | None = None
    """Below it are those of workers."""
    changes_from: float = 0.0
    """``time.time()``: changes of code from then on may not have been noticed."""
    builds: BuildsSnapshot = Field(default_factory=BuildsSnapshot)
    """Of the configuration."""
    caddy: CaddySnapshot | None = None
    log: dict[str, int] | None = None
    """The log process, as ``logger`` has it."""
    attended: list[ListenerSnapshot] = []
    """What the daemon listens on for itself."""
    memory: str = ""
    """Of whoever does."""
    started_at: float = 0.0
    """``time.time()`` of the first start."""
    upgrades: int = 0
    """How many there have been."""
    is_reload_wanted: bool = False
    """One was asked for, and could not begin."""
    is_afresh: bool = False
    """Nothing runs but the listeners: everything is to be started."""
    arrived: list[int] = []
    """Connections that are not inherited, but come with this, in the order of their descriptors."""
    begun_at: float = 0.0
    """When nothing was read any more, on the clock of ``time.monotonic()``."""

    def descriptors(self) -> set[int]:
        """All that must stay open for it to be true."""
        found = {connection.fd for connection in self.connections}
        for listener in (*self.listeners, *self.attended):
            found |= {listener.fd, listener.lock if listener.lock is not None else -1}
        for server in self.spawners:
            found |= {server.pidfd, server.channel, *snapshots.readers(server.outlets)}
        for early in self.relay_outlets.values():
            found |= snapshots.readers(early)
        if self.log is not None:
            found.add(self.log["channel"])
        for host in self.hosts:
            found |= {
                host.pidfd,
                host.channel,
                *(fd for _, fd in host.threads.values()),
                *snapshots.readers(host.outlets),
            }
        for app in self.all_apps():
            for pool in app.pools():
                for worker in pool.workers:
                    found |= {worker.pidfd, worker.channel, worker.page, *snapshots.readers(worker.outlets)}
        found |= {session.sock for session in self.sessions}
        for run in self._executions():
            found |= {run.pidfd, *snapshots.readers(run.outlets)}
        if self.caddy is not None:
            found |= {self.caddy.pidfd, self.caddy.listening, self.caddy.door, *snapshots.readers(self.caddy.outlets)}
        return found - {-1}

    def _executions(self) -> list[snapshots.ExecutionSnapshot]:
        found = [run for app in self.all_apps() for run in app.background.executions()]
        found += [session.execution for session in self.sessions]
        schedules = [schedule for estate in self.estates for _, schedule in estate.schedules.active]
        return found + [run for schedule in schedules for run, _ in schedule.runs]

    def all_apps(self) -> list[AppSnapshot]:
        """Apps of every kind: static, leaving, dynamic, relays."""
        tenants = [tenant.app for estate in self.estates for tenant in estate.apps]
        leaving = [app for estate in self.estates for _, app in estate.leaving]
        relays = [self.relays] if self.relays is not None else []
        return [*self.apps, *self.parting, *tenants, *leaving, *relays]
