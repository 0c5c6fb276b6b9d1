"""What the log process remembers, and for whom."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from caddysnake.logs.formats import Console, journal_line, json_line
from caddysnake.logs.records import LEVELS, Record
from caddysnake.logs.ring import RING_BYTES, WAITING_MAX_BYTES, Query, Reader, Ring


def record(number: int, app: str | None = "blog:app", level: str = "info", msg: str = "said") -> Record:
    return Record(level, float(number), "app.stdout", msg, {} if app is None else {"app": app})


def fill(ring: Ring, *records: Record) -> None:
    for each in records:
        ring.add(each, json_line(each))


def times(ring: Ring, **more: Any) -> list[int]:
    return [int(json.loads(entry.line)["ts"]) for entry in ring.find(Query(**more))]


def test_what_is_asked_for_is_found_in_its_order() -> None:
    ring = Ring()
    fill(ring, record(1), record(2, "ann.test main:app"), record(3, None, "warn"))
    fill(ring, record(4, level="error"), record(5, "x"))
    for more, found in (
        ({}, [1, 2, 3, 4, 5]),
        ({"app": "blog:app"}, [1, 4]),
        ({"app": "ann.test"}, [2]),
        ({"app": "ann"}, []),
        ({"level": LEVELS["warn"]}, [3, 4]),
        ({"since": 2.0}, [3, 4, 5]),
        ({"lines": 2}, [4, 5]),
        ({"lines": 1, "app": "blog:app"}, [4]),
        ({"lines": 0}, []),
    ):
        assert times(ring, **more) == found, more
    assert ring.knows(Query("ann.test"))
    assert not ring.knows(Query("ben.test"))


@pytest.mark.parametrize("form", [json_line, journal_line, Console(colour=True)])
def test_it_is_kept_as_json_however_it_is_written(form: Any) -> None:
    ring = Ring()
    ring.add(record(1), form(record(1)))
    assert ring.find(Query())[0].line == json_line(record(1))


def test_an_app_that_says_much_takes_nothing_from_the_others() -> None:
    ring = Ring(room_bytes=20_000)
    fill(ring, record(1, "quiet"), *(record(number, "loud") for number in range(2, 1000)))
    assert times(ring, app="quiet") == [1]
    kept = times(ring, app="loud")
    assert kept[-1] == 999
    assert 50 < len(kept) < 100


def test_one_who_does_not_read_so_fast_is_told_what_he_misses() -> None:
    reading, writing = os.pipe()
    ring = Ring()
    try:
        reader = Reader(writing, Query(follow=True), ring)
        assert reader.write()
        assert os.read(reading, 100) == b'{"known":false}\n'
        text = "x" * 10_000
        count = 0
        while count < 3 * WAITING_MAX_BYTES // len(text):
            count += 1
            reader.offer(ring.add(record(count, msg=text), json_line(record(count, msg=text))), 0.0)
        assert reader.write()
        seen = b""
        while reader.is_waiting:
            seen += os.read(reading, 1 << 20)
            assert reader.write()
        os.set_blocking(reading, False)
        with contextlib.suppress(BlockingIOError):
            seen += os.read(reading, 1 << 20)
        reader.offer(ring.add(record(9999, msg="last"), json_line(record(9999, msg="last"))), 0.0)
        assert reader.write()
        seen += os.read(reading, 1 << 20)
        lines = [json.loads(line) for line in seen.splitlines()]
        *shown, told, last = lines
        assert (told["level"], last["msg"]) == ("warn", "last")
        assert len(shown) + told["count"] == count
        os.close(reading)
        reader.offer(ring.add(record(1), json_line(record(1))), 0.0)
        assert not reader.write()
    finally:
        os.close(writing)


def test_what_is_kept_takes_no_more_memory_than_it_is_counted_for() -> None:
    def held_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    ring, before = Ring(), held_bytes()
    fill(ring, *(record(number, msg="x" * 500) for number in range(12_000)))
    assert held_bytes() - before < 3 * RING_BYTES
