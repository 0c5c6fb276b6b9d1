"""The relay: connections come over the channel, links are asked for over it, and idle connections go back.

It knows nothing of HTTP (``client_connection``, ``forwarding``) nor of routes (``router``); it owns the loop, the
channel, the links and the vital signs. Its life::

    SERVING -> DRAINING -> left          Drain: idle connections go back, the rest at their next request boundary
            -> ORPHANED -> left          the daemon is dead: answers end their connections
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import platform
import socket
import traceback
from collections.abc import Callable, Coroutine
from enum import Enum
from time import monotonic
from typing import Any

from ..aio.counters import PUBLISH_S, Counters
from ..channel.codec import TEXT_LIMIT
from ..channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ..channel.messages import (
    PROTOCOL_VERSION,
    TAKE_BORROWED,
    TAKE_LAST,
    TAKE_LISTENER_SHIFT,
    TAKE_TRUSTED,
    Drain,
    Drained,
    Dump,
    Link,
    Message,
    Need,
    Ready,
    Refused,
    Returned,
    Shed,
    Take,
    Unneed,
)
from ..channel.records import say
from ..channel.settings import RelaySettings
from ..channel.vitals import (
    SLOT_CLOSED,
    SLOT_IDLE,
    SLOT_RETURNED,
    WORD_ACTIVE,
    WORD_CONNECTIONS,
    WORD_TICK,
    Page,
)
from ..http1.errors import ProtocolError
from ..http1.limits import Limits
from ..http1.request import HEADS_MAX, Heads, RequestHead
from ..matchers.target import ALIVE, Router, Target
from ..placeholders.request import RoutingLimit
from .answers import HEALTHY, KEY_TOO_LONG, NO_LINK, NO_ROUTE, QUEUE_FULL, ROUTING_FAILED, ROUTING_LIMIT, STOPPING
from .backlog import Backlog
from .client_connection import ClientConnection
from .client_transport import ClientTransport, TransportPhase
from .exchange import Abort, Answer
from .link_connection import LinkConnection
from .link_pool import AppId, Links
from .turns import Turns

HEAD_READ_BYTES = 8 * 1024
CHUNKS_READ_BYTES = 2 * 1024
"""What is read at a time where the next bytes may be a head with content behind it, or chunks of which little is known:
a client decides how many chunks there are in a read, and so what it costs.
"""

MESSAGES_A_TURN = 64
TICK_S = 1.0
ORPHAN_GRACE_S = 10.0
FAREWELL_S = 5.0
COMPLAINT_S = 1.0
"""A tenant that sends nonsense must not fill the log."""


class RelayStage(Enum):
    """Whether the relay takes connections, or why it no longer does."""

    SERVING = "serving"
    DRAINING = "draining"
    ORPHANED = "orphaned"


class RelayServer:
    """Forwards until told to drain. ``endpoint`` is the relay's end of its channel, ``page`` its vital signs."""

    def __init__(self, settings: RelaySettings, endpoint: Endpoint, page: Page, router: Router) -> None:
        self.settings = settings
        self._router = router
        self.limits = Limits(
            settings.max_head_bytes, settings.max_target_bytes, settings.max_header_count, settings.max_body_bytes
        )
        self.heads = Heads(HEADS_MAX, rests=True)
        """Whole heads that came before; ``to_worker`` keeps with each what a link gets to see of it."""
        self.server_header = settings.server_header.encode("latin-1", "replace")
        self.slots = page.slots
        self._connections: dict[int, ClientConnection] = {}
        self.backlog = Backlog(self._read_less)
        self._read_less()
        self.tally = Counters()
        self.is_leaving = False
        """Idle connections are not kept."""
        self.is_orphaned = False
        self._keeps_tunnels = False
        self._endpoint = endpoint
        self._header = page.header
        self._cells = page.thread(0)
        self._stage = RelayStage.SERVING
        self._links: Links[LinkConnection, ClientConnection] = Links(
            settings.max_needs, settings.max_idle_links, settings.max_idle_links_total, settings.link_idle_s
        )
        self._open_links: set[LinkConnection] = set()
        self._watched: set[ClientTransport] = set()
        self._active = 0
        self._now = monotonic()
        self._is_publishing = False
        self._is_writer_added = False
        self._quiet_until = 0.0
        self._unsaid = 0

    # Life

    async def run(self) -> int:
        """Serve, drain; the process's exit status."""
        loop = self._loop = asyncio.get_running_loop()
        self.call_soon: Callable[[Callable[[], None]], object] = loop.call_soon
        self.turns: Turns[AppId] = Turns(loop.call_soon)
        self._left: asyncio.Future[None] = loop.create_future()
        self._told = asyncio.Event()
        loop.add_reader(self._endpoint.fileno(), self._on_channel)
        self._tick()
        implementation = f"{platform.python_implementation()} {platform.python_version()}"
        self._tell(Ready(PROTOCOL_VERSION, f"{implementation}, {type(loop).__module__}"))
        await self._left
        self._header[WORD_TICK] = 0
        for link in list(self._open_links):
            link.discard()
        await self._farewell()
        return 0

    def _leave(self, stage: RelayStage, grace_s: float) -> None:
        """Take nothing new, give back what is idle, and be gone when the rest is done or ``grace_s`` is over."""
        if self._stage is RelayStage.ORPHANED:
            return
        if self._stage is stage:
            self._end_keeping(grace_s)
            return
        self._keeps_tunnels = stage is RelayStage.DRAINING
        if self._keeps_tunnels:
            self._loop.call_later(self.settings.tunnel_keep_s, self._end_keeping, grace_s)
        self._stage = stage
        self.is_leaving = True
        self.is_orphaned = stage is RelayStage.ORPHANED
        if self.is_orphaned:
            faulthandler.dump_traceback_later(grace_s + FAREWELL_S, exit=True)
        for connection in list(self._connections.values()):
            if self.is_orphaned:
                connection.ends_after_answer()
            connection.leave()
        if self.is_orphaned:
            for waiter in self._links.give_up():
                waiter.refused(STOPPING)
        self._loop.call_later(grace_s, self._force)
        self._check_left()

    def _end_keeping(self, grace_s: float) -> None:
        """WebSockets must end now too."""
        if self._keeps_tunnels:
            self._keeps_tunnels = False
            self._loop.call_later(grace_s, self._force)

    def _check_left(self) -> None:
        if self.is_leaving and not self._connections and not self._left.done():
            self._left.set_result(None)

    def _force(self) -> None:
        if self._left.done():
            return
        kept = TransportPhase.TUNNEL if self._keeps_tunnels else None
        connections = [each for each in self._connections.values() if each.phase is not kept]
        if connections:
            say("warn", "the grace period is over: connections are cut", connections=len(connections))
        for connection in connections:
            connection.abort()
        if not self._keeps_tunnels:
            self._loop.call_later(1.0, self._give_up)

    def _give_up(self) -> None:
        if not self._left.done():
            self._left.set_result(None)

    # Channel

    def _on_channel(self) -> None:
        try:
            for _ in range(MESSAGES_A_TURN):
                received = self._endpoint.receive()
                if received is None:
                    return
                self._obey(*received)
        except (ChannelClosed, ChannelError) as exc:
            self._channel_ended(exc)

    def _channel_ended(self, exc: Exception) -> None:
        self._loop.remove_reader(self._endpoint.fileno())
        if not self.is_leaving:
            say("warn", "the daemon is gone: leaving", reason=str(exc))
        self._leave(RelayStage.ORPHANED, ORPHAN_GRACE_S)

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Take):
            self._take(message, descriptors[0])
        elif isinstance(message, Link):
            self._take_link(message.need, descriptors[0])
        elif isinstance(message, Refused):
            waiter = self._links.refused(message.need)
            if waiter is not None:
                waiter.refused(Answer(message.status, message.code, message.text, message.retry_after_s, True))
        else:
            for fd in descriptors:
                os.close(fd)
            if isinstance(message, Drain):
                self._leave(RelayStage.DRAINING, message.grace_s)
            elif isinstance(message, Shed):
                self._shed(message.connections)
            elif isinstance(message, Dump):
                self._dump()

    def _tell(self, message: Message) -> None:
        if self.is_orphaned:
            return
        try:
            if not self._endpoint.send(message) and not self._is_writer_added:
                self._is_writer_added = True
                self._loop.add_writer(self._endpoint.fileno(), self._flush_channel)
        except ChannelClosed as exc:
            # Not now: whoever has something to say is in the middle of something.
            self._loop.call_soon(self._channel_ended, exc)

    def _flush_channel(self) -> None:
        try:
            if self._endpoint.flush():
                self._is_writer_added = False
                self._loop.remove_writer(self._endpoint.fileno())
                self._told.set()
        except ChannelClosed as exc:
            self._loop.remove_writer(self._endpoint.fileno())
            self._channel_ended(exc)

    async def _farewell(self) -> None:
        """Say the last word and wait until the kernel has it."""
        self._told.clear()
        self._tell(Drained())
        if self._endpoint.outbox and not self.is_orphaned:
            try:
                await asyncio.wait_for(self._told.wait(), FAREWELL_S)
            except TimeoutError:
                say("warn", "the daemon does not read its channel")

    # Connections

    def _take(self, message: Take, fd: int) -> None:
        slot, flags = message
        # Only its family is asked for: each question is a system call.
        sock = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)
        if self.is_leaving:
            self._give_back(slot, sock)
            return
        sock.setblocking(False)
        connection = ClientConnection(
            self,
            sock,
            slot,
            flags >> TAKE_LISTENER_SHIFT,
            is_trusted=bool(flags & TAKE_TRUSTED),
            is_borrowed=bool(flags & TAKE_BORROWED),
            is_last=bool(flags & TAKE_LAST),
        )
        self._connections[slot] = connection
        self._header[WORD_CONNECTIONS] = len(self._connections)
        self.slots[slot] = SLOT_IDLE
        self._open(self._open_connection(connection, sock))

    def _give_back(self, slot: int, sock: socket.socket) -> None:
        sock.close()
        self.slots[slot] = SLOT_RETURNED
        self._tell(Returned(slot))

    def _open(self, opening: Coroutine[Any, Any, None]) -> None:
        """Go on with ``opening``, which waits for nothing but one future: a task would cost more than all of it."""
        try:
            waits_for = opening.send(None)
        except StopIteration:
            return
        waits_for.add_done_callback(lambda _: self._open(opening))

    async def _open_connection(self, connection: ClientConnection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError as exc:
            say("warn", "a connection could not be taken", reason=str(exc))
            sock.close()
            self._released(connection.slot, returned=False)

    def connection_lost(self, connection: ClientTransport, returned: bool) -> None:
        """A connection has ended, or been ``returned``: its slot is settled once our copy is closed."""
        self._watched.discard(connection)
        if returned:
            # Our copy is closed when this callback of the transport has returned.
            self._loop.call_soon(self._released, connection.slot, True)
        else:
            self._released(connection.slot, False)

    def _released(self, slot: int, returned: bool) -> None:
        self._connections.pop(slot, None)
        self._header[WORD_CONNECTIONS] = len(self._connections)
        if returned:
            self.slots[slot] = SLOT_RETURNED
            self._tell(Returned(slot))
        else:
            self.slots[slot] = SLOT_CLOSED
        self._check_left()

    def _read_less(self) -> None:
        """Memory has become tight, or no longer is."""
        view = self.backlog.view
        self.head_view = view[:HEAD_READ_BYTES]
        self.chunks_view = view[:CHUNKS_READ_BYTES]
        self.body_high_bytes = len(view)
        """Reading pauses while this much of a request waits for a link."""
        for connection in self._connections.values():
            connection.read_less()

    def _shed(self, count: int) -> None:
        for connection in list(self._connections.values()):
            if count <= 0:
                return
            if connection.phase is TransportPhase.IDLE:
                connection.leave()
                count -= 1

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

    # Links

    def free_link(self, app_id: AppId, is_repeatable: bool) -> LinkConnection | None:
        """A link that is free. One that must not fail, because its request cannot be repeated, is looked at first."""
        while True:
            link = self._links.take(app_id)
            if link is None or is_repeatable or link.is_alive:
                return link
            link.discard()

    def wait(self, app_id: AppId, connection: ClientConnection) -> None:
        """Let ``connection`` wait for a link: ``linked`` or ``refused`` follows, perhaps at once."""
        if self.is_orphaned:
            connection.refused(STOPPING)
        elif self._links.is_full:
            connection.refused(QUEUE_FULL)
        else:
            wanted = self._links.wait(app_id, connection)
            if wanted is not None:
                self._tell(Need(wanted.need, *app_id))

    def waits_no_more(self, app_id: AppId, connection: ClientConnection) -> None:
        """``connection`` has left, or been answered, before ``linked``. The daemon is told when nobody else
        wants that link.
        """
        need = self._links.leave(app_id, connection)
        if need is not None:
            self._tell(Unneed(need))

    def _take_link(self, need: int, fd: int) -> None:
        sock = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)
        if self._links.app_needed(need) is None:
            sock.close()
            return
        sock.setblocking(False)
        self._open(self._open_link(LinkConnection(self, sock, need), sock))

    async def _open_link(self, link: LinkConnection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: link, sock)
        except OSError as exc:
            say("warn", "a link could not be taken", reason=str(exc))
            sock.close()
            waiter = self._links.refused(link.need)
            if waiter is not None:
                waiter.refused(NO_LINK)

    def link_made(self, link: LinkConnection) -> None:
        """``link`` can be used: by who has waited longest, or by nobody yet. It is discarded when its app is
        wanted no more.
        """
        self._open_links.add(link)
        if self._links.app_needed(link.need) is None:
            link.discard()
            return
        waiter = self._links.arrived(link.need, link)
        if waiter is not None:
            waiter.linked(link)
        else:
            self.release(link)

    def release(self, link: LinkConnection) -> None:
        """``link`` is clean and carries no request."""
        waiter = self._links.release(link, self._now)
        if waiter is not None:
            waiter.linked(link)
            return
        surplus = self._links.surplus(link)
        if surplus is not None:
            surplus.discard()

    def link_over(self, link: LinkConnection) -> None:
        """``link`` is not to be used any more."""
        self._links.closed(link)

    def link_closed(self, link: LinkConnection) -> None:
        """``link`` is closed for good, and is not waited for at the end."""
        self._open_links.discard(link)

    # Vital signs

    def begins(self) -> float:
        """A request begins; when."""
        self._active += 1
        self._header[WORD_ACTIVE] = self._active
        return monotonic()

    def count(self, status: int, started: float) -> None:
        """A request is over. ``status``: of the answer; ``started``: what ``begins`` gave."""
        self._active -= 1
        self._header[WORD_ACTIVE] = self._active
        self.tally.finished(status, monotonic() - started)
        if not self._is_publishing:
            self._is_publishing = True
            self._loop.call_later(PUBLISH_S, self._publish)

    def count_refusal(self, error: ProtocolError) -> None:
        """A request that was not understood was answered with the status of ``error``, in no time."""
        self.tally.finished(error.status, 0.0)

    def failed(self, answer: Answer, app_id: AppId) -> None:
        """An answer of our own takes the place of the app's."""
        if answer.status >= 400:
            self.tally.errors += 1
        if answer.status == 502:
            self._complain(answer.detail or answer.code, "", code=answer.code, **_named(app_id))

    def cut(self, command: Abort, app_id: AppId) -> None:
        """A response was cut, so that the client sees it is not whole; ``command`` says why."""
        self.tally.errors += 1
        self._complain(command.why, "", **_named(app_id))

    def _complain(self, what: str, error: str = "", **fields: object) -> None:
        if self._now < self._quiet_until:
            self._unsaid += 1
            return
        unsaid, self._unsaid = self._unsaid, 0
        self._quiet_until = self._now + COMPLAINT_S
        if unsaid:
            fields["more_since_the_last"] = unsaid
        say("warn", what, error, **fields)

    def _publish(self) -> None:
        self._is_publishing = False
        self.tally.publish(self._cells)

    def _dump(self) -> None:
        faulthandler.dump_traceback(all_threads=True)
        say("info", "stacks dumped to standard error", links=repr(self._links), connections=len(self._connections))

    # Time

    def watch(self, connection: ClientTransport) -> None:
        """``connection`` has a deadline now: it is looked at on each turn of the watch, while it needs that."""
        self._watched.add(connection)

    def _tick(self) -> None:
        self._loop.call_later(TICK_S, self._tick)  # first: whatever goes wrong below, time-outs go on
        now = self._now = monotonic()
        self._header[WORD_TICK] = int(now * 1000)
        self._publish()
        for connection in list(self._watched):
            if not connection.overdue(now):
                self._watched.discard(connection)
        for link in self._links.expired(now):
            link.discard()


def _named(app_id: AppId) -> dict[str, object]:
    route, key = app_id
    return {"route": route, "key": ascii(key[:80])[1:-1]}
