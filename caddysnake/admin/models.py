"""Every answer of the API. Names carry their units; ``_at`` is seconds since 1970, as Caddy's log has them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AnswerModel(BaseModel):
    """An answer: immutable, and without fields that are not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ProblemModel(AnswerModel):
    """One thing that is wrong with a configuration."""

    file: str
    line: int = Field(description="0: nowhere in particular")
    text: str


class ErrorModel(AnswerModel):
    """Why a request was not carried out."""

    error: str = Field(description="for people")
    code: str = Field(description="stable: for programs")
    hint: str = Field(default="", description="what to do")
    problems: list[ProblemModel] = Field(default=[], description="what is wrong with the configuration")
    app: str = Field(default="", description="the app that does not start")
    detail: str = Field(default="", description="the app's own code for why, such as import or crashed")


class OutcomeModel(AnswerModel):
    """What became of one app in a reload."""

    app: str
    result: Literal["started", "reloaded", "unchanged", "refused"]
    seconds: float
    serves: bool = Field(description="some build of it does; of one that was refused, the old")
    code: str = Field(description="why it was refused, such as import or warmup; else empty")
    error: str = Field(description="often a traceback, cut to a few KiB")


class Loaded(AnswerModel):
    """A reload that was carried out. One app that was refused keeps its old build."""

    apps: int
    templates: int
    seconds: float
    file: str = Field(description="what SIGHUP, or a reload without a configuration, reads the next time")
    warnings: list[str] = []
    outcomes: list[OutcomeModel] = Field(default=[], description="of each static app")


class Stopping(AnswerModel):
    """The daemon has begun to stop. It ends when requests in flight are done."""

    pid: int
    grace_s: float


class UpgradeAnswer(AnswerModel):
    """Whether the daemon is about to become another version."""

    pid: int
    version: str = Field(description="that runs; in the answer to POST: that was rehearsed, and takes over")
    upgrades: int = Field(description="how often it has replaced itself: one more, once that is done")
    is_under_way: bool
    refused: str = Field(default="", description="why the last one was refused; empty when it was not")


class Ran(AnswerModel):
    """A schedule's command has ended. ``ok``: its exit status was 0."""

    app: str
    schedule: str
    seconds: float
    reason: str
    ok: bool


class Restarted(AnswerModel):
    """Processes of that name are ended, and started again: this many."""

    app: str
    process: str
    count: int


class Cancelled(AnswerModel):
    """A change that was under way is given up."""

    cancelled: bool


class Reloaded(AnswerModel):
    """New workers serve."""

    app: str
    seconds: float


class GenerationModel(AnswerModel):
    """The workers of one build."""

    generation: int
    state: Literal["starting", "trial", "serving", "kept", "leaving"]
    workers: int


class FiguresModel(AnswerModel):
    """What a build did in the time in which it was tried."""

    requests: int = Field(description="lost ones among them")
    errors: int = Field(description="5xx, and requests that ended with their worker")
    p95_s: float | None


class TrialModel(AnswerModel):
    """A new build that gets its share of the requests until it is judged."""

    share: float
    since_at: float
    ends_at: float
    new: FiguresModel
    old: FiguresModel


class KeptModel(AnswerModel):
    """The build before, which `rollback` gives the connections back."""

    build: int
    workers: int = Field(description="one that ends is not replaced")
    until_at: float


class RolledBack(AnswerModel):
    """The build before serves again, until the next reload or restart."""

    app: str
    build: int


class Promoted(AnswerModel):
    """The build that was tried has taken over."""

    app: str


class ScaledModel(AnswerModel):
    """Why an app has as many workers as it has."""

    at: float
    workers: int
    reason: str


class ScaleModel(AnswerModel):
    """An app was given another number of workers: those that are new are on their way."""

    app: str
    workers: int
    least: int = Field(description="what the file says")
    most: int
    is_fixed: bool = Field(description="somebody asked for this number, which holds until the next reload")


class Evicted(AnswerModel):
    """The app has no process any more. The next request for it starts it."""

    app: str


class Dumped(AnswerModel):
    """The worker was told to write its stacks into the log."""

    pid: int
    app: str


class Profiled(AnswerModel):
    """A profile of an app's workers, or of one process."""

    name: str = Field(description="of what")
    seconds: float
    workers: int = Field(description="that have told something")
    warnings: list[str] = Field(description="workers that have told nothing, and why")
    content: str = Field(description="the profile, in the form that was asked for")


class Health(AnswerModel):
    """``status`` is ok, or why not. ``degraded``: some are not answered for, as ``failed`` says."""

    status: Literal["ok", "starting", "stopping", "degraded"]
    ready: bool = Field(description="requests may be sent: each app has been up, or failed once, and one serves")
    serves_any: bool = Field(description="somebody is answered, or there is nobody to answer for")
    apps_without_worker: list[str] = Field(default=[], description="static apps that nobody answers for just now")
    failed: dict[str, str] = Field(default={}, description="apps, and templates, that do not come up, and a code why")


class Traffic(AnswerModel):
    """What was answered. Counts only grow, also when workers are replaced."""

    requests: int
    errors: int = Field(description="requests that were answered with 5xx, by the app or in its place, or cut")
    exceptions: int = Field(description="requests that the app ended with an exception; for relays: nobody answered")
    bytes_in: int = Field(description="of request bodies; for relays, of everything")
    bytes_out: int = Field(description="of response bodies; for relays, of everything")
    responses: list[int] = Field(description="by class: 1xx to 5xx")
    latencies: list[int] = Field(description="requests by duration: up to each of latency_bounds_s, and above the last")
    latency_sum_us: int
    queues: list[int] = Field(description="requests by how long they waited before the app was called: queue_bounds_s")
    queue_sum_us: int


class WorkerModel(AnswerModel):
    """A process that runs an app, or a relay."""

    pid: int
    app: str = Field(description="the key of its app, or relay")
    index: int = Field(description="its place in the pool, which a replacement takes over")
    state: str
    generation: int
    runs: str = Field(description="interpreter and loop, as it says itself")
    age_s: float
    traffic: Traffic
    in_flight: int
    connections: int
    websockets: int = Field(default=0, description="of those, open WebSockets")
    memory_bytes: int = Field(description="resident, shared memory included")
    memory_limit: Literal["cgroup", "rlimit"] | None = Field(
        default=None, description="what keeps the limit of its memory: cgroup counts what it has started as well"
    )
    cpu_limit: Literal["cgroup", "none"] | None = Field(
        default=None, description="what keeps the limit of its processor time; none: nothing does here"
    )
    cpu_s: float
    oldest_request_s: float | None = Field(description="since when a thread is at its request; null for event loops")
    blocked_s: float | None = Field(
        default=None, description="since when its event loop is blocked, or all of its threads are; null: they are not"
    )


class BuildModel(AnswerModel):
    """What runs: the code and settings of a moment. Numbers count up with every one that is tried."""

    number: int
    since_at: float


class RefusedModel(AnswerModel):
    """What was tried last, and does not start. The old code keeps serving."""

    number: int
    since_at: float = Field(description="of the first refusal since something was accepted")
    last_at: float
    tries: int
    code: str
    error: str = Field(description="often a traceback, cut to a few KiB")


class Starts(AnswerModel):
    """How long workers took from their start to ready."""

    bounds_s: list[float]
    counts: list[int] = Field(description="up to each bound, and above the last")
    sum_s: float


class FailureModel(AnswerModel):
    """Why a worker ended."""

    at: float
    code: str
    error: str = Field(description="often a traceback, cut to a few KiB")
    over_at: float | None = Field(default=None, description="since when all workers are ready again; null: not yet")


class EndModel(AnswerModel):
    """How something ended."""

    at: float
    reason: str


class ProcessModel(AnswerModel):
    """A process beside the workers."""

    name: str = Field(description="with its number behind, where there are several")
    state: Literal["waiting", "starting", "running", "full", "paused", "failed", "stopping", "ended"] = Field(
        description="full: a store that refuses writes"
    )
    pid: int = Field(description="0: there is none just now")
    since_at: float
    restarts: int
    is_leaving: bool = Field(description="of a former build, and ending at its own pace")
    last_end: EndModel | None
    memory_bytes: int
    cpu_s: float


class RunModel(AnswerModel):
    """A run of a schedule that has ended. ``ok``: its exit status was 0."""

    at: float
    seconds: float
    reason: str
    ok: bool


class ScheduleModel(AnswerModel):
    """A command at certain times."""

    name: str
    cron: str
    next_at: float | None
    running: list[int] = Field(description="process ids of what runs")
    last_run: RunModel | None
    skipped: int = Field(description="times that were left out, as the last run went on still")
    missed: int = Field(description="times that the clock went past, or the machine slept through")


class AppModel(AnswerModel):
    """An app: a python block, or what a template of apps has become for some requests."""

    key: str = Field(description="by which /apps/{key} knows it")
    name: str
    template: str | None = Field(description="the dynamic block it was made of; null for a static app")
    interface: str
    module: str
    working_dir: str
    python: str
    runtime: Literal["process", "thread"]
    user: str | None = Field(description="null: the daemon's own")
    isolated: bool = Field(description="nobody else, not even the daemon, runs as its user")
    shared_with: list[str] = Field(description="other apps of the same user, which could interfere")
    sandbox: str = Field(description="walled, audit, or off")
    sandbox_holds: str = Field(description="what its sandbox keeps from it here, and what not; empty: it is in none")
    mode: Literal["direct", "relay"]
    listeners: list[str]
    reason: str = Field(description="why connections take that way")
    state: Literal["serving", "starting", "broken", "failing", "stopping"]
    build: BuildModel | None = Field(description="what runs; null: nothing does")
    refused: RefusedModel | None = Field(description="what was tried last, when that does not start")
    generation: int
    workers_wanted: int
    workers_least: int
    workers_most: int = Field(description="more than workers_least: as many as it takes, up to this")
    workers_asked_for: int | None = Field(description="by scale; holds until the next reload")
    scaled: ScaledModel | None = Field(description="the last change of workers_wanted; null: as the file says")
    workers_ready: int
    workers: list[WorkerModel]
    processes: list[ProcessModel] = []
    schedules: list[ScheduleModel] = []
    traffic: Traffic
    restarts: dict[str, int] = Field(description="workers that were replaced, or tried again, by cause")
    refusals: dict[str, int] = Field(description="requests answered in its place, or cut, by code")
    last_failure: FailureModel | None = Field(description="why a worker ended against our will, the last time")
    in_flight: int
    waiting: int = Field(description="connections, and requests of relays, that nobody has taken yet")
    connections: int
    websockets: int = Field(default=0, description="of those, open WebSockets")
    starts: Starts
    generations: list[GenerationModel] = Field(description="builds that have processes; the one that serves first")
    trial: TrialModel | None = Field(description="a new build that is tried")
    kept: KeptModel | None = Field(description="the build before, where it is kept")
    verdicts: dict[str, int] = Field(description="promoted, returned")
    builds_accepted: int
    builds_refused: int
    memory_bytes: int = Field(description="of its processes; that of a thread host counts for each app in it")
    cpu_s: float = Field(description="of its processes, those that are gone included; 0 for threads")


class ListenerModel(AnswerModel):
    """A socket that Caddy connects to."""

    address: str
    mode: Literal["direct", "relay"]
    reason: str
    apps: list[str]
    trouble: str = ""
    """Why nobody can connect to it, when that is so."""


class DaemonModel(AnswerModel):
    """The daemon itself."""

    pid: int
    version: str
    python: str
    phase: Literal["starting", "ready", "stopping"]
    started_at: float
    file: str
    admin: str = Field(description="where this API listens")
    build: BuildModel | None = Field(description="since when the configuration runs")
    refused: RefusedModel | None = Field(description="the last reload, when that was refused")
    reloads_accepted: int
    reloads_refused: int
    last_reload_at: float | None = Field(description="of the last that was carried out; the start is one")
    memory_bytes: int
    cpu_s: float
    open_files: int
    open_files_limit: int
    memory_budget_bytes: int | None = Field(description="that all workers together may have")
    memory_used_bytes: int | None = Field(description="of it, as it was seen last")
    upgrades: int = Field(description="how often the daemon has replaced itself")
    connections: int
    cgroup: str | None = Field(description="below which workers with a limit of memory get one each; null: they do not")
    no_cgroup_because: str = Field(description="empty when there is one")
    no_cpu_limit_because: str = Field(default="", description="why processor time cannot be limited; empty: it can")


class TemplateModel(AnswerModel):
    """A dynamic block: apps are made of it when requests ask for them."""

    name: str
    capacity: int = Field(description="max_dynamic_apps")
    live: int
    starting: int
    leaving: int
    idle_timeout_s: float | None
    traffic: Traffic = Field(description="of all its apps, those that are gone included")
    restarts: dict[str, int]
    refusals: dict[str, int] = Field(description="requests answered in the place of an app, by code")
    last_failure: FailureModel | None
    starts: Starts
    cpu_s: float
    schedules: list[ScheduleModel] = Field(
        default=[], description="of its apps; the last run: one that failed, if any has"
    )


class Status(AnswerModel):
    """Everything at a glance."""

    daemon: DaemonModel
    listeners: list[ListenerModel]
    apps: list[AppModel]
    templates: list[TemplateModel]
    relays: list[WorkerModel]
    relay_traffic: Traffic = Field(description="of all relays, those that are gone included")
    latency_bounds_s: list[float]
    queue_bounds_s: list[float]


class SeriesModel(AnswerModel):
    """One value for each of ``at``; durations are null where nothing was answered."""

    requests_per_s: list[float]
    errors_per_s: list[float]
    median_s: list[float | None]
    p95_s: list[float | None]
    queue_s: list[float | None] = Field(description="95 % waited less before the app was called")
    memory_bytes: list[int]
    workers: list[int] = Field(description="that were ready")


class MarkModel(AnswerModel):
    """Something that happened."""

    at: float
    app: str
    what: Literal["build", "refused", "crash"]
    count: int


class HistoryModel(AnswerModel):
    """The last quarter of an hour."""

    every_s: float
    at: list[float]
    series: dict[str, SeriesModel] = Field(description="by app, or template; the empty name is the whole")
    marks: list[MarkModel]


class TaskModel(AnswerModel):
    """A task of the daemon's loop."""

    name: str
    doing: str
    stack: list[str]


class DescriptorModel(AnswerModel):
    """An open file of the daemon."""

    number: int
    target: str


class Apps(AnswerModel):
    """The apps that run."""

    apps: list[AppModel]


class Workers(AnswerModel):
    """The workers that run, and the relays."""

    workers: list[WorkerModel]


class Tasks(AnswerModel):
    """The tasks of the daemon's loop."""

    tasks: list[TaskModel]


class Descriptors(AnswerModel):
    """The open files of the daemon."""

    descriptors: list[DescriptorModel]
