"""How long the daemon waits for workers, fork servers and lookups: one value, handed in, so that tests wait less."""

from __future__ import annotations

from typing import NamedTuple


class Timings(NamedTuple):
    """Seconds, each of them."""

    lookup_s: float = 3.0
    """A look at the disk whether a host is served. Caddy gives up after ten."""
    start_counts_s: float = 5.0
    """No start of an app counts for longer among those that are under way."""
    term_s: float = 3.0
    """A worker that was asked to end by a signal, before it is killed."""
    last_word_s: float = 10.0
    """A worker that has said its last word, or has closed its channel, until its process is gone."""
    prepare_s: float = 120.0
    """A fork server's preload."""
    fork_s: float = 30.0
    """A fork server's answer, to a fork or a reap."""
    fork_server_idle_s: float = 60.0
    """A fork server that nobody is forked from stays so long, unless it is kept warm."""
    host_lost_s: float = 15.0
    """A thread that was let go may live on so long, before its host counts as lost."""
    loop_still_s: float = 10.0
    """An event loop that has been blocked for so long is told of."""
    thread_still_s: float = 60.0
    """A thread that is at one request for so long is told of: a download or a long poll may take its time."""
    decided_s: float = 30.0
    """Longer than this no app that is starting keeps the others from being told ready."""
    sleeper_idle_s: float = 5.0
    """A tenant that was asked for so lately is not put to sleep for its memory."""
    memory_look_s: float = 2.0
    """Between two looks at what all workers have."""
    admin_again_s: float = 5.0
    """Until the admin API's default address is tried again."""


TIMINGS = Timings()
