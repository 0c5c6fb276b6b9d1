"""A relay in a process of its own, for tests that leave nothing in it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.relay import Relay, running


@pytest.fixture(scope="module")
def shared() -> Iterator[Relay]:
    with running() as it:
        yield it


@pytest.fixture
def relay(shared: Relay) -> Iterator[Relay]:
    """A relay that knows of nothing: one for all tests, since starting one takes longer than most of them."""
    yield shared
    shared.forget()


@pytest.fixture
def client(relay: Relay) -> Iterator[socket.socket]:
    with relay.connect() as sock:
        yield sock
