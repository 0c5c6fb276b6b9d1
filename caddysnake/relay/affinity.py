"""Which worker a client's requests go to. Pure: clock and chance are arguments.

A client is known by a mark: a cookie of ours, or a field that it sends anyway. The cookie names its worker, and is
signed, for one app, with a key that outlives this process. What a field stands for is remembered here, for a bounded
number of them. A client without a mark goes to the worker with the fewest clients, in turn among equals.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable

from ..http1.forwarded import is_https
from ..http1.request import RequestHead
from .link_pool import AppId

ANY = 0
"""No worker's number: whichever the daemon gives."""

CLIENTS_MAX = 65_536
CLIENT_S = 600.0
"""How long a client counts after its last request."""

LOST_FIELD = b"caddysnake-affinity: lost"
"""Tells the app that a client was with another worker before."""

_APPS_MAX = 4096
_VERIFIED_MAX = 8192
_GONE_MAX = 1024
_COOKIE_MAX = 256
_KEY_MAX = 256
"""What is remembered of what anybody can send is short."""
_STRANGE = -1
"""A worker of another life of the daemon's: one that has its number now is another."""
_SIGNATURE_BYTES = 16
_CLIENT_BYTES = 9


class Wish:
    """The worker that one request is to go to: ``worker``, its number, or ``ANY``. ``client``: what the client is known
    by; None: nothing. ``had``: it had a worker before. ``is_new``: not this one.
    """

    __slots__ = ("client", "had", "is_new", "key", "route", "worker")

    def __init__(self, app_id: AppId, client: bytes | None, worker: int, had: bool, is_new: bool) -> None:
        self.route, self.key = app_id[0], app_id[1]
        self.client = client
        self.worker = worker
        self.had = had
        self.is_new = is_new


class _App:
    """What is known of one app's workers, and of its clients."""

    __slots__ = ("clients", "counts", "turn", "workers")

    def __init__(self) -> None:
        self.workers: list[int] = []
        self.clients: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        """Each with its worker and when it was seen, in seconds; who was seen longest ago first."""
        self.counts: dict[int, int] = {}
        self.turn = 0

    def fewest(self) -> int:
        """Return the worker with the fewest clients; ``ANY`` when none is known."""
        workers = self.workers
        if not workers:
            return ANY
        self.turn += 1
        first = self.turn % len(workers)
        return min(workers[first:] + workers[:first], key=lambda worker: self.counts.get(worker, 0))

    def note(self, client: bytes, worker: int, now: float) -> int:
        """``client`` is with ``worker``; how many more are known by that."""
        before = self.clients.get(client)
        if before is None or before[0] != worker:
            if before is not None:
                self._count(before[0], -1)
            self._count(worker, 1)
        self.clients[client] = (worker, now)
        self.clients.move_to_end(client)
        return before is None

    def forget_oldest(self) -> None:
        """Forget who was seen longest ago."""
        _, (worker, _) = self.clients.popitem(last=False)
        self._count(worker, -1)

    def _count(self, worker: int, step: int) -> None:
        count = self.counts.get(worker, 0) + step
        if count > 0:
            self.counts[worker] = count
        else:
            self.counts.pop(worker, None)


class Block:
    """What one ``python`` block says. ``name``: of the cookie, or the field. ``identity``: whose cookies they are."""

    __slots__ = ("by_cookie", "identity", "name", "prefix")

    def __init__(self, kind: str, name: str, identity: str) -> None:
        self.by_cookie = kind == "cookie"
        self.name = name.encode() if self.by_cookie else name.lower().encode()
        self.prefix = self.name + b"="
        self.identity = identity.encode()


class Affinity:
    """Clients and workers of all blocks with affinity, by their routes.

    ``key``: signs cookies. ``epoch``: when the daemon began to count its workers. ``chance``: gives random bytes.
    """

    def __init__(self, blocks: dict[int, Block], key: bytes, epoch: int, chance: Callable[[int], bytes]) -> None:
        self._blocks = blocks
        self._key = key
        self._epoch = b"%x" % epoch
        self._chance = chance
        self._apps: OrderedDict[AppId, _App] = OrderedDict()
        self._clients = 0
        self._verified: dict[tuple[int, str, bytes], tuple[int, bytes] | None] = {}
        self._gone: OrderedDict[int, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def wish(self, app_id: AppId, head: RequestHead, now: float) -> Wish | None:
        """Where a request for ``app_id`` is to go; None when its block has no affinity."""
        block = self._blocks.get(app_id[0])
        if block is None:
            return None
        app = self._apps.get(app_id)
        client: bytes | None
        if block.by_cookie:
            mark = self._cookie(app_id, block, head)
            worker, client = mark or (ANY, urlsafe_b64encode(self._chance(_CLIENT_BYTES)))
            had = mark is not None
        else:
            value = next((value for name, value in head.headers if name == block.name), b"")
            client = hashlib.blake2b(value, digest_size=16).digest() if value else None
            known = app.clients.get(client) if app is not None and client is not None else None
            had, worker = known is not None, ANY if known is None else known[0]
        if had and worker != _STRANGE and worker not in self._gone:
            is_new = False
        else:
            is_new, worker = True, ANY if app is None else app.fewest()
        if app is not None and client is not None and worker != ANY:
            self._note(app, client, worker, now)
        return Wish(app_id, client, worker, had, is_new)

    def granted(self, wish: Wish, worker: int, head: RequestHead, is_trusted: bool, now: float) -> tuple[bytes, bytes]:
        """The request goes to ``worker``: a field for the app, and one for the client; each may be empty.
        ``is_trusted``: ``head`` may say how the client came.
        """
        is_new = wish.is_new or worker != wish.worker
        if not is_new or wish.client is None or worker == ANY:
            return b"", b""
        if wish.worker not in (ANY, worker):
            self._gone[wish.worker] = None
            if len(self._gone) > _GONE_MAX:
                self._gone.popitem(last=False)
        app = self._apps.get((wish.route, wish.key))
        if app is not None:
            self._note(app, wish.client, worker, now)
        lost = LOST_FIELD if wish.had else b""
        block = self._blocks[wish.route]
        if not block.by_cookie:
            return lost, b""
        text = b"%b.%x.%b" % (self._epoch, worker, wish.client)
        value = text + b"." + self._signature(block, wish.key, text)
        secure = b"; Secure" if is_trusted and _is_https(head) else b""
        return lost, b"set-cookie: %b=%b; Path=/; HttpOnly; SameSite=Lax%b" % (block.name, value, secure)

    # Workers

    def told(self, app_id: AppId, workers: list[int]) -> None:
        """The app has these workers now."""
        app = self._apps.get(app_id)
        if app is None:
            app = self._apps[app_id] = _App()
            if len(self._apps) > _APPS_MAX:
                _, oldest = self._apps.popitem(last=False)
                self._clients -= len(oldest.clients)
        app.workers = workers
        for worker in workers:
            self._gone.pop(worker, None)

    def left(self, worker: int) -> None:
        """It takes no new clients any more."""
        for app in self._apps.values():
            if worker in app.workers:
                app.workers = [each for each in app.workers if each != worker]

    # Clients

    def _note(self, app: _App, client: bytes, worker: int, now: float) -> None:
        self._clients += app.note(client, worker, now)
        if self._clients > CLIENTS_MAX:
            app.forget_oldest()
            self._clients -= 1

    def sweep(self, now: float) -> None:
        """Forget clients that have not been seen for long."""
        for app in self._apps.values():
            clients = app.clients
            while clients and now - next(iter(clients.values()))[1] >= CLIENT_S:
                app.forget_oldest()
                self._clients -= 1

    # Cookies

    def _signature(self, block: Block, key: str, text: bytes) -> bytes:
        signed = b"\0".join((block.identity, key.encode("utf-8", "surrogateescape"), text))
        digest = hmac.digest(self._key, signed, "sha256")[:_SIGNATURE_BYTES]
        return urlsafe_b64encode(digest).rstrip(b"=")

    def _cookie(self, app_id: AppId, block: Block, head: RequestHead) -> tuple[int, bytes] | None:
        """The worker and the client that a cookie of ours names."""
        prefix = block.prefix
        for name, value in head.headers:
            if name != b"cookie" or prefix not in value:
                continue
            for pair in value.split(b";"):
                text = pair.strip()
                if text.startswith(prefix) and len(text) <= _COOKIE_MAX:
                    mark = self._verify(app_id, block, text[len(prefix) :])
                    if mark is not None:
                        return mark
        return None

    def _verify(self, app_id: AppId, block: Block, value: bytes) -> tuple[int, bytes] | None:
        key = app_id[1]
        known = (app_id[0], key, value)
        verified = self._verified
        if known in verified:
            return verified[known]
        text, _, signature = value.rpartition(b".")
        mark = None
        if hmac.compare_digest(signature, self._signature(block, key, text)):
            epoch, worker, client = text.split(b".")
            mark = (int(worker, 16) if epoch == self._epoch else _STRANGE, client)
        if len(key) <= _KEY_MAX:
            if len(verified) >= _VERIFIED_MAX:
                verified.clear()
            verified[known] = mark
        return mark


def _is_https(head: RequestHead) -> bool:
    return any(name == b"x-forwarded-proto" and is_https(value) for name, value in head.headers)
