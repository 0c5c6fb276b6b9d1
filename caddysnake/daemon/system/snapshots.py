"""What is carried over an upgrade of relays and of what is executed as an app is; and what all of it has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Snapshot(BaseModel):
    """A part of the state. What a newer or older daemon knows besides is passed over."""

    # What reads and writes them is built when there is an upgrade, and not before the first answer.
    model_config = ConfigDict(extra="ignore", defer_build=True, ser_json_bytes="base64", val_json_bytes="base64")


def build_all() -> None:
    """Build what reads and writes all parts; for a thread, since that takes long."""
    for kind in Snapshot.__subclasses__():
        kind.model_rebuild()


OutputPipesSnapshot = dict[str, Any]
"""Pipes of a process, as ``logger`` has them."""


def readers(outlets: OutputPipesSnapshot | None) -> set[int]:
    """The descriptors of ``outlets`` that must stay open."""
    return set() if outlets is None else set(outlets["readers"])


class ExecutionSnapshot(Snapshot):
    """A command that is executed as an app is. ``group``: as a worker's. ``reaped``: how it ended; it has no pidfd."""

    name: str
    pid: int
    pidfd: int
    mark: str
    started_at: float
    group: tuple[str, int | None] | None = None
    outlets: OutputPipesSnapshot | None = None
    reaped: tuple[int | None, float, str] | None = None


class ProcessSnapshot(Snapshot):
    """A process beside the workers. ``stop_in_s``: until it is ended by force; ``pause_s``: until it starts again."""

    spec: dict[str, Any]
    index: int = 0
    state: str = "waiting"
    since: float = 0.0
    restarts: int = 0
    last_end: tuple[float, str] | None = None
    failures: int = 0
    is_leaving: bool = False
    stop_in_s: float | None = None
    pause_s: float = 0.0
    execution: ExecutionSnapshot | None = None


class ScheduleSnapshot(Snapshot):
    """A schedule. ``last``: the time that was begun last. ``runs``: each with the seconds until it is ended.

    ``waits``: the seconds until a run begins that is due. ``folder``: what is to end with its run.
    """

    app: str = ""
    name: str
    last: float | None = None
    next: float | None = None
    runs: list[tuple[ExecutionSnapshot, float | None]] = []
    waits: list[float] = []
    last_run: tuple[float, float, str, bool] | None = None
    skipped: int = 0
    missed: int = 0
    folder: tuple[str, int] | None = None


class BackgroundSnapshot(Snapshot):
    """What of an app runs beside its workers. ``closed``: schedules that are no more, whose runs go on."""

    surroundings: dict[str, Any] | None = None
    processes: list[ProcessSnapshot] = []
    leaving: list[ProcessSnapshot] = []
    schedules: list[ScheduleSnapshot] = []
    closed: list[ScheduleSnapshot] = []

    def executions(self) -> list[ExecutionSnapshot]:
        """All that runs."""
        found = [each.execution for each in (*self.processes, *self.leaving) if each.execution is not None]
        return [*found, *(run for each in (*self.schedules, *self.closed) for run, _ in each.runs)]


class SessionSnapshot(Snapshot):
    """A one-off command. ``sock``: the connection of whoever waits for it. ``folder``: what is to end with it."""

    app: str
    command: list[str] = []
    sock: int
    execution: ExecutionSnapshot
    folder: tuple[str, int] | None = None


class TenantSchedulesSnapshot(Snapshot):
    """Schedules of the apps of a template. ``times``: the next and the last of each. ``waiting``: keys and names.

    ``last``: key, name, and how that run went.
    """

    times: dict[str, tuple[float | None, float | None]] = {}
    active: list[tuple[str, ScheduleSnapshot]] = []
    waiting: list[tuple[str, str]] = []
    last: list[tuple[str, str, tuple[float, float, str, bool]]] = []
    left_out: dict[str, int] = {}


class LinkBrokerSnapshot(Snapshot):
    """What relays of a generation call the apps (their ids) and the templates (their names)."""

    generation: int
    apps: dict[int, int] = {}
    estates: dict[int, str] = {}
    max_queue: dict[int, int] = {}
    development: list[int] = []


class LinkNeedSnapshot(Snapshot):
    """What a relay asked for, and nobody has answered yet. ``relay``: its number as a worker."""

    relay: int
    need: int
    route: int
    key: str
    worker: int | None = None
    """Of the app, where it is to be that one."""
