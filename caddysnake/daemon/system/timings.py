"""How long the daemon waits for others: one value, handed in where something waits, so that a test may wait less."""

from __future__ import annotations

from typing import NamedTuple


class Timings(NamedTuple):
    """Seconds, each of them."""

    lookup_s: float = 3.0
    """A look at the disk whether a host is served. Caddy gives up after ten."""
    start_counts_s: float = 5.0
    """No start of an app counts for longer among those that are under way."""
    admin_again_s: float = 5.0
    """Until the admin API's default address is tried again."""


TIMINGS = Timings()
