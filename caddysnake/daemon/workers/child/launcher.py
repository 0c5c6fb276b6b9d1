"""What workers are forked from: what they have in common there, where each is put up, and why none comes."""

from __future__ import annotations

from typing import NamedTuple

from ....config.plan.accounts import Account
from ....config.plan.fence import Fence

NO_ROOM = "capacity"
"""``SpawnError.code``: there may be no more of them."""


class ForkServerKey(NamedTuple):
    """What decides whether two apps may be forked from one process."""

    python: str
    interface: str
    """Its server is imported before the fork, and no other: threaded workers need no event loop."""
    preload: tuple[str, ...]
    path: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]
    account: Account | None = None
    """Who it runs as before the interpreter is executed; None: the daemon's own user."""
    fence: Fence | None = None
    """The sandbox that all of its apps have in common, put up before the interpreter is executed."""


class Plot(NamedTuple):
    """Where the sandbox of a worker is put up: its own fence, and its app's private folder."""

    fence: Fence
    private: str


class SpawnError(Exception):
    """A worker cannot be spawned. ``code`` as in ``Failed``; ``fatal`` when trying again will not help."""

    def __init__(self, code: str, text: str, fatal: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.fatal = fatal
