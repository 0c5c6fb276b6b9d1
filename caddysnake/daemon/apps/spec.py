"""What a pool runs, what makes it the same app, and how its start fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Literal, NamedTuple

from ...channel.codes import failure
from ...channel.settings import RelaySettings, Settings
from ...config.language.models import Canary
from ...config.plan.fence import Fence
from ..commands.spec import Commands
from ..system.log.fields import FieldLog
from ..system.state import FailureSnapshot
from ..workers.child.launcher import ForkServerKey
from ..workers.warmup import WarmUp
from .recycling import RestartLimits

log = FieldLog("caddysnake.app")

SLOW_START_S = 10.0
"""After how long a start that still goes on is told, unless the environment says otherwise (``composition``)."""

UNKNOWN = "(unknown)"
"""Of an app that cannot be started as things are, and has had no worker: who it would run as may not be known."""


class Identity(NamedTuple):
    """``code``: what is run, and where. ``user``: as whom."""

    code: Hashable
    user: Hashable


class PoolSpec(NamedTuple):
    """What a pool runs."""

    name: str
    settings: Settings | RelaySettings
    workers: int
    key: ForkServerKey
    start_timeout_s: float | None
    grace_s: float
    isolated: bool = False
    """Nobody else, not even the daemon, runs as its user."""
    limits: RestartLimits = RestartLimits()
    """When its workers are replaced."""
    slow_start_s: float = SLOW_START_S
    """After how long a start that still goes on is told."""
    leads_to: tuple[str, ...] = ()
    """What was behind the names of its folder and its Python when it was made: only to tell whether that has changed.
    """
    is_tenant: bool = False
    """A request has led to it: what is not on disk is no failure of it then."""
    commands: Commands = Commands()
    """What it has beside its workers."""
    cannot: str = ""
    """Why it cannot be started as things are. Who it would run as may not be known then."""
    fence: Fence | None = None
    """The sandbox of its workers. That of ``key`` is no narrower."""
    rehearsal: Fence | None = None
    """What it is tried in, without being in it."""
    most: int = 0
    """How many workers there may be, of which ``workers`` is the least; 0: always as many."""
    scale_down_after_s: float = 60.0
    strategy: Literal["parallel", "rolling", "stop_first"] = "parallel"
    """How a new generation takes over."""
    canary: Canary | None = None
    """How a new build is tried; None: it takes over when it is ready."""
    keep_s: float = 0.0
    """How long the build before stays."""
    warmup: WarmUp | None = None
    """What each worker answers before it counts as ready."""

    def named(self, code: str) -> str:
        """What ``code`` is called here: that there is no such app is an answer to who asks for a tenant."""
        return "import-failed" if code == "no-such-app" and not self.is_tenant else code

    @property
    def ties(self) -> bool:
        """Clients stay with its workers: no connection is moved that need not be."""
        return isinstance(self.settings, Settings) and self.settings.has_affinity

    @property
    def apart(self) -> dict[str, str]:
        """For the log: how it is kept apart from others."""
        walled = {} if self.fence is None else {"sandbox": "walled"}
        return {"isolated": "yes" if self.isolated else "no", **walled}

    @property
    def identity(self) -> Identity:
        """Of this and its successors."""
        if isinstance(self.settings, RelaySettings):
            return Identity("relay", None)
        if self.cannot:
            return Identity(UNKNOWN, UNKNOWN)
        return Identity((self.settings.module, self.settings.variable, self.settings.working_dir), self.key.account)


class StartFailed(Exception):
    """The first start of a pool failed. ``code``: one of ``codes.FAILURES``; the text is the worker's."""

    def __init__(self, app: str, code: str, text: str) -> None:
        super().__init__(text)
        self.app = app
        self.code = code

    def snapshot(self) -> FailureSnapshot:
        """It, for another image of the daemon."""
        return FailureSnapshot(app=self.app, code=self.code, text=str(self))

    @classmethod
    def restored(cls, saved: FailureSnapshot | None) -> StartFailed | None:
        """What ``snapshot`` gave, as an exception again."""
        return None if saved is None else cls(saved.app, failure(saved.code), saved.text)


async def looked_at(app: str, again: Callable[[], PoolSpec]) -> PoolSpec:
    """What ``app`` comes to by now: ``again()``, in a thread. Raises ``StartFailed``, ``OSError``."""
    try:
        return await asyncio.to_thread(again)
    except OSError:
        raise
    except Exception as exc:
        log.error("app cannot be looked at", exc_info=exc, app=app)
        raise StartFailed(app, "internal", f"{type(exc).__name__}: {exc}") from None
