"""What holds for any bytes: how a stream is split over packets never matters, and only our own errors come out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from worker.cases_http import CASES

from caddysnake.http1.errors import ProtocolError
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import HEADS_MAX, Heads, RequestParser

LIMITS = Limits(max_head_bytes=2000, max_target_bytes=500, max_header_count=20, max_body_bytes=5000)
STREAMS = [case.data for case in CASES if len(case.data) < 3000]


def outcome(pieces: list[bytes], heads: Heads | None = None) -> list[Any]:
    """Every message in ``pieces`` as the parser tells it, and how it ends."""
    parser = RequestParser(LIMITS, heads)
    told: list[Any] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while parser.complete:
                head = parser.head
                assert head is not None
                told.append((head.method, head.target, head.headers[:], head.host, head.keep_alive, parser.take_body()))
                if not head.keep_alive:
                    return [*told, "closed"]
                parser.next_message()
    except ProtocolError as error:
        return [*told, error.status]
    return [*told, "waiting" if not parser.at_boundary else "idle"]


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    return [stream[start:end] for start, end in pairwise([0, *sorted(cuts), len(stream)])]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=3), st.data())
def test_any_split_gives_the_same_messages(streams: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(streams)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert outcome(split(stream, cuts)) == outcome([stream])


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.sampled_from(STREAMS), st.integers(0, 3000), st.binary(min_size=1, max_size=3), st.integers(1, 50))
def test_any_split_of_a_damaged_stream_gives_the_same_messages(
    stream: bytes, at: int, damage: bytes, step: int
) -> None:
    at %= len(stream)
    damaged = stream[:at] + damage + stream[at + 1 :]
    pieces = [damaged[start : start + step] for start in range(0, len(damaged), step)]
    assert outcome(pieces) == outcome([damaged])


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=4))
def test_what_a_parser_remembers_changes_nothing(streams: list[bytes]) -> None:
    heads = Heads(HEADS_MAX)
    for stream in streams * 3:
        assert outcome([stream], heads) == outcome([stream])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.binary(max_size=400))
@example(b"\r")
@example(b"\r\n\r")
@example(b"GET / HTTP/1.1\r")
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    outcome([data])
    outcome([b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", data])
    outcome([b"GET / HTTP/1.1\r\nHost: a\r\n", data])


HEX = st.sampled_from([b"0", b"1", b"a", b"F", b"00", b"\r\n", b";", b"x=y", b"\n", b"\r", b"abc", b" ", b"X: y\r\n"])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(HEX, max_size=30), st.integers(1, 9))
def test_any_split_of_chunks_gives_the_same_content(parts: list[bytes], step: int) -> None:
    stream = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts)
    pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
    assert outcome(pieces) == outcome([stream])
