"""What was written last, for whoever asks, and those who read on. Bounded: of what waits, of each app and of all.

Of the app that has most, the oldest goes first: one that says much takes nothing from the others.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import NamedTuple

from .formats import json_line
from .records import LEVELS, Record

RING_BYTES = 8 * 1024 * 1024
_COST_BYTES = 150
"""Of a record beside its text."""
WAITING_MAX_BYTES = 4 * 1024 * 1024
"""For one who reads on, beyond as much as was there when he began."""
READERS_MAX = 32


class Query(NamedTuple):
    """What somebody wants to read."""

    app: str | None = None
    """Of this app: its name, or the first word of it, as a tenant's host is; None: of all, and the daemon's own."""
    since: float = 0.0
    """Seconds since 1970."""
    level: int = 0
    """The lowest, as ``records.LEVELS`` has it."""
    lines: int | None = None
    """So many of the last; None: all."""
    follow: bool = False
    process: str | None = None
    """Of this process, or schedule, beside the workers: all that run, or ``name.2``, one of them; None: of all."""

    def wants(self, entry: Entry) -> bool:
        """Whether ``entry`` is what is wanted."""
        is_wanted = self.process is None or self.means(entry.process)
        return is_wanted and entry.level >= self.level and entry.ts > self.since and self.names(entry.app)

    def names(self, app: str) -> bool:
        """Whether it is about ``app``."""
        return self.app is None or self.app == app or self.app == app.partition(" ")[0]

    def means(self, process: object) -> bool:
        """Whether ``process``, as a record has it, is the one that is asked for, or one of them."""
        if process == self.process:
            return True
        name, _, number = process.rpartition(".") if isinstance(process, str) else ("", "", "")
        return name == self.process and number.isdecimal()


class Entry(NamedTuple):
    """A record, in the order of numbers."""

    number: int
    ts: float
    level: int
    app: str
    """Empty for one that is about none."""
    line: bytes
    """As JSON, with its end."""
    process: object = None
    """The field of that name."""


class Ring:
    """The last ``room_bytes`` of records."""

    def __init__(self, room_bytes: int = RING_BYTES) -> None:
        self._room_bytes = room_bytes
        self._entries: dict[str, deque[Entry]] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._number = 0

    def add(self, record: Record, text: bytes) -> Entry:
        """Keep ``record``, which was written as ``text``, if it was."""
        start = text.find(b"{", 0, 4)  # behind journald's priority, if there is one
        line = text[start:] if start >= 0 else json_line(record)
        app = record.fields.get("app")
        self._number += 1
        entry = Entry(self._number, record.ts, LEVELS.get(record.level, 20), app if isinstance(app, str) else "", line,
                      record.fields.get("process"))  # fmt: skip
        self._entries.setdefault(entry.app, deque()).append(entry)
        cost = len(line) + _COST_BYTES
        self._sizes[entry.app] = self._sizes.get(entry.app, 0) + cost
        self._bytes += cost
        while self._bytes > self._room_bytes:
            self._forget_one()
        return entry

    def _forget_one(self) -> None:
        owner = max(self._sizes, key=self._sizes.__getitem__)
        cost = len(self._entries[owner].popleft().line) + _COST_BYTES
        self._bytes -= cost
        self._sizes[owner] -= cost
        if not self._entries[owner]:
            del self._entries[owner], self._sizes[owner]

    def knows(self, query: Query) -> bool:
        """Whether there is anything about the app of ``query``, and about the process."""
        named = [entries for app, entries in self._entries.items() if query.names(app)]
        if query.process is None:
            return bool(named)
        return any(query.means(entry.process) for entries in named for entry in entries)

    def find(self, query: Query) -> list[Entry]:
        """What ``query`` wants, the oldest first."""
        found: Iterator[Entry] = merge(*(each for app, each in self._entries.items() if query.names(app)))
        wanted = (entry for entry in found if query.wants(entry))
        if query.lines is None:
            return list(wanted)
        return list(deque(wanted, maxlen=query.lines))


class Reader:
    """Somebody who reads: writes to ``fd``, its own, without waiting."""

    def __init__(self, fd: int, query: Query, ring: Ring) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.query = query
        self._waiting: deque[bytes] = deque([b'{"known":%s}\n' % (b"true" if ring.knows(query) else b"false")])
        self._waiting.extend(entry.line for entry in ring.find(query))
        self._bytes = sum(map(len, self._waiting))
        self._most_bytes = self._bytes + WAITING_MAX_BYTES
        self._missed = 0

    @property
    def is_waiting(self) -> bool:
        """Something is still to be written."""
        return bool(self._waiting)

    def offer(self, entry: Entry, now: float) -> None:
        """A record was written."""
        if not self.query.wants(entry):
            return
        if self._bytes > self._most_bytes:
            self._missed += 1
            return
        if self._missed:
            fields = {"count": self._missed}
            told = json_line(Record("warn", now, "daemon", "records left out: they are not read so fast", fields))
            self._missed = 0
            self._append(told)
        self._append(entry.line)

    def _append(self, line: bytes) -> None:
        self._waiting.append(line)
        self._bytes += len(line)

    def write(self) -> bool:
        """Write what finds room; False when it is over: all has been written, or nobody reads any more."""
        while self._waiting:
            try:
                sent = os.writev(self.fd, list(islice(self._waiting, 64)))
            except BlockingIOError:
                return True
            except OSError:
                return False
            self._bytes -= sent
            while sent and sent >= len(self._waiting[0]):
                sent -= len(self._waiting.popleft())
            if sent:
                self._waiting[0] = self._waiting[0][sent:]
        return self.query.follow
