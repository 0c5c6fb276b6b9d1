"""What is measured. A new scenario is one entry."""

from __future__ import annotations

from dataclasses import dataclass

from .servers import Interface


@dataclass(frozen=True)
class Scenario:
    """One app, one way to reach it, one load.

    Direct: over TCP, because that is what `wrk` speaks; the server has one core for itself and `wrk` another. Behind
    Caddy: the servers listen on unix sockets, and nobody is pinned, since three programs share the machine anyway.
    """

    name: str
    interface: Interface
    app: str
    behind_caddy: bool
    workers: int = 1
    connections: int = 64


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("asgi-direct", Interface.ASGI, "bare_asgi:app", behind_caddy=False),
        Scenario("wsgi-direct", Interface.WSGI, "bare_wsgi:app", behind_caddy=False),
        Scenario("asgi-caddy", Interface.ASGI, "bare_asgi:app", behind_caddy=True),
        Scenario("wsgi-caddy", Interface.WSGI, "bare_wsgi:app", behind_caddy=True),
    )
}

EXPECTED_BODY = b"Hello, World!"
"""What every app answers; a server that says something else is not measured."""
