"""What the connections and links of one relay share."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections import Counter
from collections.abc import Callable
from time import monotonic

from ..aio.context import Context
from ..channel.codec import TEXT_LIMIT
from ..channel.records import say
from ..channel.settings import RelaySettings
from ..channel.vitals import WORD_ACTIVE, Page
from ..http1.request import RequestHead
from ..http1.speedups import new_reader
from ..matchers.router import Router
from ..matchers.target import ALIVE, Target
from ..placeholders.request import RoutingLimit
from .affinity import Affinity, Block
from .answers import HEALTHY, KEY_TOO_LONG, NO_ROUTE, ROUTING_FAILED, ROUTING_LIMIT
from .exchange import Abort, Answer
from .link_pool import AppId
from .turns import Turns

READ_BYTES = 64 * 1024
"""What is read at a time."""

TIGHT_READ_BYTES = 4 * 1024

TIGHT_BYTES = 64 * 1024 * 1024
"""What may be held in sum before less is read at a time."""


class Backlog:
    """The sum, and the buffer for all reads: a loop reads one connection at a time, and what is read is copied to where
    it goes at once. ``changed`` is called when reads become small, or large again.
    """

    def __init__(self, changed: Callable[[], None], tight_bytes: int = TIGHT_BYTES) -> None:
        self._whole = memoryview(bytearray(READ_BYTES))
        self._changed = changed
        self._tight_bytes = tight_bytes
        self.view = self._whole
        """Where to read to, as much as may be read now."""
        self.is_tight = False
        self.held = 0

    def change(self, size: int) -> None:
        """So many bytes more are held; negative: less."""
        self.held += size
        if self.is_tight:
            if self.held < self._tight_bytes // 2:
                self._turn(False)
        elif self.held > self._tight_bytes:
            self._turn(True)

    def _turn(self, is_tight: bool) -> None:
        self.is_tight = is_tight
        self.view = self._whole[:TIGHT_READ_BYTES] if is_tight else self._whole
        self._changed()


HEAD_READ_BYTES = 8 * 1024
CHUNKS_READ_BYTES = 2 * 1024
"""What is read at a time where the next bytes may be a head with content behind it, or chunks of which little is known:
a client decides how many chunks there are in a read, and so what it costs.
"""

_LOST_MAX = 1024
"""Apps of templates beyond so many in a second are told of as their template."""

COMPLAINT_S = 1.0
"""A tenant that sends nonsense must not fill the log."""


class RelayContext(Context):
    """``read_less`` is told when memory has become tight, or no longer is."""

    settings: RelaySettings

    def __init__(
        self,
        settings: RelaySettings,
        page: Page,
        router: Router,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[int, bool], None],
        read_less: Callable[[], None],
    ) -> None:
        super().__init__(settings, page, loop, ended)
        self.call_soon: Callable[[Callable[[], None]], object] = loop.call_soon
        self.turns: Turns[AppId] = Turns(loop.call_soon)
        self.now = monotonic()
        """As of the last tick."""
        self.backlog = Backlog(self._resize)
        self._router = router
        self.affinity = Affinity(
            {int(number): Block(*said) for number, said in (settings.affinity or {}).items()},
            bytes.fromhex(settings.affinity_key),
            settings.affinity_epoch,
            os.urandom,
        )
        self._read_less: Callable[[], None] = lambda: None
        self._resize()
        self._read_less = read_less
        limits = self.limits.max_target_bytes, self.limits.max_header_count
        self.reader = new_reader(False, (), ("", b""), limits)
        self.lost: Counter[tuple[int, str, str]] = Counter()
        """What the daemon is to be told of: requests that were answered here, by route, key and code."""
        self._quiet_until = 0.0
        self._unsaid = 0

    def _resize(self) -> None:
        view = self.backlog.view
        self.head_view = view[:HEAD_READ_BYTES]
        self.chunks_view = view[:CHUNKS_READ_BYTES]
        self.body_high_bytes = len(view)
        """Reading pauses while this much of a request waits for a link."""
        self._read_less()

    def route(self, listener: int, head: RequestHead, peer: str, is_trusted: bool) -> Target | Answer:
        """The app for a request, or what to answer when there is none."""
        try:
            target = self._router.route(listener, head, peer, is_trusted)
        except RoutingLimit as limit:
            self._complain(str(limit), "", code=ROUTING_LIMIT.code, method=head.method)
            return ROUTING_LIMIT
        except Exception:  # patterns and templates are the user's, and one of them must not end a connection unanswered
            shown = head.target[:200].decode("ascii", "backslashreplace")
            self._complain("looking for the app failed", traceback.format_exc(), method=head.method, target=shown)
            return ROUTING_FAILED
        if target is None:
            return NO_ROUTE
        if target is ALIVE:
            return HEALTHY
        if len(target.key) * 4 > TEXT_LIMIT and len(target.key.encode("utf-8", "replace")) > TEXT_LIMIT:
            return KEY_TOO_LONG  # the channel would shorten it, and so name another app
        return target

    def begins(self) -> float:
        """Count a request that begins; when, for ``count``."""
        self.active += 1
        self.header[WORD_ACTIVE] = self.active
        return monotonic()

    def failed(self, answer: Answer, app_id: AppId) -> None:
        """An answer of our own takes the place of the app's."""
        if answer.status >= 500:
            self.counters.errors += 1
            if not answer.is_told:  # else the daemon has counted it
                route, key, *_ = app_id
                is_known = (route, key, answer.code) in self.lost
                self.lost[route, key if is_known or len(self.lost) < _LOST_MAX else "", answer.code] += 1
        if answer.status == 502:
            self._complain(answer.detail or answer.code, "", code=answer.code, **_named(app_id))

    def aborted(self, command: Abort, app_id: AppId) -> None:
        """A response was cut, so that the client sees it is not whole; ``command`` says why."""
        self.counters.errors += 1
        self._complain(command.why, "", **_named(app_id))

    def _complain(self, what: str, error: str = "", **fields: object) -> None:
        if self.now < self._quiet_until:
            self._unsaid += 1
            return
        unsaid, self._unsaid = self._unsaid, 0
        self._quiet_until = self.now + COMPLAINT_S
        if unsaid:
            fields["more_since_the_last"] = unsaid
        say("warn", what, error, **fields)


def _named(app_id: AppId) -> dict[str, object]:
    route, key, *_ = app_id
    return {"route": route, "key": ascii(key[:80])[1:-1]}
