"""What the commands of an app's builds find around them, and the commands that come before a build's workers."""

from __future__ import annotations

from ...channel.settings import Settings
from ..commands.background import Background
from ..commands.release import ReleaseFailed, Tell, release
from ..commands.store import make_kept_folder
from ..commands.surroundings import BuildSurroundings, Surroundings
from .builds import Builds
from .counters import Counters
from .folder import PrivateFolder
from .spec import PoolSpec, StartFailed


class AppSurroundings:
    """Of one app. A build is made by ``release``, if anybody deploys it, and taken by ``take`` when its workers serve.
    """

    def __init__(self, folder: PrivateFolder, ledger: Counters) -> None:
        self._folder = folder
        self._ledger = ledger
        self._coming: tuple[PoolSpec, BuildSurroundings] | None = None

    async def release(self, spec: PoolSpec, tell: Tell | None = None, builds: Builds | None = None) -> None:
        """Run the release commands of ``spec``, of which a build is about to be made. ``tell`` hears what they write.

        ``builds`` hears that they have failed, if nobody else will tell it.
        Raises ``StartFailed``; nothing has changed then but what they did.
        """
        if not spec.commands.release or spec.cannot:
            return
        around = self.of(spec)
        self._coming = (spec, around)
        try:
            await release(spec.commands.release, await around.get(), tell)
        except (ReleaseFailed, OSError) as exc:
            self._ledger.failed("release-failed", str(exc))
            if builds is not None:
                builds.was_refused("release-failed", str(exc))
            raise StartFailed(spec.name, "release-failed", str(exc)) from None

    def keep(self, background: Background, spec: PoolSpec) -> None:
        """Have ``background`` begin what is to be there before the first worker of a build of ``spec``."""
        if any(each.stays for each in spec.commands.processes) and not spec.cannot:
            background.keep(spec.commands, self.of(spec))

    def switch_over(self, background: Background, spec: PoolSpec) -> None:
        """Have ``background`` run what the build of ``spec`` says, whose workers serve."""
        if isinstance(spec.settings, Settings):
            background.switch_over(spec.commands, self.take(spec))

    def take(self, spec: PoolSpec) -> BuildSurroundings:
        """Return those of the build of ``spec``: what its release commands have had, if there were any."""
        coming, self._coming = self._coming, None
        return coming[1] if coming is not None and coming[0] is spec else self.of(spec)

    def of(self, spec: PoolSpec) -> BuildSurroundings:
        """Return those of a build of ``spec`` that is made now."""

        def look() -> Surroundings:
            assert isinstance(spec.settings, Settings)
            if spec.settings.store is not None:
                make_kept_folder(spec.name, spec.key.account)
            return Surroundings.of(spec.settings, spec.key, self._folder.temporary(spec.key.account), spec.fence)

        return BuildSurroundings(look)
