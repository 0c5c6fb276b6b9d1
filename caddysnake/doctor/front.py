"""Caddy: who it runs as (a process that is there tells it best, for it has the groups that it was started with), and
which sockets its configuration names.
"""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from .reach import Who, of_database, of_process

USERS = ("caddy", "www-data")
"""What packages of Caddy name its user."""

_ADMIN = ("localhost", 2019)
_ADMIN_S = 2.0
_CONFIG_MAX = 1 << 26


class Front(NamedTuple):
    """Caddy's user."""

    who: Who
    pid: int | None
    """The Caddy that this was read from; None when it is the user's entry in the user database."""
    is_guess: bool = False
    """Nobody has said so, and no Caddy runs: packages of Caddy call its user so."""

    def __str__(self) -> str:
        told = "no Caddy runs, its packages' user; --caddy-user says another" if self.is_guess else "Caddy's"
        return f"user {self.who.name} ({told})"


def find_front(name: str | None, proc: str = "/proc") -> Front | None:
    """The user that Caddy runs as: ``name``, or a running Caddy's, or its package's. Raises ``LookupError``."""
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):
        found = of_process(pid, proc) if _is_caddy(Path(proc, str(pid))) else None
        if found is not None and name in (None, found[0].name, str(found[0].uid)):
            return Front(found[0], pid)
    if name is not None:
        return Front(of_database(name), None)
    for candidate in USERS:
        try:
            return Front(of_database(candidate), None, is_guess=True)
        except LookupError:
            continue
    return None


def upstreams(address: tuple[str, int] = _ADMIN) -> frozenset[str] | None:
    """Where the Caddy of this machine forwards to, by the configuration that it runs; None: it does not say."""
    connection = http.client.HTTPConnection(*address, timeout=_ADMIN_S)
    try:
        connection.request("GET", "/config/apps/http")
        return frozenset(_dials(json.loads(connection.getresponse().read(_CONFIG_MAX))))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()


def _dials(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["dial"]] if isinstance(value.get("dial"), str) else []
        return own + [each for inner in value.values() for each in _dials(inner)]
    return [each for inner in value for each in _dials(inner)] if isinstance(value, list) else []


def _is_caddy(process: Path) -> bool:
    try:
        return (process / "comm").read_text().strip() == "caddy"
    except OSError:
        return False
