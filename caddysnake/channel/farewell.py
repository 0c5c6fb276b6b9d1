"""How long a worker's end may take behind its grace: both sides must agree, and the daemon be the later one.

In this order: requests are cancelled, and their ``finally`` may wait; the lifespan is shut down; what is registered
with ``atexit`` runs. A time-out on one side that is equal to what the other may need would be a race.
"""

from __future__ import annotations

CANCEL_S = 3.0
"""For requests that were cancelled, and streams that were cut."""

SHUTDOWN_S = 10.0
"""For the app's lifespan shutdown (ASGI lifespan 2.0)."""

END_S = CANCEL_S + SHUTDOWN_S + 2.0
"""All of a worker's end, until it says ``Drained``; only then is it ended by signals."""

AFTER_END_S = 5.0
"""SIGTERM, SIGKILL, and the reaping."""
