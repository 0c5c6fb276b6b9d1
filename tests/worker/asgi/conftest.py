"""Connections to apps that keep notes of their requests."""

from __future__ import annotations

import pytest
from support.rawhttp import RawClient


@pytest.fixture
def client(client: RawClient) -> RawClient:
    """As Caddy's connection; the app has no notes yet."""
    client.get("/forget")
    return client
