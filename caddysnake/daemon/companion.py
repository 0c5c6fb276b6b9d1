"""The seam for something that runs beside the apps; alone, it is a companion that does nothing."""

from __future__ import annotations


class Companion:
    """Something that runs beside the apps and stops before them: a supervised Caddy."""

    is_process = False
    """It is started by a fork that runs code of ours, for which no other thread may be at work."""

    async def start(self) -> None:
        """Bring it up, once the apps are ready. Raises ``StartFailed``."""

    async def stop(self, grace_s: float) -> None:
        """End it, and wait for that."""

    def kill(self) -> None:
        """At once."""

    def pids(self) -> set[int]:
        """Children that it reaps itself."""
        return set()
