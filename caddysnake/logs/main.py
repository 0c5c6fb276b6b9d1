"""The log process: ``python -m caddysnake.logs.main '{"channel": 7, …}'``, started by the daemon.

It reads what workers, relays and fork servers write, and the daemon's own records, and writes all of it to the standard
error it has from the daemon. It never waits for a reader of the log, never for the daemon, and runs no app's code: so
whoever prints waits for nobody either, whatever becomes of the daemon.

Signals that end the others do not end it: it is the last to leave.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping

from . import caddy, orders
from .formats import Console, Format, has_colours, journal_line, json_line
from .records import LEVELS, Record, Statement
from .ring import READERS_MAX, Entry, Query, Reader, Ring
from .sink import OURS, Sink
from .sources import TURN_BYTES, Source, Stream
from .tracebacks import Troubles

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that it ignores. Whoever starts it blocks them meanwhile."""

_PR_SET_DUMPABLE = 4
_TICK_S = 0.2
_MAKE_BYTES_A_TURN = 512 * 1024
_ORDERS_A_TURN = 64
_FAREWELL_S = 2.0
_STDERR = 2
_TROUBLED_MAX = 256
"""Of so many processes is known what went wrong, those that are gone among them."""


class LogProcess:
    """Everything but the process itself. ``channel``: the daemon's orders; ``sink``: where records go."""

    def __init__(self, channel: socket.socket, sink: Sink) -> None:
        self._channel: socket.socket | None = channel
        self._sink = sink
        self._streams: dict[int, Stream] = {}
        self._restless: set[Stream] = set()
        self._pending: dict[Stream, None] = {}
        self._orphans: dict[int, Source] = {}
        self._troubles: dict[tuple[str, int], Troubles] = {}
        self._level = LEVELS["info"]
        self._format = self._format_named("auto")
        self._is_quiet = True
        self._poll = select.epoll()
        self._poll.register(channel.fileno(), select.EPOLLIN)
        self._poll.register(sink.room_fd, select.EPOLLIN)
        self._ticked_at = 0.0
        self._lost = 0
        self._ring = Ring()
        self._readers: dict[int, Reader] = {}

    def run(self) -> None:
        """Until the daemon says that it is over, or is gone and all pipes have ended."""
        has_work = False
        while self._channel is not None or self._streams or self._pending:
            waits_s = 0 if has_work else _TICK_S if self._restless or self._pending or self._lost else -1
            for fd, events in self._poll.poll(waits_s):
                stream = self._streams.get(fd)
                if stream is not None:
                    self._read(stream)
                elif fd == self._sink.room_fd:
                    self._sink.forget_wakes()
                elif fd in self._readers:
                    self._serve(fd, is_gone=bool(events & select.EPOLLERR))
                elif fd in self._orphans:
                    self._outlived(fd)
                elif not self._obey():
                    self._finish()
                    return
            has_work = self._make()
            now = time.monotonic()
            if now - self._ticked_at >= _TICK_S:
                self._ticked_at = now
                self._tick(now)
        self._finish()

    # Orders

    def _obey(self) -> bool:
        """False when it is over."""
        channel = self._channel
        if channel is None:
            return True
        for _ in range(_ORDERS_A_TURN):
            try:
                received = orders.receive(channel)
            except (EOFError, OSError):
                self._poll.unregister(channel.fileno())
                channel.close()
                self._channel = None
                self._watch_orphans()
                return True
            if received is None:
                return True
            order, content, descriptors = received
            if order == orders.RECORD:
                self._write(Record(**content))
            elif order == orders.TEXT:
                self._catch_up()
                told = Statement(**content)
                if isinstance(self._format, Console):
                    self._sink.offer(told.text.encode("utf-8", "backslashreplace"))
                else:
                    self._sink.offer(self._format(told.record(time.time())))
            elif order == orders.SOURCE:
                self._add(content, descriptors)
            elif order == orders.OVER:
                self._let_go(content["pipes"])
            elif order == orders.BEAT:
                with contextlib.suppress(OSError):  # the daemon has not read the last one: it knows
                    orders.send(channel, orders.frame(orders.BEAT, {}))
            elif order == orders.TROUBLE:
                with contextlib.suppress(OSError):
                    orders.send(channel, orders.frame(orders.TROUBLE, self._trouble(**content)))
            elif order == orders.READ:
                self._read_by(Query(**content), descriptors)
            elif order == orders.STYLE:
                self._level = LEVELS.get(content["level"], LEVELS["info"])
                self._format = self._format_named(content["format"])
                self._is_quiet = bool(content.get("is_quiet"))
            elif order == orders.END:
                return False
        return True

    def _read_by(self, query: Query, descriptors: list[int]) -> None:
        self._make()
        for fd in descriptors:
            if len(self._readers) >= READERS_MAX:
                os.close(fd)
                continue
            self._readers[fd] = Reader(fd, query, self._ring)
            self._poll.register(fd, 0)  # whether anybody reads
            self._serve(fd)

    def _serve(self, fd: int, is_gone: bool = False) -> None:
        """Write to a reader what finds room; let go of one who has all he wants, or has left."""
        reader = self._readers[fd]
        if not is_gone and reader.write():
            self._poll.modify(fd, select.EPOLLOUT if reader.is_waiting else 0)
            return
        del self._readers[fd]
        self._poll.unregister(fd)
        os.close(fd)

    def _add(self, content: dict[str, object], descriptors: list[int]) -> None:
        names = content["streams"]
        assert isinstance(names, list)
        streams = dict(zip(names, descriptors, strict=False))
        source = Source(content["logger"], content["fields"], streams, content.get("access"))  # type: ignore[arg-type]
        if source.pid is not None:
            self._troubles[source.owner, source.pid] = source.troubles
            if len(self._troubles) > _TROUBLED_MAX:
                del self._troubles[next(iter(self._troubles))]
        for stream in source.streams:
            self._streams[stream.fd] = stream
            self._poll.register(stream.fd, select.EPOLLIN)
        if len(descriptors) < len(names):
            fields = {**source.fields, "streams": names[len(descriptors) :]}
            why = "output cannot be read: the log process has no descriptors left, raise the limit of open files"
            self._write(Record("error", time.time(), "daemon", why, fields))

    def _trouble(self, number: int, app: str, pids: list[int]) -> dict[str, object]:
        self._catch_up()
        found = [self._troubles[app, pid].foremost() for pid in pids if (app, pid) in self._troubles]
        times, text = max(found, default=(0, ""))
        return {"number": number, "times": times, "text": text}

    def _let_go(self, inodes: list[int]) -> None:
        """Of pipes whose process has ended: what it has started may keep them open for ever, and write on."""
        over = set(inodes)
        for stream in [stream for stream in self._streams.values() if stream.inode in over]:
            stream.read_to_the_end()
            self._end(stream)

    def _watch_orphans(self) -> None:
        """Without a daemon, see ourselves when a process has ended."""
        for source in {stream.source for stream in self._streams.values()}:
            if source.pid is None:
                continue
            try:
                pidfd = os.pidfd_open(source.pid)
            except ProcessLookupError:
                self._let_go([stream.inode for stream in source.streams])
                continue
            except OSError:  # no descriptors: its pipes must tell
                continue
            self._orphans[pidfd] = source
            self._poll.register(pidfd, select.EPOLLIN)

    def _outlived(self, pidfd: int) -> None:
        source = self._orphans.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        self._let_go([stream.inode for stream in source.streams])

    def _format_named(self, name: str) -> Format:
        is_terminal = os.isatty(_STDERR)
        if name == "console" or (name == "auto" and is_terminal):
            return Console(has_colours(is_terminal, os.environ))
        return journal_line if is_journal(os.environ) else json_line

    # Streams

    def _read(self, stream: Stream) -> None:
        stream.read()
        if stream.has_ended:
            self._end(stream)
        else:
            self._pending[stream] = None

    def _end(self, stream: Stream) -> None:
        self._poll.unregister(stream.fd)
        del self._streams[stream.fd]
        stream.close()
        self._pending[stream] = None

    def _catch_up(self) -> None:
        """What was printed before the daemon says why something failed stands before it in the log."""
        for stream in list(self._streams.values()):
            self._read(stream)
        self._make()

    def _make(self) -> bool:
        """Make records of what was read, a piece of everybody's in turn, within their shares; True: there is more."""
        made = 0
        now = time.monotonic()
        while turns := [stream for stream in self._pending if self._sink.has_room(stream.source.owner)]:
            for stream in turns:
                if not self._sink.has_room(stream.source.owner):
                    continue
                del self._pending[stream]
                if stream.is_pending:
                    size = self._write_all(stream.records(now), stream.source.owner)
                    stream.charge(size)
                    made += size + TURN_BYTES
                if stream.is_pending:
                    self._pending[stream] = None  # at the end of the row
                elif stream.has_ended:
                    self._write_all(stream.end(now), stream.source.owner)
                    self._restless.discard(stream)
                elif stream.is_restless:
                    self._restless.add(stream)
                if made >= _MAKE_BYTES_A_TURN:
                    return True
        return False

    def _tick(self, now: float) -> None:
        for stream in list(self._restless):
            if not self._sink.has_room(stream.source.owner):
                continue
            self._write_all(stream.tick(now), stream.source.owner)
            if not stream.is_restless:
                self._restless.discard(stream)
        # Of pipes that cannot be turned into records now, what is dropped is still told later.
        self._restless.update(stream for stream in self._pending if stream.is_restless)
        self._lost += self._sink.take_lost()
        if self._lost and self._sink.has_room(OURS):
            lost, self._lost = self._lost, 0
            told = Record("warn", time.time(), "daemon", "log records lost", {"count": lost})
            self._sink.offer(self._format(told))

    def _write_all(self, records: list[Record], owner: str) -> int:
        texts = []
        for record in records:
            is_wanted = self._is_wanted(record)
            if is_wanted:
                texts.append(self._format(record))
            if is_wanted or LEVELS[record.level] >= self._level:
                entry = self._ring.add(record, texts[-1] if is_wanted else b"")
                if self._readers:
                    self._tell_readers(entry)
        text = b"".join(texts)
        if text and not self._sink.offer(text, owner):
            self._lost += len(records)
        return len(text)

    def _is_wanted(self, record: Record) -> bool:
        if self._is_quiet and record.fields.get("process") == "caddy" and isinstance(self._format, Console):
            is_low = record.level in ("debug", "info") or record.msg.startswith(caddy.AS_EXPECTED)
            return not is_low or record.logger.startswith(caddy.ACCESS)
        return LEVELS[record.level] >= self._level

    def _tell_readers(self, entry: Entry) -> None:
        for reader in self._readers.values():
            was_waiting = reader.is_waiting
            reader.offer(entry, time.time())
            if reader.is_waiting and not was_waiting:
                self._poll.modify(reader.fd, select.EPOLLOUT)

    def _write(self, record: Record) -> None:
        if not self._sink.has_room(OURS):
            self._lost += 1
            return
        self._write_all([record._replace(level=record.level if record.level in LEVELS else "info")], OURS)

    def _finish(self) -> None:
        """Write what has been written to us so far, and leave."""
        now = time.monotonic()
        for stream in {*self._streams.values(), *self._pending, *self._restless}:
            stream.read_to_the_end()
            self._write_all(stream.end(now), stream.source.owner)
        self._tick(now)
        self._sink.close(_FAREWELL_S)


def is_journal(environ: Mapping[str, str], fd: int = _STDERR) -> bool:
    """Whether ``fd`` is a connection to journald (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (str(found.st_dev), str(found.st_ino)) == (device, inode)


def main(options: str) -> None:
    """Run the log process that ``options`` (JSON) describe to its end. Does not return."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    channel = socket.socket(fileno=json.loads(options)["channel"])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    status = 1
    try:
        LogProcess(channel, Sink(_STDERR)).run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # a writer that is held up must not hold us


if __name__ == "__main__":
    main(sys.argv[1])
