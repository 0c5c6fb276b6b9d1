"""Who gets which link: what is asked of the daemon for those who wait, and what becomes of links that are free."""

from __future__ import annotations

import socket
from collections.abc import Callable

from ..aio.transport import adopt
from ..channel.messages import Message, Need, Refused, Seek, Tied, Unneed
from ..channel.records import say
from .answers import NO_LINK, QUEUE_FULL, STOPPING
from .context import RelayContext
from .exchange import Answer
from .link_connection import LinkConnection, LinkUser
from .link_pool import AppId, Links, TiedId


class LinkBroker:
    """All links of one relay. ``tell`` sends a message to the daemon."""

    def __init__(self, context: RelayContext, tell: Callable[[Message], None]) -> None:
        settings = context.settings
        self._context = context
        self._tell = tell
        self._links: Links[LinkConnection, LinkUser] = Links(
            settings.max_needs, settings.max_idle_links, settings.max_idle_links_total, settings.link_idle_s
        )
        self._open: set[LinkConnection] = set()

    def __repr__(self) -> str:
        return repr(self._links)

    # For requests

    def free_link(self, app_id: AppId, is_repeatable: bool) -> LinkConnection | None:
        """A link that is free. One that must not fail, because its request cannot be repeated, is looked at first."""
        while True:
            link = self._links.take(app_id)
            if link is None or is_repeatable or link.is_alive:
                return link
            link.discard()

    def wait(self, app_id: AppId, user: LinkUser) -> None:
        """Let ``user`` wait for a link: ``linked`` or ``refused`` follows, perhaps at once."""
        if self._context.is_orphaned:
            user.refused(STOPPING)
        elif self._links.is_full:
            user.refused(QUEUE_FULL)
        else:
            wanted = self._links.wait(app_id, user)
            if wanted is not None:
                self._tell(_asking(wanted.need, app_id))

    def waits_no_more(self, app_id: AppId, user: LinkUser) -> None:
        """``user`` has left, or been answered. The daemon is told when nobody else wants the link."""
        need = self._links.leave(app_id, user)
        if need is not None:
            self._tell(Unneed(need))

    def release(self, link: LinkConnection) -> None:
        """``link`` is clean and carries no request."""
        if link.is_left:
            link.discard()
            return
        user = self._links.release(link, self._context.now)
        if user is not None:
            self._tell_user(user, link)
            return
        surplus = self._links.surplus(link)
        if surplus is not None:
            surplus.discard()

    # What the daemon says

    def take(self, need: int, fd: int, tied: Tied | None = None) -> None:
        """The link for ``need`` has come; it is closed when nobody needs it any more. ``tied``: to one worker."""
        sock = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=fd)
        app_id = self._links.app_needed(need)
        if app_id is None:
            sock.close()
            return
        owner: TiedId | None = None
        if tied is not None:
            owner = (app_id[0], app_id[1], tied.worker)
            workers = [int(number) for number in tied.workers.split()]
            self._context.affinity.told((app_id[0], app_id[1]), workers)

        def failed(exc: OSError) -> None:
            say("warn", "a link could not be taken", reason=str(exc))
            sock.close()
            self._refuse(need, NO_LINK)

        adopt(self._context.loop, LinkConnection(self._context, self, sock, need, owner), sock, failed)

    def left(self, worker: int) -> None:
        """Links to ``worker`` that are free may be another's by now; those in use, as soon as their answer has come."""
        self._context.affinity.left(worker)
        for link in self._open:
            link.is_left |= link.owner is not None and link.owner[2] == worker
        for link in self._links.idle_of(worker):
            link.discard()

    def refused(self, message: Refused) -> None:
        """There will be no link."""
        self._refuse(
            message.need, Answer(message.status, message.code, message.text, message.retry_after_s, is_told=True)
        )

    def _refuse(self, need: int, answer: Answer) -> None:
        user = self._links.refused(need)
        if user is not None:
            self._tell_user(user, answer)

    def give_up(self) -> None:
        """The daemon is gone: nobody who waits gets a link any more."""
        for user in self._links.give_up():
            self._tell_user(user, STOPPING)

    def _tell_user(self, user: LinkUser, found: LinkConnection | Answer) -> None:
        try:
            user.refused(found) if isinstance(found, Answer) else user.linked(found)
        except Exception as exc:
            self._context.mishap(exc)
            user.cut()
            if not isinstance(found, Answer):
                found.discard()

    # For links

    def link_made(self, link: LinkConnection) -> None:
        """``link`` can be used: by who has waited longest, or nobody yet. Discarded when its app is not wanted."""
        self._open.add(link)
        if self._links.app_needed(link.need) is None:
            link.discard()
            return
        user = self._links.arrived(link.need, link, link.owner)
        if user is not None:
            self._tell_user(user, link)
        else:
            self.release(link)

    def link_over(self, link: LinkConnection) -> None:
        """``link`` is not to be used any more."""
        self._links.closed(link)

    def link_closed(self, link: LinkConnection) -> None:
        """``link`` is closed for good, and is not waited for at the end."""
        self._open.discard(link)

    def expire(self) -> None:
        """Close what has been idle for too long."""
        for link in self._links.expired(self._context.now):
            link.discard()

    def close(self) -> None:
        """Close all links."""
        for link in list(self._open):
            link.discard()


def _asking(need: int, app_id: AppId) -> Need | Seek:
    if len(app_id) == 2:
        return Need(need, *app_id)
    route, key, worker = app_id
    return Seek(need, route, worker, key)
