"""The seam for what looks after the daemon from outside, its admin API; alone, it is one that does nothing."""

from __future__ import annotations

from collections.abc import Sequence

from .configuration import Configuration


class Attendant:
    """Something that is there before the first app is started, and until the last one has ended."""

    def prepare(self, configuration: Configuration) -> None:
        """Open what ``configuration`` asks for, beside what is open. ``commit`` or ``revert`` next.

        Raises ``ListenError``; nothing has changed then.
        """

    def commit(self) -> None:
        """What was prepared holds from now on."""

    def revert(self) -> None:
        """Give up what was prepared."""

    async def start(self) -> None:
        """Begin to answer."""

    async def stop(self) -> None:
        """End."""


class Attendants(Attendant):
    """Several as one."""

    def __init__(self, each: Sequence[Attendant]) -> None:
        self._each = tuple(each)

    def prepare(self, configuration: Configuration) -> None:
        prepared: list[Attendant] = []
        try:
            for attendant in self._each:
                attendant.prepare(configuration)
                prepared.append(attendant)
        except BaseException:
            for attendant in prepared:
                attendant.revert()
            raise

    def commit(self) -> None:
        for attendant in self._each:
            attendant.commit()

    def revert(self) -> None:
        for attendant in self._each:
            attendant.revert()

    async def start(self) -> None:
        for attendant in self._each:
            await attendant.start()

    async def stop(self) -> None:
        for attendant in self._each:
            await attendant.stop()
