"""Who answers for the connections of a generation's workers: their app."""

from __future__ import annotations

from typing import Protocol

from ...channel.messages import FromRelay
from ..sockets.connections import Connection
from ..workers.worker import Worker
from .counters import Counters
from .folder import PrivateFolder
from .spec import StartFailed


class Home(Protocol):
    """Who answers for the connections of a pool's workers: their app."""

    ledger: Counters
    folder: PrivateFolder

    def serve_waiting(self) -> None:
        """A worker has become ready."""

    def returned(self, connection: Connection, worker: Worker) -> None:
        """``worker`` gave ``connection`` back at a request boundary."""

    def orphaned(self, connection: Connection, state: int) -> None:
        """The worker of ``connection`` is dead; ``state`` is what its slot said last."""

    def asked(self, worker: Worker, message: FromRelay) -> None:
        """``worker``, a relay, wants a link, or does not want it any more."""

    def worker_failed(self, failure: StartFailed, is_hopeless: bool) -> None:
        """A worker ended against our will and is started again; ``is_hopeless`` after many times in a row."""
