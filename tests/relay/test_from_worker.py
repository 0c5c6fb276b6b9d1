from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.relay.from_worker import (
    FIELDS_MAX,
    HEAD_MAX_BYTES,
    HURRIED_UNITS,
    INTERIM_MAX,
    TRAILERS_MAX_BYTES,
    BadResponse,
    Framing,
    ResponseReader,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"


def read(*pieces: bytes, is_head: bool = False, decodes: bool = False) -> tuple[ResponseReader, bytes]:
    """The reader, and all the content that it passed on."""
    reader = ResponseReader(is_head, decodes)
    content = b""
    for piece in pieces:
        reader.feed(piece)
        content += reader.content
        while reader.is_behind:
            reader.feed()
            content += reader.content
    return reader, content


@pytest.mark.parametrize(
    ("raw", "framing", "content"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length:\t3 \r\n\r\nabc", Framing.LENGTH, b"abc"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", Framing.LENGTH, b""),
        (b"HTTP/1.1 200 \r\nx:\r\ncontent-length: 0\r\n\r\n", Framing.LENGTH, b""),
        (b"HTTP/1.1 999 \xe9\t!\r\ncontent-length: 0\r\n\r\n", Framing.LENGTH, b""),
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", Framing.CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"),
        (CHUNKED + b"00A\r\n0123456789\r\n000\r\n\r\n", Framing.CHUNKED, b"00A\r\n0123456789\r\n000\r\n\r\n"),
        (CHUNKED + b"0\r\nx-one: 1\r\nx-two:\r\n\r\n", Framing.CHUNKED, b"0\r\nx-one: 1\r\nx-two:\r\n\r\n"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Framing.NONE, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", Framing.NONE, b""),
        (b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", Framing.NONE, b""),
        (b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", Framing.LENGTH, b""),
    ],
)
def test_a_response_is_framed_as_it_says(raw: bytes, framing: Framing, content: bytes) -> None:
    reader, passed = read(raw)
    assert reader.head is not None
    assert reader.head.framing is framing
    assert passed == content
    assert reader.complete
    assert reader.excess == b""
    assert read(raw + b"more")[0].excess == b"more"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/1.1 200 OK\nx: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: y\nz: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: y\rz: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\xe9: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x7f\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nconnection: close\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"g\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b" 1\r\n",
        CHUNKED + b"0x1\r\n",
        CHUNKED + b"1;x=y\r\na\r\n",
        CHUNKED + b"1 \r\na\r\n",
        CHUNKED + b"1\na\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1\r\na\r\r\n",
        CHUNKED + b"1\r\na\n",
        CHUNKED + b"1234567890123456",
        CHUNKED + b"0\r\nx : y\r\n\r\n",
        CHUNKED + b"0\r\nx: y\nz: 1\r\n\r\n",
        CHUNKED + b"0\r\nx: y\r\nContent-Length: 3\r\n\r\n",
        CHUNKED + b"0\r\nHost: y\r\n\r\n",
    ],
)
def test_what_is_ambiguous_is_no_response(raw: bytes) -> None:
    with pytest.raises(BadResponse):
        read(raw)
    with pytest.raises(BadResponse):
        read(*(raw[at : at + 1] for at in range(len(raw))))


def test_heads_and_trailers_do_not_go_on_for_ever() -> None:
    with pytest.raises(BadResponse, match="over"):
        read(b"HTTP/1.1 200 OK\r\n", *[b"x: " + b"y" * 5000 + b"\r\n"] * (HEAD_MAX_BYTES // 5000 + 1))
    with pytest.raises(BadResponse, match="over"):
        read(b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_MAX_BYTES + b"\r\n\r\n")
    with pytest.raises(BadResponse, match="over"):
        read(CHUNKED, b"0\r\n", *[b"x: " + b"y" * 500 + b"\r\n"] * (TRAILERS_MAX_BYTES // 500 + 1))
    with pytest.raises(BadResponse, match="trailer"):
        read(CHUNKED, b"0\r\nx: " + b"y" * TRAILERS_MAX_BYTES + b"\r\n\r\n")


def test_a_response_to_head_has_no_content_whatever_it_says() -> None:
    reader, _ = read(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", is_head=True)
    assert reader.complete
    assert reader.excess == b"hello"


def test_the_workers_wish_to_close_is_seen() -> None:
    for raw, closes in ((b"Connection: Keep-Alive, Close", True), (b"connection: closed", False)):
        reader, _ = read(b"HTTP/1.1 200 OK\r\n" + raw + b"\r\ncontent-length: 0\r\n\r\n")
        assert reader.head is not None
        assert reader.head.closes is closes
        assert reader.head.has_connection_fields


# Any split of the bytes gives the same: a few chunks, cut anywhere, decoded or not.

sizes = st.lists(st.integers(1, 40), max_size=6)
cuts = st.lists(st.integers(1, 400), max_size=12)


def split(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:end] for start, end in pairwise(at)]


@given(sizes, cuts, st.booleans(), st.sampled_from([b"", b"x-sum: 1\r\n"]), st.sampled_from([b"", b"H", b"\r\n\r\n"]))
def test_chunks_are_the_same_however_they_come(
    chunks: list[int], places: list[int], decodes: bool, trailers: bytes, behind: bytes
) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    body = b"".join(b"%X\r\n%b\r\n" % (size, b"\r\n\r\n0"[: size % 6] + b"d" * (size - size % 6)) for size in chunks)
    body += b"0\r\n" + trailers + b"\r\n"
    whole, content = read(hints + CHUNKED + body + behind, decodes=decodes)
    reader, passed = read(*split(hints + CHUNKED + body + behind, places), decodes=decodes)
    assert (passed, reader.excess, reader.complete) == (content, whole.excess, True)
    assert reader.excess == behind
    if not decodes:
        assert passed == body


@given(st.integers(0, 60), cuts)
def test_counted_content_is_the_same_however_it_comes(size: int, places: list[int]) -> None:
    raw = b"HTTP/1.1 200 OK\r\nx: y\r\nContent-Length: %d\r\n\r\n" % size
    raw += b"\r\n\r\n"[: size % 5] + b"d" * (size - size % 5)
    whole, content = read(raw + b"!")
    reader, passed = read(*split(raw + b"!", places))
    assert (passed, reader.excess) == (content, b"!")
    assert reader.head is not None
    assert whole.head is not None
    assert reader.head.raw == whole.head.raw


# Work


def test_interim_responses_do_not_go_on_for_ever() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    reader, _ = read(hint * INTERIM_MAX + CHUNKED + b"0\r\n\r\n")
    assert reader.complete
    with pytest.raises(BadResponse, match="without end"):
        read(hint * (INTERIM_MAX + 1))
    with pytest.raises(BadResponse, match="without end"):
        read(b"HTTP/1.1 100 Continue\r\n\r\n" * (INTERIM_MAX + 1))
    with pytest.raises(BadResponse, match="without end"):
        read(b"HTTP/1.1 103 x\r\nlink: %b\r\n\r\n" % (b"a" * 60_000) * 5)


def test_chunks_may_cost_so_much_more_than_they_bring() -> None:
    reader, content = read(CHUNKED + b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n")
    assert reader.complete
    assert len(content) == 50_000 * 6 + 5
    with pytest.raises(BadResponse, match="more framing than content"):
        read(CHUNKED + b"000000000000001\r\na\r\n" * 50_000)


def test_a_head_of_more_lines_than_anybody_needs_is_no_response() -> None:
    head = b"HTTP/1.1 200 OK\r\n%bcontent-length: 0\r\n\r\n"
    assert read(head % (b"a: b\r\n" * (FIELDS_MAX - 1)))[0].complete
    with pytest.raises(BadResponse, match="fields"):
        read(head % (b"a: b\r\n" * FIELDS_MAX))
    with pytest.raises(BadResponse, match="Connection"):
        read(head % (b"connection: " + b"a," * 1000 + b"\r\n"))


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 103 x\r\n\r\n" * 250 + CHUNKED + b"0\r\n\r\n",
        CHUNKED + b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n",
        CHUNKED + b"0\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 200_000 + b"\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_a_feed_does_a_bounded_amount_of_work(raw: bytes) -> None:
    reader = ResponseReader()
    reader.feed(raw, is_hurried=True)
    assert reader.units <= 2 * HURRIED_UNITS
    assert reader.is_behind
    feeds = 0
    while reader.is_behind:
        reader.feed()
        feeds += 1
        assert feeds < 1000
    assert reader.complete
    assert reader.excess == b""
