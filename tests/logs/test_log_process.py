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
import time
from collections.abc import Iterator
from typing import Any

import pytest

from caddysnake.logs import orders
from caddysnake.logs.records import Record
from caddysnake.logs.sink import ROOM_BYTES

PATIENCE_S = 30.0
IDENTITY = {"app": "blog:app", "worker": 0, "pid": 7}


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
            assert select.select([self.reader], [], [], deadline - time.monotonic())[0], self._seen[-2000:]
            data = os.read(self.reader, 1 << 20)
            assert data, self._seen[-2000:]
            self._seen += data
        return self._records()

    def end(self) -> list[dict[str, Any]]:
        """Have it leave; everything written."""
        orders.send(self.channel, orders.frame(orders.END, {}))
        while data := os.read(self.reader, 1 << 20):
            self._seen += data
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


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
