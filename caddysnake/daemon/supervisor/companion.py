"""The seam for something that runs beside the apps; alone, it is a companion that does nothing."""

from __future__ import annotations

from ..system.state import CarriedCaddy
from .document import CaddyPart


class FrontProxy:
    """Something that runs beside the apps and stops before them: a supervised Caddy."""

    async def start(self) -> None:
        """Bring it up, once the apps are ready. Raises ``StartFailed``."""

    async def check(self, part: CaddyPart) -> None:
        """Look whether it could run ``part`` instead. Raises ``ReloadFailed``."""

    async def change(self, part: CaddyPart) -> None:
        """Run ``part`` instead, once what it needs is there. Raises ``ReloadFailed``; nothing has changed then."""

    async def stop(self, grace_s: float) -> None:
        """End it, and wait for that."""

    def carry(self) -> CarriedCaddy | None:
        """What whoever goes on with it must know."""
        return None

    def resume(self, carried: CarriedCaddy | None) -> None:
        """Go on with it in another image of the daemon."""

    def kill(self) -> None:
        """End it at once, by force, without waiting."""

    def pids(self) -> set[int]:
        """Children that it reaps itself."""
        return set()
