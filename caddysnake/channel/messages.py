"""The vocabulary of the channel.

A message that asks is a verb, one that reports is a participle or an adjective. Descriptors travel only outward from
the daemon; each message says how many it carries (``DESCRIPTORS``).

===========  ==============  =========================================================================
from         message         meaning
===========  ==============  =========================================================================
daemon       Write           three descriptors: standard output, standard error, records; before Configure
daemon       Configure       two descriptors: settings (sealed memfd holding JSON), vital-signs page
daemon       Take            one descriptor: serve this connection until it ends, or give it back
daemon       Takes           several Take in one, each with its descriptor
daemon       Drain           take nothing new; return idle connections; finish the rest; exit
daemon       Shed            return that many connections: another worker is less busy
daemon       Dump            write every thread's stack to standard error
daemon       Profile         one descriptor: look for a while at what runs, and write that into this pipe
daemon       Spawn           (to a fork server) one descriptor: fork a worker that owns this channel
daemon       Reap            (to a fork server) wait for this child, which the daemon has seen to be dead
daemon       Join            (to a thread host) one descriptor: run a worker that owns this channel, as threads
daemon       Cancel          (to a thread host) raise SystemExit in the threads of this worker
worker       Ready           imported, lifespan started; carries the protocol version it speaks
worker       Failed          why it could not become ready; the process exits after it
worker       Returned        idle, at a request boundary, its copy is closed
worker       Drained         nothing left; the process exits after it
relay        Need            a connection to the app of this key, please
relay        Seek            the same, if possible to that worker of it
relay        Unneed          whoever wanted it has left
relay        Lost            so many requests for this app were answered in its place, and why
daemon       Link            (to a relay) one descriptor: the connection that was asked for
daemon       Tied            (to a relay) one descriptor: as Link, to a worker that is named, and which others there are
daemon       Left            (to a relay) a worker takes no new clients, and its free links may be another's now
daemon       Refused         (to a relay) there will be none, and what to answer
fork server  Prepared        preloads are imported, forks may be asked for
fork server  Spawned         this worker has this pid; of a thread host: it runs, or cannot run there
fork server  Reaped          this child ended with this wait status; of a thread host, unasked: these threads have ended
host         LeftBehind      so many threads that apps started live on after their workers; also answers Cancel
===========  ==============  =========================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

PROTOCOL_VERSION = 1
"""Raised whenever a message changes its form. An upgraded daemon meets workers of the version before."""


class Write(NamedTuple):
    """Descriptors of three pipes: standard output, standard error, records. Before ``Configure``, or not at all."""


class Configure(NamedTuple):
    """Descriptors: the settings (sealed), and the page. ``version``: the daemon's ``PROTOCOL_VERSION``."""

    version: int


class Take(NamedTuple):
    """Descriptor: the connection. ``slot`` indexes the page's state bytes. ``flags`` is a set of ``TAKE_*`` bits."""

    slot: int
    flags: int


class Takes(NamedTuple):
    """Descriptors: connections, in the order of ``entries`` (see ``several``). Only for one that knows this."""

    entries: bytes

    @classmethod
    def several(cls, takes: Sequence[Take]) -> Takes:
        """Return the message for ``takes``, at most ``TAKES_MAX``. Raises ``struct.error`` for numbers out of range."""
        return cls(b"".join(_ENTRY.pack(*take) for take in takes))

    def each(self) -> list[Take]:
        """Return what it is made of."""
        return [Take(*entry) for entry in _ENTRY.iter_unpack(self.entries)]

    @property
    def is_whole(self) -> bool:
        """Whether it is made of whole ones, not too many, and of one at least."""
        return 0 < len(self.entries) <= TAKES_MAX * _ENTRY.size and len(self.entries) % _ENTRY.size == 0

    @property
    def descriptors(self) -> int:
        """How many it carries."""
        return len(self.entries) // _ENTRY.size


_ENTRY = struct.Struct("<II")

TAKES_MAX = 64
"""A quarter of the descriptors that the kernel lets one message carry (unix(7), SCM_MAX_FD)."""

TAKE_TRUSTED = 1
"""Believe ``X-Forwarded-For``, ``-Proto`` and ``-Host`` on this connection: Caddy's, or the relay's."""

TAKE_BORROWED = 2
"""To a relay: give it back at the next request boundary. It belongs to one app, whose workers are not up."""

TAKE_LINK = 4
"""To a worker: a link of a relay's, the only place where fields named ``RELAY_FIELDS…`` are a relay's own."""

TAKE_LAST = 8
"""Answer one request on it, with ``Connection: close``; an idle one is still not to be closed."""

RELAY_FIELDS = b"caddysnake-"
"""How the names of header fields begin that are between relays and workers. Nobody else may set, or see, one."""

PREFIX_FIELD = b"caddysnake-prefix"
"""What a route has taken off the path, percent-encoded: the app's SCRIPT_NAME or root_path."""

TAKE_TIED = 16
"""To a worker: a link for clients that are to stay with it: served also while it drains, as long as it is there."""

AFFINITY_FIELD = b"caddysnake-affinity"
"""``lost``: the client of a request was with another worker before. The one field of a relay's that apps see."""

TAKE_SINCE_SHIFT = 8
"""To an app's worker: above this many bits stands since when it waits for one, monotonic milliseconds modulo 2**24."""

TAKE_COUNTED = 32
"""To an app's worker: give it back after as many requests as stand where else the time does."""

TAKE_ROUND = 64
"""To an app's worker: give it back after some requests, for another worker: all share a store. Older ones keep it."""

TAKE_LISTENER_SHIFT = 8
"""To a relay: the number of the listener in its routing table stands above this many bits."""


class Drain(NamedTuple):
    """``grace_s``: for requests in flight. What may stay longer (WebSockets) does so until a second one."""

    grace_s: float


class Shed(NamedTuple):
    """Give back up to ``connections``, each told by ``Returned``: idle ones, and workers others, too, once idle."""

    connections: int


class Dump(NamedTuple):
    """Write the stacks of all threads to standard error. Not answered."""


class Profile(NamedTuple):
    """Descriptor: a pipe for what ``worker`` is at for ``seconds``. Only for one that knows this."""

    worker: int
    seconds: float


class Spawn(NamedTuple):
    """Descriptor: its end of its channel. ``worker``: its number. ``grace_s``: to leave when the daemon is gone."""

    worker: int
    grace_s: float


class Reap(NamedTuple):
    """Wait for the child that is ``worker``; answered by ``Reaped``. Its parent alone can learn its status, wait(2)."""

    worker: int


class Join(NamedTuple):
    """Descriptor: the worker's end of its channel. Answered by ``Spawned``; ``-EEXIST``: its modules collide there.

    Workers of one ``group`` share one import of their app. ``root`` is its working directory. ``grace_s`` as in
    ``Spawn``.
    """

    worker: int
    group: int
    grace_s: float
    root: str


class Cancel(NamedTuple):
    """Raise SystemExit in the threads of ``worker``. Answered by ``LeftBehind``."""

    worker: int


class Ready(NamedTuple):
    """An app is imported and its lifespan started, or a relay forwards. ``version``: the protocol it speaks."""

    version: int
    detail: str
    """What runs, for the log: ``CPython 3.13.0, uvloop``."""


class Failed(NamedTuple):
    """``code`` is one of ``codes.FAILURES``, ``text`` is for the log."""

    code: str
    text: str


MOVES = "moves"
"""A thread host's ``Failed.code``: importing the app changed the process, so it needs a host of its own."""


class Need(NamedTuple):
    """``need`` is the relay's number for it; ``route`` and ``key`` say which app (see the routing table)."""

    need: int
    route: int
    key: str


class Seek(NamedTuple):
    """A ``Need`` for one ``worker`` of the app, by the daemon's number, or for any (0). Answered by ``Tied``."""

    need: int
    route: int
    worker: int
    key: str


class Tied(NamedTuple):
    """Descriptor: as in ``Link``. ``worker``: whose it is, and stays; 0: whoever takes it, for one request.
    ``workers``: the numbers of all that take new clients, with blanks between them.
    """

    need: int
    worker: int
    workers: str


class Left(NamedTuple):
    """``worker`` takes no new clients, and links to it that carry no request are not its any more."""

    worker: int


class Lost(NamedTuple):
    """``requests`` for the app of ``route`` and ``key`` got an answer of the relay's own, with ``code``."""

    requests: int
    route: int
    key: str
    code: str


class Unneed(NamedTuple):
    """Nobody waits for ``need`` any more. It may cross a ``Link``, which is then closed unused."""

    need: int


class Link(NamedTuple):
    """Descriptor: one end of a socketpair whose other end a worker has, or will have in a moment."""

    need: int


class Refused(NamedTuple):
    """``status`` and ``retry_after_s`` (0: none) go to the client, with the short stable ``code``; ``text`` is why."""

    need: int
    status: int
    retry_after_s: int
    code: str
    text: str


class Returned(NamedTuple):
    """The connection in ``slot`` is the daemon's alone again: at a request boundary, our copy closed."""

    slot: int


class Drained(NamedTuple):
    """Nothing is left, and nothing more comes over this channel: the answer to ``Drain``. The process exits."""


class Prepared(NamedTuple):
    """A fork server's preloads are imported: ``Spawn`` may be sent. ``version`` and ``detail`` as in ``Ready``."""

    version: int
    detail: str


class Spawned(NamedTuple):
    """``worker`` runs in process ``pid``. A negative ``pid`` is the error number of a fork, or a join, that failed."""

    worker: int
    pid: int


class Reaped(NamedTuple):
    """``worker`` has ended. ``status``: as ``os.waitpid`` returns it, with exit status and signal still encoded."""

    worker: int
    status: int


class LeftBehind(NamedTuple):
    """How many ``threads`` of apps that have left live on in the host; 0 when the last of them has ended."""

    threads: int


Message = (
    Write
    | Configure
    | Take
    | Takes
    | Drain
    | Shed
    | Dump
    | Profile
    | Spawn
    | Reap
    | Ready
    | Failed
    | Returned
    | Need
    | Seek
    | Tied
    | Left
    | Unneed
    | Lost
    | Link
    | Refused
    | Drained
    | Prepared
    | Spawned
    | Reaped
    | Join
    | Cancel
    | LeftBehind
)

FromRelay = Need | Seek | Unneed | Lost

DESCRIPTORS: dict[type, int] = {Write: 3, Configure: 2, Take: 1, Spawn: 1, Link: 1, Tied: 1, Join: 1, Profile: 1}
"""How many descriptors a message carries; none for those not named, and of ``Takes`` each has one."""
