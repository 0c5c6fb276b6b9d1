"""One process's output: its pipes, what has been read of them, and the records that become of it.

Reading and making records are two steps. What is there is read at once, so that a print does not wait; records are made
as fast as they can be, of a small piece of everybody's output in turn. Between the two stands a bounded amount per
pipe; beyond it, and beyond what one process may say in a second, output is dropped and counted, and a record tells how
much. That holds for every kind of line, and counts what becomes of it: a byte may be six in JSON.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import orjson

from ..channel.throttle import TokenBucket
from ..channel.traces import unmarked
from ..sandbox import denials
from . import access, caddy
from .lines import LINE_MAX_BYTES, Lines
from .records import LEVELS, Record
from .repeats import Repeats
from .tracebacks import Group, Grouping, Troubles

READ_BYTES = 64 * 1024
PENDING_MAX_BYTES = 256 * 1024
"""Of one pipe. The kernel holds another 64 KiB."""

TURN_BYTES = 4 * 1024
TURN_LINES = 64
"""Records are made of so much of a pipe before it is the next one's turn."""

LINE_COST_BYTES = 200
RATE_BYTES = 1024 * 1024
BURST_BYTES = 8 * 1024 * 1024
"""What one process's output may come to: so much a second, and at once after a quiet time; a line costs its bytes and
``LINE_COST_BYTES``, or what is written of it, if that is more. That is some 3,500 short lines a second, or 28,000 at
once."""

RESUME_BYTES = 64 * 1024
"""So much must be left again before something is let through once more: few gaps are better than many."""

TOLD_RATE_BYTES = 4 * 1024 * 1024
TOLD_BURST_BYTES = 16 * 1024 * 1024
"""The same for what our own code in it tells: some 5,000 requests a second, or 20,000 at once."""

CADDY_RATE_BYTES = 16 * 1024 * 1024
CADDY_BURST_BYTES = 64 * 1024 * 1024
"""The same for a Caddy's log, with the requests that it has been told to log: more than it can answer."""

RECORDS_A_SECOND = 200
RECORDS_AT_ONCE = 2000
PARTIAL_S = 1.0
"""How long a line that does not end is waited for."""

GROUP_S = 0.2
TELL_DROPPED_S = 60.0
_READS_AT_THE_END = 64
_RECORD_LINE_MAX = 256 * 1024
_TEXT_MAX = 32 * 1024
_FIELDS_MAX = 32


WALLED = "walled"
"""A field of a process that is in a sandbox; it is on no record."""


class Source:
    """A process whose output is read. ``fields`` go on each of its records; ``logger`` is ``app``, ``relay`` …"""

    def __init__(
        self, logger: str, fields: dict[str, Any], streams: dict[str, int], access: dict[str, Any] | None = None
    ) -> None:
        self.logger = logger
        self.fields = {name: value for name, value in fields.items() if name != WALLED}
        self._is_walled = WALLED in fields
        self.access = access
        """How its requests are logged; None: not at all."""
        self.rate = TokenBucket(RATE_BYTES, burst=BURST_BYTES)
        """Of what is printed."""
        self.owner = str(fields.get("app", logger))
        """Whose share of the log it is."""
        self.troubles = Troubles()
        self.streams: list[Stream] = [_KINDS.get(name, Printed)(self, name, fd) for name, fd in streams.items()]

    @property
    def pid(self) -> int | None:
        """The process."""
        pid = self.fields.get("pid")
        return pid if isinstance(pid, int) else None

    def record(self, level: str, logger: str, msg: str, fields: dict[str, Any], ts: float) -> Record:
        """With what names the process last, so that nothing it says can take its place."""
        if self._is_walled and (hint := denials.hint(str(fields.get("error") or msg))):
            fields = {**fields, "hint": hint}
        return Record(level, ts, logger, msg, {**fields, **self.fields})


class Stream:
    """One pipe. Owns its descriptor, which is not blocking."""

    def __init__(self, source: Source, name: str, fd: int, rate: TokenBucket, repeats: Repeats) -> None:
        self.source = source
        self.name = name
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        self.has_ended = False
        """All who could write have closed it, or it is read no more."""
        self._rate = rate
        self._repeats = repeats
        self._cost = 0
        self._pending: deque[bytes] = deque()
        self._begin = 0
        """Of the first of them: where the next turn begins."""
        self._pending_bytes = 0
        self._gap = False
        self._dropped_lines = 0
        self._dropped_bytes = 0
        self._told_at = 0.0
        self._fed_at = 0.0

    @property
    def is_pending(self) -> bool:
        """Something has been read of which no records have been made."""
        return bool(self._pending)

    def read(self) -> bool:
        """Read what is there, at most ``READ_BYTES``; False when there was nothing."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.has_ended = True
            return False
        if self._pending_bytes >= PENDING_MAX_BYTES:
            self._drop(data)
        else:
            self._pending.append(data)
            self._pending_bytes += len(data)
        return True

    def close(self) -> None:
        """Read no more. It must be out of the epoll by then: the daemon has a duplicate, which would go on firing."""
        os.close(self.fd)

    def read_to_the_end(self) -> None:
        """Whoever had the pipe has ended: read what is there, and no more of it, though others may keep it open."""
        for _ in range(_READS_AT_THE_END):
            if self.has_ended or not self.read():
                break
        self.has_ended = True

    def records(self, now: float) -> list[Record]:
        """Those of a small piece of what has been read. What becomes of them is to be said to ``charge``."""
        self._fed_at = now
        self._cost = 0
        if self._rate.left(now) <= (RESUME_BYTES if self._gap else 0):
            self._drop(self._piece(len(self._pending[0]), len(self._pending[0])))
            return []
        data = self._piece(TURN_BYTES, TURN_LINES)
        self._cost = len(data) + LINE_COST_BYTES * data.count(b"\n")
        self._rate.charge(self._cost)
        return self._make(data, now)

    def charge(self, size: int) -> None:
        """The last records are ``size`` bytes as they are written."""
        if size > self._cost:
            self._rate.charge(size - self._cost)
        self._cost = 0

    def _piece(self, size: int, lines: int) -> bytes:
        """Of what has been read, the next ``size`` bytes or ``lines`` lines, the lesser: whole lines, if it can."""
        data = self._pending[0]
        limit = min(self._begin + size, len(data))
        end = self._begin
        for _ in range(lines):
            found = data.find(b"\n", end, limit)
            if found < 0:
                end = limit if limit == len(data) or end == self._begin else end
                break
            end = found + 1
        piece = data[self._begin : end]
        self._pending_bytes -= len(piece)
        self._begin = end
        if end == len(data):
            self._pending.popleft()
            self._begin = 0
        return piece

    def tick(self, now: float) -> list[Record]:
        """What is due because time has passed."""
        found = self._due(now, now - self._fed_at) + self._repeated(now)
        if self._has_dropped and now - self._told_at >= TELL_DROPPED_S:
            self._told_at = now
            found.append(self._loss())
        return found

    def end(self, now: float) -> list[Record]:
        """The last records: there is nothing more to come."""
        found: list[Record] = []
        while self._pending:
            found += self.records(now)
        found += self._due(now, math.inf) + self._repeated(math.inf)
        if self._has_dropped:
            found.append(self._loss())
        return found

    @property
    def _has_dropped(self) -> bool:
        return bool(self._dropped_bytes or self._dropped_lines)

    @property
    def is_restless(self) -> bool:
        """``tick`` will have something to do."""
        return self._has_dropped or bool(self._repeats)

    def _drop(self, data: bytes) -> None:
        self._gap = True
        self._dropped_bytes += len(data)
        self._dropped_lines += data.count(b"\n")

    def _after_gap(self, data: bytes) -> bytes:
        """``data`` without the end of a line whose beginning was dropped."""
        end = data.find(b"\n")
        rest = b"" if end < 0 else data[end + 1 :]
        self._dropped_bytes += len(data) - len(rest)
        if end >= 0:
            self._gap = False
            self._dropped_lines += 1
        return rest

    def _loss(self) -> Record:
        fields = {"stream": self.name, "lines": self._dropped_lines, "bytes": self._dropped_bytes}
        self._dropped_lines = self._dropped_bytes = 0
        msg = "output dropped: more than is logged"
        return self.source.record("warn", self.source.logger, msg, fields, time.time())

    def _make(self, data: bytes, now: float) -> list[Record]:
        raise NotImplementedError

    def _repeated(self, now: float, coming: Hashable = None) -> list[Record]:
        """What was said again and again, and is not any longer: see ``Repeats.ended``."""
        raise NotImplementedError

    def _due(self, now: float, waited: float) -> list[Record]:
        """What has begun, and is not waited for any longer: nothing was read for ``waited`` seconds."""
        return []


class Printed(Stream):
    """Standard output or standard error: text of any kind."""

    def __init__(
        self, source: Source, name: str, fd: int, rate: TokenBucket | None = None, longest: int = LINE_MAX_BYTES
    ) -> None:
        super().__init__(source, name, fd, rate or source.rate, Repeats(1))
        self._lines = Lines(longest)
        self._groups = Grouping()
        self._logger = f"{source.logger}.{name}"

    def _make(self, data: bytes, now: float) -> list[Record]:
        found: list[Record] = []
        if self._gap:
            if self._lines:
                found += self._group(self._lines.take(), now)
                self._dropped_lines = max(0, self._dropped_lines - 1)  # its end was among what was dropped
            data = self._after_gap(data)
        for line in self._lines.feed(data):
            found += self._group(line, now)
        return found

    def _group(self, line: str, now: float) -> list[Record]:
        return self._told(self._groups.feed(*unmarked(line)), now)

    def _told(self, groups: list[Group], now: float) -> list[Record]:
        found: list[Record] = []
        for group in groups:
            if group.is_error:
                self.source.troubles.note(group.text)
            what = group._replace(trace="")
            found += self._repeated(now, what)
            if self._repeats.see(what, now):
                fields = {"error": group.text} if group.text else {}
                if group.trace:
                    fields["traceID"] = group.trace
                level = "error" if group.is_error else "info"
                found.append(self.source.record(level, self._logger, group.title, fields, time.time()))
        return found

    def _repeated(self, now: float, coming: Hashable = None) -> list[Record]:
        over = [f"repeated {times:,} times" for _, times in self._repeats.ended(now, coming)]
        return [self.source.record("info", self._logger, text, {}, time.time()) for text in over]

    def _due(self, now: float, waited: float) -> list[Record]:
        found = self._group(self._lines.take(), now) if self._lines and waited >= PARTIAL_S else []
        if waited >= GROUP_S and not self._lines:
            found += self._told(self._groups.take(), now)
        return found

    @property
    def is_restless(self) -> bool:
        """See ``Stream``."""
        return super().is_restless or bool(self._lines or self._groups)


class Told(Stream):
    """What our own code in a worker or relay says: records (``R`` and JSON), requests answered (``A``, see ``access``),
    and how many lines of these found no room in the pipe (``D``).

    An app may write there too, or anything else; it can make up nothing but records of its own process.
    """

    def __init__(self, source: Source, name: str, fd: int) -> None:
        super().__init__(source, name, fd, TokenBucket(TOLD_RATE_BYTES, burst=TOLD_BURST_BYTES), Repeats())
        self._begun = b""
        self._times = TokenBucket(RECORDS_A_SECOND, burst=RECORDS_AT_ONCE)

    def _make(self, data: bytes, now: float) -> list[Record]:
        if self._gap:
            self._begun = b""
            data = self._after_gap(data)
        first, *rest = data.split(b"\n")
        self._begun += first
        if len(self._begun) > _RECORD_LINE_MAX:
            self._drop(self._begun)
            self._gap = not rest
            self._dropped_lines += bool(rest)
            self._begun = b""
            lines = rest
        else:
            lines = [self._begun, *rest]
        self._begun = lines.pop() if lines else b""
        found: list[Record] = []
        for line in lines:
            try:
                found += self._read(line, now)
            except Exception:  # whatever an app writes, the log of the others goes on
                self._dropped_lines += 1
                self._dropped_bytes += len(line)
        return found

    def _read(self, line: bytes, now: float) -> list[Record]:
        kind = line[:1]
        source = self.source
        if kind == b"A":
            if source.access is None:
                raise ValueError("nobody has asked for it")
            made = access.read(line[1:], bool(source.access.get("credentials")), time.time())
            return [made._replace(fields={**made.fields, **source.fields})]
        if kind == b"D":
            self._dropped_lines += min(int(line[1:20]), 1 << 40)
            return []
        if kind != b"R":
            raise ValueError("no record")
        if self._times.left(now) <= 0:
            raise ValueError("too many")
        self._times.charge(1)
        said = orjson.loads(line[1:])
        level, msg, fields = said["level"], str(said["msg"])[:_TEXT_MAX], said["fields"]
        if level not in LEVELS or not isinstance(fields, dict):
            raise ValueError("no record")
        fields = {
            name[:64]: _bounded(value)
            for name, value in list(fields.items())[:_FIELDS_MAX]
            if name not in Record._fields
        }
        logger = "relay" if source.logger == "relay" else "worker"
        what = (level, logger, msg, str(fields.get("error")))
        source.troubles.note(what[3])
        found = self._repeated(now, what)
        if self._repeats.see(what, now):
            found.append(source.record(level, logger, msg, fields, time.time()))
        return found

    def _repeated(self, now: float, coming: Hashable = None) -> list[Record]:
        return [
            self.source.record(level, logger, msg, {"repeated": f"{times:,} times"}, time.time())
            for (level, logger, msg, _), times in self._repeats.ended(now, coming)
        ]


class Logged(Printed):
    """The log of a Caddy, whose records stay what they are; what is none, such as a panic, is text."""

    def __init__(self, source: Source, name: str, fd: int) -> None:
        rate = TokenBucket(CADDY_RATE_BYTES, burst=CADDY_BURST_BYTES)
        super().__init__(source, name, fd, rate, _RECORD_LINE_MAX)

    def _group(self, line: str, now: float) -> list[Record]:
        said = caddy.read(line)
        if said is None:
            return super()._group(line, now)
        level, logger, msg, fields, ts = said
        before = self._told(self._groups.take(), now)
        if caddy.is_about_us(msg, fields):
            return before
        return [*before, self.source.record(level, logger, msg, fields, time.time() if ts is None else ts)]


_KINDS: dict[str, Callable[[Source, str, int], Stream]] = {"records": Told, "caddy": Logged}


def _bounded(value: Any) -> Any:
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX // 2] + "\n[… cut …]\n" + text[-_TEXT_MAX // 2 :]
