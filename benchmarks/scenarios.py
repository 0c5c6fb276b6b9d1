"""What is measured. A new scenario is one entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .load import Client, Load, Wrk
from .servers import OURS, RELAY, WITHOUT, Interface, Reach


@dataclass(frozen=True)
class Scenario:
    """One app, one way to reach it, one load."""

    name: str
    interface: Interface
    app: str
    load: Load
    reach: Reach = Reach.DIRECT
    workers: int = 1
    servers: tuple[str, ...] = ()
    """Only these; none means every one that has the interface and the reach."""
    is_short: bool = True
    """Part of `make bench`; else of `make bench-full` only."""
    feature: str = ""
    """Lines of the `python` block that `caddysnake-without` does not have, nor the next three."""
    site: str = ""
    """A line of Caddy's site."""
    upstream: str = ""
    """A line of its `reverse_proxy`."""
    during: tuple[str, ...] = ()
    """A command of ours that runs as long as the load, with `{app}` and `{seconds}`."""
    is_ordinary: bool = False
    """Apps of ours run as an ordinary user, also where root measures."""

    @property
    def is_behind_caddy(self) -> bool:
        return self.reach in (Reach.CADDY, Reach.TUNED)

    @property
    def has_socket(self) -> bool:
        """Whether servers listen on a unix socket."""
        return self.is_behind_caddy or self.reach is Reach.UNIX

    @property
    def is_proxied(self) -> bool:
        """Whether requests come from a proxy, or as if they did."""
        return self.has_socket or self.load == VARIED


VARIED = Wrk(script="varied.lua")
A, W = Interface.ASGI, Interface.WSGI
ASGI_PEERS = (OURS, "uvicorn", "granian", "fastpysgi", "pyvoy", "hypercorn", "gunicorn-uvicorn")
WSGI_PEERS = (OURS, "granian", "fastpysgi", "pyvoy", "gunicorn-gthread", "gunicorn-sync")
FEW_ASGI = (OURS, "uvicorn", "granian")
VARIED_ASGI = (*FEW_ASGI, "fastpysgi", "pyvoy")
FEW_WSGI = (OURS, "granian", "gunicorn-gthread")
VARIED_WSGI = (*FEW_WSGI, "fastpysgi", "pyvoy")
UNIX_ASGI = (OURS, RELAY, *FEW_ASGI[1:], "gunicorn-uvicorn")
UNIX_WSGI = (OURS, RELAY, *FEW_WSGI[1:])
BEHIND_CADDY = (OURS, RELAY, "uvicorn", "granian", "nginx-itself")
BARE_A, BARE_W = "bare_asgi:app", "bare_wsgi:app"
BODIES_A, BODIES_W = "bodies_asgi:app", "bodies_wsgi:app"
GIBIBYTE = 1 << 30
CADDY, TUNED, ITS_CADDY = Reach.CADDY, Reach.TUNED, Reach.ITS_CADDY
CHURN = Wrk(64, options=("-H", "Connection: close"))
PAIR = (OURS, WITHOUT)
STAMP = "X-Request-Start t={time.now.unix_ms}"
FEATURES: dict[str, dict[str, Any]] = {
    "log": {"reach": Reach.UNIX, "feature": "log"},
    "slow-request": {"reach": Reach.UNIX, "feature": "slow_request 2s"},
    "sandbox": {"reach": Reach.UNIX, "feature": "sandbox on", "is_ordinary": True},
    "profile": {"reach": Reach.UNIX, "during": ("profile", "{app}", "--seconds", "{seconds:g}")},
    "affinity": {"reach": Reach.UNIX, "feature": "affinity cookie", "servers": (OURS, RELAY)},
    "stamp": {"reach": TUNED, "site": f"request_header {STAMP}"},
    "stamp-header-up": {"reach": TUNED, "upstream": f"header_up {STAMP}"},
}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        # Small requests, direct.
        Scenario("asgi", A, BARE_A, Wrk(), servers=ASGI_PEERS),
        Scenario("wsgi", W, BARE_W, Wrk(), servers=WSGI_PEERS),
        Scenario("asgi-varied-unix", A, BARE_A, VARIED, Reach.UNIX, servers=UNIX_ASGI),
        Scenario("wsgi-varied-unix", W, BARE_W, VARIED, Reach.UNIX, servers=UNIX_WSGI),
        Scenario("asgi-varied", A, BARE_A, VARIED, servers=VARIED_ASGI),
        Scenario("wsgi-varied", W, BARE_W, VARIED, servers=VARIED_WSGI),
        Scenario("asgi-1-connection", A, BARE_A, Wrk(1), servers=FEW_ASGI, is_short=False),
        Scenario("wsgi-1-connection", W, BARE_W, Wrk(1), servers=FEW_WSGI, is_short=False),
        Scenario("asgi-512-connections", A, BARE_A, Wrk(512), servers=FEW_ASGI),
        Scenario("wsgi-512-connections", W, BARE_W, Wrk(512), servers=FEW_WSGI),
        Scenario("asgi-churn", A, BARE_A, CHURN, servers=FEW_ASGI),
        Scenario("wsgi-churn", W, BARE_W, CHURN, servers=FEW_WSGI),
        # Frameworks.
        Scenario("fastapi", A, "hello_fastapi:app", Wrk(), servers=FEW_ASGI),
        Scenario("flask", W, "hello_flask:app", Wrk(), servers=FEW_WSGI),
        Scenario("django", W, "hello_django:app", Wrk(), servers=FEW_WSGI),
        # Behind Caddy.
        Scenario("asgi-caddy", A, BARE_A, Wrk(), CADDY),
        Scenario("wsgi-caddy", W, BARE_W, Wrk(), CADDY),
        Scenario("asgi-caddy-2-workers", A, BARE_A, Wrk(), CADDY, 2, is_short=False),
        Scenario("wsgi-caddy-2-workers", W, BARE_W, Wrk(), CADDY, 2, is_short=False),
        Scenario("asgi-caddy-varied", A, BARE_A, VARIED, CADDY, servers=BEHIND_CADDY),
        Scenario("asgi-caddy-512", A, BARE_A, Wrk(512), CADDY, is_short=False),
        Scenario("wsgi-caddy-512", W, BARE_W, Wrk(512), CADDY, is_short=False),
        Scenario("fastapi-caddy", A, "hello_fastapi:app", Wrk(), CADDY, is_short=False),
        Scenario("django-caddy", W, "hello_django:app", Wrk(), CADDY, is_short=False),
        Scenario("asgi-tuned-caddy", A, BARE_A, Wrk(), TUNED, is_short=False),
        Scenario("wsgi-tuned-caddy", W, BARE_W, Wrk(), TUNED, is_short=False),
        Scenario("asgi-with-caddy", A, BARE_A, Wrk(), ITS_CADDY),
        Scenario("wsgi-with-caddy", W, BARE_W, Wrk(), ITS_CADDY),
        # What a feature costs.
        *(
            Scenario(f"cost-{name}-{about}", face, app, VARIED, is_short=False, **({"servers": PAIR} | what))
            for face, name, app in ((A, "asgi", BARE_A), (W, "wsgi", BARE_W))
            for about, what in FEATURES.items()
        ),
        # Bodies.
        Scenario("asgi-upload-64k", A, BODIES_A, Wrk(path="/length", script="post64k.lua"), servers=FEW_ASGI),
        Scenario("wsgi-upload-64k", W, BODIES_W, Wrk(path="/length", script="post64k.lua"), servers=FEW_WSGI),
        Scenario("asgi-1-mebibyte", A, BODIES_A, Wrk(path="/mebibyte"), servers=FEW_ASGI),
        Scenario("wsgi-1-mebibyte", W, BODIES_W, Wrk(path="/mebibyte"), servers=FEW_WSGI),
        Scenario("asgi-file", A, BODIES_A, Wrk(path="/file"), servers=FEW_ASGI),
        Scenario("wsgi-file", W, BODIES_W, Wrk(path="/file"), servers=FEW_WSGI),
        Scenario("asgi-stream", A, BODIES_A, Wrk(path="/stream"), servers=FEW_ASGI),
        Scenario("wsgi-stream", W, BODIES_W, Wrk(path="/stream"), servers=FEW_WSGI),
        Scenario("asgi-1-gibibyte", A, BODIES_A, Client("download", 1, "/gibibyte", GIBIBYTE, "MiB"), servers=FEW_ASGI),
        Scenario("wsgi-1-gibibyte", W, BODIES_W, Client("download", 1, "/gibibyte", GIBIBYTE, "MiB"), servers=FEW_WSGI),
        Scenario("asgi-upload-1g", A, BODIES_A, Client("upload", 1, "/length", GIBIBYTE, "MiB"), servers=FEW_ASGI),
        Scenario(
            "wsgi-upload-1g", W, BODIES_W, Client("upload", 1, "/length", GIBIBYTE, "MiB"), servers=(OURS, "granian")
        ),
        # Long lives.
        Scenario("events-500-clients", A, BODIES_A, Client("events", 500, "/events", unit="events"), servers=FEW_ASGI),
        Scenario("websocket-small", A, BODIES_A, Client("echo", 64, "/", 32), servers=FEW_ASGI),
        Scenario("websocket-64k", A, BODIES_A, Client("echo", 64, "/", 65536), servers=FEW_ASGI),
        Scenario("websocket-caddy", A, BODIES_A, Client("echo", 64, "/", 32), CADDY, is_short=False),
    )
}

EXPECTED = b"Hello, World!"
"""What every app's answer to `GET /` holds; a server that says something else is not measured."""
