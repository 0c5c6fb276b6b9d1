"""The process of a worker (or what it has of one): with its page, and with what it is told to run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any, Literal

from ...channel import vitals
from ...channel.endpoint import pair
from ...channel.messages import Message, Profile
from ...channel.settings import RelaySettings, Settings
from ..sockets.connections import answer
from ..sockets.refusals import DEADLINE
from ..system import processes
from .child.child import Child
from .child.equipment import configure, without
from .child.peer import Peer, socket_of
from .gauges import Gauges, now_ms
from .hanging import HangFinding, Watchdog, frozen

MESSAGES_A_SECOND = 1000
MESSAGES_AT_ONCE = vitals.SLOTS
"""Beyond those of a second: every connection may come back at once, a drain of many is no flood."""
_RELAY_MESSAGES_A_SECOND = 100_000
"""A relay is ours, and asks once for each request to an app that is not there."""


class WorkerProcess(Child):
    """What ``Worker`` gives orders to."""

    def __init__(
        self,
        number: int,
        settings: Settings | RelaySettings,
        hear: Callable[[Message], None],
        on_closed: Callable[[], None],
        on_breach: Callable[[str], None],
        saved: tuple[int, int] | None,
    ) -> None:
        """``hear`` and so on: see ``Peer``. ``saved``: the channel and the page that it has. Raises ``OSError``."""
        self._settings = settings
        self.shares_process = isinstance(settings, Settings) and settings.shares_process
        is_relay = isinstance(settings, RelaySettings)
        per_second = _RELAY_MESSAGES_A_SECOND if is_relay else MESSAGES_A_SECOND
        ours, theirs = pair() if saved is None else (socket_of(saved[0]), None)
        peer = Peer(ours, per_second, hear, on_closed, on_breach, MESSAGES_AT_ONCE)
        own_limits = settings.limits if isinstance(settings, Settings) and not self.shares_process else None
        super().__init__(number, settings.app, own_limits, peer, theirs)
        try:
            if saved is None:
                fields: dict[str, Any] = {"app": settings.app, "worker": settings.worker_index}
                if isinstance(settings, Settings) and settings.sandbox is not None and not settings.rehearses:
                    fields["walled"] = True
                access = settings.access_log if isinstance(settings, Settings) else None
                self.equip("relay" if is_relay else "app", fields, access)
            self.gauges = Gauges(_threads_of(settings), _slots_of(settings), None if saved is None else saved[1])
            try:
                if saved is None and not self.confinement.is_wanted:
                    self.configure()
            except BaseException:
                self.gauges.close()
                raise
        except BaseException:
            self.shut()
            raise

    def configure(self, held: frozenset[str] = frozenset()) -> None:
        """Tell it what to run. ``held``: which limits a cgroup holds. Raises ``OSError``."""
        settings = self._settings
        if isinstance(settings, Settings):
            settings = without(settings, held)
        configure(self.peer, settings, self.gauges.fd)

    def discard(self) -> None:
        """Give up one whose start was never done."""
        super().discard()
        self.gauges.close()

    @property
    def memory_limit(self) -> Literal["cgroup", "rlimit"] | None:
        """What keeps its limit of memory; None: it has none."""
        if not isinstance(self._settings, Settings) or "memory" not in (self._settings.limits or {}):
            return None
        return "cgroup" if "memory" in self.whole.confinement.held else "rlimit"

    @property
    def cpu_limit(self) -> Literal["cgroup", "none"] | None:
        """What keeps its limit of processor time; None: it has none."""
        if not isinstance(self._settings, Settings) or "cpu" not in (self._settings.limits or {}):
            return None
        return "cgroup" if "cpu" in self.whole.confinement.held else "none"

    def write_stacks(self) -> None:
        """Have it write the stacks of its threads to the log, whatever they are at; nothing if it is not an app's."""
        if isinstance(self._settings, Settings):
            with contextlib.suppress(OSError):  # it is gone
                signal.pidfd_send_signal(self.whole.pidfd, vitals.STACKS_SIGNAL)

    def profile(self, seconds: float, fd: int) -> bool:
        """Have it look for ``seconds`` at what runs, and write that into ``fd``; False when it cannot be asked."""
        if self.launcher is None or not self.knows(vitals.KNOWS_PROFILE):
            return False
        try:
            if not self.whole.peer.hand_over(Profile(self.number, seconds), [fd]):
                return False
            if not self.shares_process:
                signal.pidfd_send_signal(self.whole.pidfd, vitals.LOOK_SIGNAL)  # its loop may be standing still
        except OSError:  # it is gone
            return False
        return True

    def knows(self, what: int) -> bool:
        """Whether it knows ``what`` (``vitals.KNOWS_*``): a worker of an older version would end at it."""
        return not self.gauges.is_over and self.gauges.page.word(vitals.WORD_GUEST) & what != 0

    def ask_where(self) -> bool:
        """Have it tell where its start stands; False when it does not listen."""
        if self.shares_process or not self.knows(vitals.KNOWS_PROFILE):
            return False
        with contextlib.suppress(OSError):  # it is gone
            signal.pidfd_send_signal(self.whole.pidfd, vitals.LOOK_SIGNAL)
        return True

    async def answer_if_hung(self, watch: Watchdog) -> bool | None:
        """Answer what it has read, if nothing in it runs: whether others are half answered; None: it lives."""
        async with frozen(self.pid, self.whole.pidfd) as is_sure:
            if self.gauges.is_over or watch.look(self.gauges.pulse(), now_ms()) is not HangFinding.HANGS:
                return None
            if not is_sure:
                return False
            for connection in self.gauges.slots.reading():
                answer(connection.fd, DEADLINE)
                self.gauges.answered_for += 1
            return self.gauges.slots.has_open_ends

    def cpu_s(self) -> float:
        """Return the processor time it has used, before it is reaped; 0 for a thread of a host: nobody can tell."""
        return 0.0 if self.shares_process else processes.cpu_seconds(self.pid)


def _threads_of(settings: Settings | RelaySettings) -> int:
    """How many threads tell one by one what they are at; what an event loop does is in one word."""
    is_loop = isinstance(settings, RelaySettings) or settings.interface == "asgi"
    return 0 if is_loop else max(1, min(vitals.THREADS - 1, settings.threads))


def _slots_of(settings: Settings | RelaySettings) -> int:
    """How many connections it may hold: half of the files that it may have open, as a descriptor too many is lost."""
    limits = settings.limits if isinstance(settings, Settings) else None
    if not limits or "open_files" not in limits:
        return vitals.SLOTS
    return max(1, min(vitals.SLOTS, limits["open_files"] // 2))
