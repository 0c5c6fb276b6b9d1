"""Connections to the worker of a module, which its fixture ``worker`` has started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.rawhttp import RawClient
from support.worker import Worker


@pytest.fixture
def client(worker: Worker) -> Iterator[RawClient]:
    """As Caddy's connection."""
    with RawClient(worker.connect()) as client:
        yield client
    worker.drop_duplicates()


@pytest.fixture
def other(worker: Worker) -> Iterator[RawClient]:
    """One more, for a test that has ``client``."""
    with RawClient(worker.connect()) as client:
        yield client


@pytest.fixture
def stranger(worker: Worker) -> Iterator[RawClient]:
    """A connection that is not trusted."""
    with RawClient(worker.connect(flags=0)) as client:
        yield client
    worker.drop_duplicates()
