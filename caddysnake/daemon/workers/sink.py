"""What a worker tells its pool."""

from __future__ import annotations

from typing import Generic, TypeVar

from ...channel.messages import FromRelay
from ..sockets.connections import Connection
from .lifecycle import Reason

W = TypeVar("W")
"""The worker."""


class WorkerSink(Generic[W]):
    """Who hears of workers. (A class, not a Protocol, so that each method can say what it is for.)"""

    def admitted(self, worker: W) -> None:
        """It is ready."""
        raise NotImplementedError

    def withdrawn(self, worker: W) -> None:
        """It leaves the rotation."""
        raise NotImplementedError

    def returned(self, worker: W, connection: Connection) -> None:
        """It gave an idle connection back."""
        raise NotImplementedError

    def asked(self, worker: W, message: FromRelay) -> None:
        """It, a relay, wants a link, or does not want it any more, or tells what it has answered."""
        raise NotImplementedError

    def failed(self, worker: W, reason: Reason) -> None:
        """It will end against our will, and the reason is known before. Once at most; ``reaped`` gives none then."""
        raise NotImplementedError

    def exited(self, worker: W, orphans: list[tuple[Connection, int]]) -> None:
        """It is gone: rescue ``orphans``, the connections it held, each with the last state of its slot."""
        raise NotImplementedError

    def reaped(self, worker: W, reason: Reason | None) -> None:
        """How it ended is known; always after ``exited``. ``reason``: why, if against our will and not told before."""
        raise NotImplementedError
