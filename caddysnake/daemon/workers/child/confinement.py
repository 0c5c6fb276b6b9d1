"""The limits of a child with all that it starts: a cgroup, in which it is before it hears what to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ...system import cgroups


class Confinement:
    """Of one process. Where its limits ask for no cgroup, or there can be none, it does nothing."""

    def __init__(self, app: str, number: int, limits: Mapping[str, int] | None) -> None:
        self._app = app
        self._number = number
        self._bounds = cgroups.bounds_of(limits)
        self._group: cgroups.Group | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_wanted(self) -> bool:
        """It is to be in a cgroup: ``begin`` says when it may hear what to run."""
        return self._bounds is not None

    @property
    def held(self) -> frozenset[str]:
        """Which limits, by their names, a cgroup holds."""
        return self._bounds.held if self._group is not None and self._bounds is not None else frozenset()

    @property
    def is_settled(self) -> bool:
        """It is not on its way into a cgroup."""
        return self._task is None or self._task.done()

    def begin(self, pid: int, configure: Callable[[frozenset[str]], None]) -> None:
        """Put process ``pid`` into a cgroup, and then call ``configure`` with what that holds."""
        if self._bounds is not None:
            self._task = asyncio.get_running_loop().create_task(self._place(pid, self._bounds, configure))

    async def _place(self, pid: int, bounds: cgroups.Quotas, configure: Callable[[frozenset[str]], None]) -> None:
        self._group = await cgroups.Group.of(self._app, self._number, pid, bounds)
        configure(self.held)

    async def settled(self) -> None:
        """Wait until it has heard what to run."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def why_killed(self) -> str:
        """Return why the kernel has killed it, if that was for want of memory; else an empty text."""
        return await self._group.why_killed() if self._group is not None else ""

    async def remove(self) -> None:
        """Remove the cgroup, with all that the process, which has ended, has started there."""
        if self._group is not None:
            await self._group.remove()

    def snapshot(self) -> tuple[str, int | None] | None:
        """Return what ``restore`` needs in another image of the daemon."""
        return self._group.snapshot() if self._group is not None else None

    def restore(self, saved: tuple[str, int | None] | None) -> None:
        """Go on where ``saved`` says."""
        self._group = cgroups.Group(*saved) if saved is not None else None
