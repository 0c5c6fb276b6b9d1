"""The log process itself, with the test in the daemon's place."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon import cpu_s

from caddysnake.logs import access, orders
from caddysnake.logs.formats import journal_line, json_line
from caddysnake.logs.main import is_journal
from caddysnake.logs.records import Record
from caddysnake.logs.sink import ROOM_BYTES
from caddysnake.logs.sources import TOLD_BURST_BYTES, TOLD_RATE_BYTES

PATIENCE_S = 30.0
IDENTITY = {"app": "blog:app", "worker": 0, "pid": os.getpid()}


class LogProcess:
    """A log process that writes into a pipe of the test's."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reader, writer = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "caddysnake.logs.main", json.dumps({"channel": theirs.fileno()})],
            pass_fds=[theirs.fileno()],
            stderr=writer,
        )
        theirs.close()
        os.close(writer)
        self._ends: list[int] = []
        self._seen = b""
        self._drained: threading.Thread | None = None

    def source(self, **more: Any) -> tuple[int, int, int]:
        """Write ends: standard output, standard error, records."""
        readers, writers = zip(*(os.pipe() for _ in range(3)), strict=True)
        for reader in readers:
            os.set_blocking(reader, False)
        content = {"logger": "app", "fields": IDENTITY, "streams": ["stdout", "stderr", "records"], **more}
        orders.send(self.channel, orders.frame(orders.SOURCE, content), readers)
        for reader in readers:
            os.close(reader)
        self._ends += writers
        return writers

    def say(self, msg: str) -> None:
        record = Record("info", 1.5, "daemon", msg, {})
        orders.send(self.channel, orders.frame(orders.RECORD, record._asdict()))

    def until(self, text: str) -> list[dict[str, Any]]:
        """Everything written, as soon as ``text`` is among it."""
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self._seen:
            if self._drained is not None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
                continue
            assert select.select([self.reader], [], [], deadline - time.monotonic())[0], self._seen[-2000:]
            data = os.read(self.reader, 1 << 20)
            assert data, self._seen[-2000:]
            self._seen += data
        return self._records()

    def drain(self) -> None:
        """Read what it writes, all the time, without looking at it."""
        self._drained = threading.Thread(target=self._drain)
        self._drained.start()

    def _drain(self) -> None:
        while data := os.read(self.reader, 1 << 20):
            self._seen += data

    def end(self) -> list[dict[str, Any]]:
        """Have it leave; everything written."""
        orders.send(self.channel, orders.frame(orders.END, {}))
        if self._drained is None:
            self._drain()
        else:
            self._drained.join(PATIENCE_S)
        assert self.process.wait(PATIENCE_S) == 0
        return self._records()

    def _records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._seen.decode().split("\n")[:-1]]

    def close(self) -> None:
        self.channel.close()
        for fd in self._ends:
            with contextlib.suppress(OSError):
                os.close(fd)
        os.close(self.reader)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def log() -> Iterator[LogProcess]:
    made = LogProcess()
    yield made
    made.close()


def messages(records: list[dict[str, Any]], logger: str = "app.stdout") -> list[str]:
    return [record["msg"] for record in records if record["logger"] == logger]


def test_a_line_has_its_app_its_worker_and_its_stream(log: LogProcess) -> None:
    stdout, stderr, _ = log.source()
    os.write(stdout, b"hello\n")
    os.write(stderr, b"trouble\n")
    log.until("hello")
    first, second = sorted(log.until("trouble"), key=lambda record: str(record["logger"]), reverse=True)
    assert list(first) == ["level", "ts", "logger", "msg", "app", "worker", "pid"]
    assert {**first, "ts": 0} == {"level": "info", "ts": 0, "logger": "app.stdout", "msg": "hello", **IDENTITY}
    assert second["logger"] == "app.stderr"


def test_a_line_that_does_not_end_is_told_after_a_moment(log: LogProcess) -> None:
    stdout, _, _ = log.source()
    os.write(stdout, b"password: ")
    assert messages(log.until("password")) == ["password: "]


def test_everything_that_was_written_before_the_end_is_in_the_log(log: LogProcess) -> None:
    stdout, _, _ = log.source()
    log.say("stopping")
    os.write(stdout, b"".join(b"%d\n" % number for number in range(1000)) + b"no end")
    records = log.end()
    assert messages(records) == [*map(str, range(1000)), "no end"]
    assert messages(records, "daemon") == ["stopping"]


def test_a_flood_is_bounded_and_counted_and_others_are_heard(log: LogProcess) -> None:
    flood, _, _ = log.source()
    other, _, _ = log.source(fields={"app": "quiet", "worker": 0, "pid": 8})
    line = b"x" * 999 + b"\n"
    writes = 30_000
    began = time.monotonic()
    for number in range(writes):
        os.write(flood, line)
        if number % 10_000 == 9_999:
            os.write(other, b"still here %d\n" % number)
            log.until(f"still here {number}")
    assert time.monotonic() - began < PATIENCE_S  # 30 MB: nobody waited for a reader
    records = log.end()
    told = [record for record in records if record["msg"].startswith("output dropped")]
    lines = [record for record in records if record.get("app") == "blog:app" and record["msg"].startswith("x")]
    repeated = [record for record in records if record["msg"].startswith("repeated ")]
    counted = sum(int(record["msg"].split()[1].replace(",", "")) for record in repeated)
    assert told
    assert all(record["app"] == "blog:app" and record["stream"] == "stdout" for record in told)
    assert sum(record["lines"] for record in told) + len(lines) + counted == pytest.approx(writes, abs=2 * len(told))
    assert sum(record["bytes"] for record in told) > writes * len(line) / 2


def test_a_reader_of_the_log_that_stands_still_holds_nobody_up(log: LogProcess) -> None:
    stdout, _, _ = log.source()
    began = time.monotonic()
    written = 0
    while written < 3 * ROOM_BYTES:  # nobody reads the log meanwhile
        written += os.write(stdout, b"".join(b"%060d\n" % number for number in range(1000)))
    assert time.monotonic() - began < PATIENCE_S
    os.write(stdout, b"the end\n")
    records = log.until("output dropped")
    assert len(messages(records)) > 1000
    assert log.process.poll() is None


def read_slowly(log: LogProcess, until: bytes, others: Callable[[], None]) -> int:
    """How much was read, 8 KiB at a time, until ``until`` came; ``others`` is called between."""
    read = 0
    seen = b""
    deadline = time.monotonic() + PATIENCE_S
    while until not in seen:
        assert time.monotonic() < deadline
        others()
        data = os.read(log.reader, 8192)
        read += len(data)
        seen = seen[-len(until) :] + data
        log._seen += data
    return read


@pytest.mark.parametrize("line", [b"line %d\n", b"%d " + b"\x01" * 900 + b"\n", b"%d\n"])
def test_a_quiet_app_does_not_wait_behind_a_flood_for_a_slow_reader(log: LogProcess, line: bytes) -> None:
    floods = [log.source(fields={**IDENTITY, "worker": worker})[0] for worker in range(4)]
    quiet, _, _ = log.source(fields={"app": "quiet", "worker": 0, "pid": os.getpid()})
    data = b"".join(line % number for number in range(60_000 // len(line)))
    for flood in floods:
        os.set_blocking(flood, False)

    def go_on() -> None:
        for flood in floods:
            with contextlib.suppress(BlockingIOError):
                os.write(flood, data)

    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        go_on()
    os.write(quiet, b"here I am\n")
    assert read_slowly(log, b"here I am", go_on) < ROOM_BYTES / 2


def test_every_kind_of_line_has_a_bound(log: LogProcess) -> None:
    """Requests, records and junk that an app makes up cost the log no more than what is let through of each process."""
    entry = b"A1\x000\x000\x00200\x000\x000\x00127.0.0.1\x00GET\x001.1\x00/\x00host\x00" + b"\x01" * 3000
    entry += b"\x00\x00HTTP/1.1 200 OK\n"
    record = b'R{"level":"info","msg":"%d","fields":{"a":"' + b"x" * 30000 + b'"}}\n'
    _, _, told = log.source(access={"credentials": False})
    other, _, _ = log.source(fields={"app": "quiet", "worker": 0, "pid": os.getpid()})
    log.drain()
    began = time.monotonic()
    for number in range(4000):  # 12 MB of requests that would be 72 MB of JSON, 120 MB of records
        os.write(told, entry + record % number + b"junk\n")
        if number % 1000 == 999:
            os.write(other, b"still here %d\n" % number)
    os.write(other, b"the end\n")
    log.until("the end")
    records = log.end()
    took = time.monotonic() - began
    size = len(log._seen)
    assert size < TOLD_BURST_BYTES + took * TOLD_RATE_BYTES + 2 * ROOM_BYTES
    assert size > TOLD_BURST_BYTES / 16
    assert any(record["msg"].startswith("output dropped") and record["stream"] == "records" for record in records)
    assert len(messages(records)) == 5


def test_a_pipe_whose_process_has_ended_is_let_go_though_others_keep_it(log: LogProcess) -> None:
    stdout, _, _ = log.source()
    reader, kept = os.pipe()
    os.set_blocking(reader, False)
    content = {"logger": "app", "fields": IDENTITY, "streams": ["stdout"]}
    orders.send(log.channel, orders.frame(orders.SOURCE, content), (reader,))
    os.write(kept, b"last words\n")
    orders.send(log.channel, orders.frame(orders.OVER, {"pipes": [os.fstat(reader).st_ino]}))
    os.close(reader)
    log.until("last words")
    poll = select.poll()
    poll.register(kept, 0)
    assert poll.poll(PATIENCE_S * 1000) == [(kept, select.POLLERR)]  # nobody reads it
    os.close(kept)
    os.write(stdout, b"others go on\n")
    log.until("others go on")


def test_without_a_daemon_a_pipe_is_let_go_when_its_process_has_ended(log: LogProcess) -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    stdout, _, _ = log.source(fields={**IDENTITY, "pid": child.pid})
    os.write(stdout, b"begun\n")
    log.until("begun")
    log.channel.close()
    os.write(stdout, b"still heard\n")
    log.until("still heard")
    child.communicate()
    assert log.process.wait(PATIENCE_S) == 0  # although we have the pipes


def test_it_says_that_it_is_alive(log: LogProcess) -> None:
    orders.send(log.channel, orders.frame(orders.BEAT, {}))
    assert select.select([log.channel], [], [], PATIENCE_S)[0]
    assert orders.receive(log.channel) == (orders.BEAT, {}, [])


def test_a_log_that_nobody_reads_any_more_holds_nobody_up() -> None:
    log = LogProcess()
    try:
        stdout, _, _ = log.source()
        os.close(log.reader)
        log.reader = os.open(os.devnull, os.O_RDONLY)
        for _ in range(2000):
            os.write(stdout, b"x" * 4096 + b"\n")
        assert log.process.poll() is None
    finally:
        log.close()


def test_what_is_said_a_thousand_times_is_counted(log: LogProcess) -> None:
    stdout, _, records = log.source()
    os.write(stdout, b"same\n" * 1234 + b"other\n")
    said = json.dumps({"level": "error", "msg": "it fails", "fields": {"path": "/", "error": "Traceback …"}}).encode()
    os.write(records, (b"R" + said + b"\n") * 500)
    found = log.end()
    assert messages(found) == ["same"] * 10 + ["repeated 1,224 times", "other"]
    told = [record for record in found if record["logger"] == "worker"]
    assert [record["msg"] for record in told] == ["it fails"] * 11
    assert told[-1]["repeated"] == "490 times"


HOSTILE = [
    b"R{}",
    b"R[]",
    b"R" + b"[" * 100_000,
    b'R{"level":"loud","msg":"x","fields":{}}',
    b'R{"level":"info","msg":"x","fields":[]}',
    b"A",
    b"A\0\0\0",
    b"A" + b"9" * 50 + b"\0" * 20,
    b"Z" * 300_000,
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_record_is_counted_and_harms_nobody(log: LogProcess, line: bytes) -> None:
    _, _, records = log.source(access={})
    os.write(records, line + b"\n" + b'R{"level":"info","msg":"fine","fields":{}}\n')
    found = log.until('"fine"')
    assert messages(found, "worker") == ["fine"]
    assert all(record["logger"] in ("worker", "app") for record in found)


def test_nobody_can_pretend_to_be_another(log: LogProcess) -> None:
    stdout, _, records = log.source()
    fields = {"app": "other:app", "pid": 1, "worker": 9, "logger": "daemon", "level": "fatal", "ts": 1, "own": "\x1b["}
    said = {"level": "info", "logger": "daemon", "msg": "m", "fields": fields}
    os.write(records, b"R" + json.dumps(said).encode() + b"\n")
    os.write(stdout, b'{"level":"info","logger":"daemon","msg":"forged"}\n')
    log.until("forged")
    for record in log.until('"own"'):
        assert {name: record[name] for name in IDENTITY} == IDENTITY
        assert record["logger"] in ("worker", "app.stdout")
        assert record["level"] == "info"
        assert record["ts"] > 1
    assert b"\x1b" not in log._seen


def test_signals_do_not_end_it_and_the_end_of_the_daemon_only_when_all_pipes_have_ended(log: LogProcess) -> None:
    stdout, stderr, records = log.source()
    os.write(stdout, b"begun\n")
    log.until("begun")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        log.process.send_signal(number)
    log.channel.close()
    time.sleep(0.1)
    os.write(stdout, b"still heard\n")
    log.until("still heard")
    for fd in (stdout, stderr, records):
        os.close(fd)
    log._ends.clear()
    assert log.process.wait(PATIENCE_S) == 0


def test_a_pipe_that_has_ended_costs_nothing_though_the_daemon_keeps_its_copy(log: LogProcess) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    content = {"logger": "app", "fields": IDENTITY, "streams": ["stdout"]}
    orders.send(log.channel, orders.frame(orders.SOURCE, content), (reader,))
    os.write(writer, b"last words\n")
    os.close(writer)
    log.until("last words")
    time.sleep(0.3)
    before = cpu_s(log.process.pid)
    time.sleep(0.7)
    assert cpu_s(log.process.pid) - before < 0.2
    os.close(reader)


def test_a_worker_tells_how_many_lines_found_no_room(log: LogProcess) -> None:
    _, _, records = log.source()
    os.write(records, b"D40\nD2\nDx\n")
    (told,) = [record for record in log.end() if record["msg"].startswith("output dropped")]
    assert (told["stream"], told["lines"]) == ("records", 43)


def test_journald_is_told_a_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    where = os.fstat(writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{where.st_dev}:{where.st_ino}")
    assert is_journal(dict(os.environ), writer)
    assert not is_journal(dict(os.environ), 0)
    assert not is_journal({}, writer)
    for fd in (reader, writer):
        os.close(fd)
    record = Record("warn", 1.5, "daemon", "m", {})
    assert journal_line(record) == b'<4>{"level":"warn","ts":1.5,"logger":"daemon","msg":"m"}\n'


@pytest.mark.parametrize("character", ["\x9b", "\x7f", "\u202e", "\x1b"])
def test_json_holds_nothing_that_a_terminal_obeys_and_loses_nothing(character: str) -> None:
    line = json_line(Record("info", 1.5, "app.stdout", f"a{character}é", {}))
    assert character.encode() not in line
    assert json.loads(line)["msg"] == f"a{character}é"


ACCESS = b"A1500\x001\x002\x00201\x003\x000\x00\x00GET\x001.1\x00/p\x00"


def test_a_request_over_a_link_has_its_whole_path_and_no_field_of_ours() -> None:
    fields = b"host\0a.test\0caddysnake-prefix\0/blog\0x-forwarded-for\x001.1.1.1, 2.2.2.2\0via\x002.0 Caddy"
    fields += b"\0x-empty\0\0"
    made = access.read(ACCESS[1:] + fields + b"\0HTTP/1.1 201 Created\0x-a: 1\0x-a: 2\0connection: close", False, 1.5)
    assert made.fields["request"] == {
        "remote_ip": "2.2.2.2", "remote_port": "", "client_ip": "1.1.1.1", "proto": "HTTP/2.0", "method": "GET",
        "host": "a.test", "uri": "/blog/p", "headers": {"X-Empty": [""]},
    }  # fmt: skip
    assert made.fields["resp_headers"] == {"X-A": ["1", "2"]}
    assert (made.level, made.fields["duration"], made.fields["status"]) == ("info", 0.0015, 201)


@given(st.binary(max_size=200))
def test_whatever_an_access_line_holds_it_is_a_record_or_refused(line: bytes) -> None:
    try:
        made = access.read(ACCESS[1:] + line, False, 1.5)
    except ValueError:
        return
    json.loads(json_line(made))
    with contextlib.suppress(ValueError):
        access.read(line, True, 1.5)
