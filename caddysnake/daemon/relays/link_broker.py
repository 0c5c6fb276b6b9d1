"""Answers relays: from ``Need`` to a link to a worker of the right app, or to a refusal.

A link is a socketpair. One end is placed with the app's workers like any connection from Caddy, with a duplicate kept
here, so it migrates and is rescued as they are; the other end goes to the relay.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping

from ...channel import messages
from ...channel.codec import shorten
from ...channel.codes import STATUS
from ..apps.app import App
from ..apps.counters import Counters
from ..sockets.connections import Connection, Connections
from ..sockets.refusals import INTERNAL, NO_DESCRIPTORS, NO_SUCH_APP, QUEUE_FULL, Refusal
from ..sockets.shares import is_scarce
from ..system import mishaps
from ..system.log.fields import FieldLog
from ..system.snapshots import LinkBrokerSnapshot
from ..tenants.tenants import Tenants
from ..workers.worker import Worker

log = FieldLog("caddysnake.relay")

_RETRY_S = 0.01
_TEXT_MAX = 8 * 1024

Token = tuple[int, int]


class LinkBroker:
    """``apps``, ``templates``: by number. ``asked`` gets what relays send. ``development``: may be told all."""

    def __init__(
        self,
        connections: Connections,
        apps: Mapping[int, App],
        templates: Mapping[int, Tenants],
        max_queue: Mapping[int, int],
        development: Collection[int] = (),
    ) -> None:
        self._connections = connections
        self._apps = apps
        self._templates = templates
        self._max_queue = max_queue
        self._development = development
        self._loop = asyncio.get_running_loop()
        self._open: dict[Token, Callable[[], object]] = {}
        """What to undo when whoever asked leaves."""
        self._needs: dict[Token, tuple[Worker, messages.Need | messages.Seek]] = {}
        """What was asked for and is open, with the relay that asks."""

    def asked(self, relay: Worker, message: messages.FromRelay) -> None:
        """A relay wants a link, or does not want it any more."""
        if isinstance(message, messages.Lost):
            if message.code in STATUS:
                self._ledger(message.route, message.key).refused(message.code, message.requests)
            return
        token = (relay.number, message.need)
        if isinstance(message, messages.Unneed):
            self._withdraw(token)
            return
        self._needs[token] = (relay, message)
        self._seek(relay, message)

    @mishaps.or_else(lambda self, relay, message, *_: self._refuse(relay, message, INTERNAL))
    def _seek(self, relay: Worker, message: messages.Need | messages.Seek) -> None:
        token = (relay.number, message.need)
        since = time.monotonic()
        app = self._apps.get(message.route)
        tenants = self._templates.get(message.route)
        if tenants is not None:
            key = message.key
            self._open[token] = lambda: tenants.never_mind(key, token)
            tenants.need(key, token, lambda found: self._found(relay, message, found, since))
        elif app is not None:
            self._await(relay, message, app, since)
        else:
            self._refuse(relay, message, NO_SUCH_APP)

    def needs(self) -> list[tuple[int, messages.Need | messages.Seek]]:
        """What is open, each with the number of the relay that asks."""
        return [(relay.number, message) for relay, message in self._needs.values()]

    def snapshot(self, generation: int, numbers: Mapping[App, int]) -> LinkBrokerSnapshot:
        """What it calls the apps, which have ``numbers``, and the templates, for another image of the daemon."""
        return LinkBrokerSnapshot(
            generation=generation,
            apps={route: numbers[app] for route, app in self._apps.items() if app in numbers},
            estates={route: tenants.spec.name for route, tenants in self._templates.items()},
            max_queue=dict(self._max_queue),
            development=sorted(self._development),
        )

    def sweep(self) -> None:
        """To be called every second or so: what a relay asked for that has ended is not wanted any more."""
        for token in [token for token, (relay, _) in self._needs.items() if relay.ended.is_set()]:
            self._withdraw(token)

    def _withdraw(self, token: Token) -> None:
        """Whoever asked has left."""
        undo = self._settled(token)
        if undo is not None:
            undo()

    def _settled(self, token: Token) -> Callable[[], object] | None:
        """It is not open any more; what was to be undone."""
        self._needs.pop(token, None)
        return self._open.pop(token, None)

    @mishaps.or_else(lambda self, relay, message, *_: self._refuse(relay, message, INTERNAL))
    def _found(self, relay: Worker, message: messages.Need | messages.Seek, found: App | Refusal, since: float) -> None:
        if isinstance(found, Refusal):
            self._refuse(relay, message, found)
        else:
            self._await(relay, message, found, since)

    def _await(self, relay: Worker, message: messages.Need | messages.Seek, app: App, since: float) -> None:
        token = (relay.number, message.need)
        if len(app.waiters) + app.waiting >= self._max_queue.get(message.route, 1024):
            self._refuse(relay, message, QUEUE_FULL)
            return
        self._open[token] = lambda: app.waiters.pop(token, None)
        app.when_ready(token, lambda refusal: self._settle(relay, message, app, refusal, since))

    @mishaps.or_else(lambda self, relay, message, *_: self._refuse(relay, message, INTERNAL))
    def _settle(
        self, relay: Worker, message: messages.Need | messages.Seek, app: App, refusal: Refusal | None, since: float
    ) -> None:
        if refusal is not None:
            self._refuse(relay, message, refusal)
            return
        try:
            theirs, ours = socket.socketpair()
            with theirs, ours:
                if is_scarce(ours.fileno()):
                    raise OSError(errno.EMFILE, "the last descriptors are kept for others")
                connection = Connection(ours.fileno(), messages.TAKE_TRUSTED | messages.TAKE_LINK, app, since=since)
                self._connections.adopt(connection)
                ours.detach()
                fd = theirs.detach()
        except OSError as exc:
            log.error("cannot make a link", app=app.name, error=exc.strerror)
            self._refuse(relay, message, NO_DESCRIPTORS)
            return
        if isinstance(message, messages.Need):
            app.place(connection)
            self._hand_over(relay, messages.Link(message.need), fd)
            return
        connection.flags |= messages.TAKE_TIED
        tied = app.tie(connection, _serving(app, message.worker))
        workers = " ".join(str(worker.number) for worker in app.known_to_clients())
        if tied is None:
            # Nobody takes it now: whoever does next, for one request.
            connection.flags = messages.TAKE_TRUSTED | messages.TAKE_LINK | messages.TAKE_LAST
            app.place(connection)
        number = 0 if tied is None else tied.number
        self._hand_over(relay, messages.Tied(message.need, number, workers), fd)

    def _hand_over(self, relay: Worker, message: messages.Link | messages.Tied, fd: int) -> None:
        token = (relay.number, message.need)
        if relay.link(message, fd):
            os.close(fd)
            self._settled(token)
            return
        # The kernel takes no more descriptors for this user for the moment.
        retry = self._loop.call_later(_RETRY_S, self._hand_over, relay, message, fd)

        def undo() -> None:
            retry.cancel()
            os.close(fd)

        self._open[token] = undo

    def _ledger(self, route: int, key: str) -> Counters:
        """Where is counted what was answered in the place of an app; one that nobody has, where it is not there."""
        tenants, app = self._templates.get(route), self._apps.get(route)
        if tenants is not None:
            return tenants.ledger_of(key)
        return app.ledger if app is not None else Counters()

    def _refuse(self, relay: Worker, message: messages.Need | messages.Seek, refusal: Refusal) -> None:
        self._settled((relay.number, message.need))
        self._ledger(message.route, message.key).refused(refusal.code)
        text = shorten(refusal.text, _TEXT_MAX) if message.route in self._development else ""
        relay.tell(messages.Refused(message.need, refusal.status, refusal.retry_after_s, refusal.code, text))


def _serving(app: App, number: int) -> Worker | None:
    """The worker of that ``number``, while it is there: not of a build that was returned, or is kept."""
    takeover, present = app.takeover, app.pool
    stay = [each for each in app.pools() if each.generation <= present.generation and each is not takeover.kept]
    pools = stay if app.next_side is None or takeover.coming is None else [*stay, takeover.coming]
    found = (each for pool in pools for each in pool.everyone() if each.number == number)
    return next((each for each in found if each.state.is_serving), None)
