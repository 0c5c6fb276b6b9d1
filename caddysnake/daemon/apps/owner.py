"""Whose generations they are: their app, as those see it who change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ..workers.forking.start_limiter import StartLimiter
from ..workers.worker import Worker
from .builds import Builds
from .pool import Pool
from .spec import PoolSpec, StartFailed
from .takeover import Order, Takeover


class Owner(Protocol):
    """See ``App``."""

    takeover: Takeover[Pool]
    builds: Builds
    next_side: Callable[[bool], tuple[list[Worker], int]] | None
    fallen: Callable[[StartFailed], None]

    @property
    def spec(self) -> PoolSpec:
        """What serves."""

    def carry_out(self, orders: Iterable[Order[Pool]]) -> None:
        """What ``takeover`` has decided."""

    def begin_generation(self, spec: PoolSpec) -> Pool:
        """The one that comes."""

    async def prepare(self, spec: PoolSpec, starts: StartLimiter | None = None) -> float:
        """Start it. Raises ``StartFailed``."""

    def swap(self) -> None:
        """Let it take over."""

    def discard(self) -> None:
        """Give it up."""

    def choose_for_clients(self) -> None:
        """While two builds are compared."""
