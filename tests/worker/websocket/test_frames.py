"""Frames to messages: a table after RFC 6455, and properties that hold for any bytes."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caddysnake.worker.websocket.deflate import Agreement, Deflate
from caddysnake.worker.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FAIL,
    PING,
    PONG,
    REASON_MAX_BYTES,
    TEXT,
    Receiver,
    close_frame,
    frame,
    is_sendable,
)
from caddysnake.worker.websocket.mask import plain_unmask, unmask

MASK = b"\x37\xfa\x21\x3d"
LIMIT = 1000


def masked(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, mask: bytes = MASK) -> bytes:
    """A frame as a client sends it."""
    size = len(payload)
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + struct.pack("!H", size)
    else:
        head = bytes((first, 0xFF)) + struct.pack("!Q", size)
    return head + mask + plain_unmask(payload, mask)


def events(data: bytes, limit: int = LIMIT, deflate: Deflate | None = None) -> list[Any]:
    return fed(Receiver(limit, deflate), data)


def fed(receiver: Receiver, data: bytes) -> list[Any]:
    """All events that ``data`` completes."""
    found = receiver.feed(data)
    while receiver.has_more:
        found += receiver.feed(b"")
    return found


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


OK: list[tuple[str, bytes, list[Any]]] = [
    ("5.7 the masked Hello of the RFC", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", [(TEXT, "Hello")]),
    ("5.6 an empty text", masked(TEXT), [(TEXT, "")]),
    ("5.6 binary", masked(BINARY, b"\x00\xff"), [(BINARY, b"\x00\xff")]),
    ("5.2 a 16-bit length", masked(BINARY, b"x" * 126), [(BINARY, b"x" * 126)]),
    ("5.2 a longer form than needed", b"\x82\xfe\x00\x01\0\0\0\0x", [(BINARY, b"x")]),
    ("5.4 a message in two frames", masked(TEXT, b"ab", fin=False) + masked(CONTINUATION, b"c"), [(TEXT, "abc")]),
    (
        "5.4 empty fragments",
        masked(TEXT, fin=False) + masked(CONTINUATION, fin=False) + masked(CONTINUATION),
        [(TEXT, "")],
    ),
    (
        "5.4 control frames between fragments",
        masked(TEXT, b"a", fin=False) + masked(PING, b"p") + masked(PONG, b"q") + masked(CONTINUATION, b"b"),
        [(PING, b"p"), (PONG, b"q"), (TEXT, "ab")],
    ),
    ("5.5.2 a ping of 125 bytes", masked(PING, b"x" * 125), [(PING, b"x" * 125)]),
    ("5.5.1 a close without a payload", masked(CLOSE), [(CLOSE, (1005, ""))]),
    ("5.5.1 a close with code and reason", masked(CLOSE, close_payload(1000, b"bye")), [(CLOSE, (1000, "bye"))]),
    ("5.5.1 nothing is read after a close", masked(CLOSE) + b"\xff\xff\xff", [(CLOSE, (1005, ""))]),
    ("7.4.2 a code for libraries", masked(CLOSE, close_payload(3000)), [(CLOSE, (3000, ""))]),
    ("8.1 UTF-8", masked(TEXT, "κόσμε".encode()), [(TEXT, "κόσμε")]),
    (
        "8.1 a character cut by fragments",
        masked(TEXT, b"\xce", fin=False) + masked(CONTINUATION, b"\xba"),
        [(TEXT, "κ")],
    ),
    ("8.1 line ends stay as they are", masked(TEXT, b"a\r\nb\rc\n"), [(TEXT, "a\r\nb\rc\n")]),
]

WRONG: list[tuple[str, bytes, int]] = [
    ("5.1 a frame that is not masked", b"\x81\x00", 1002),
    ("5.2 RSV1 without an extension", masked(TEXT, b"a", rsv=4), 1002),
    ("5.2 RSV2", masked(TEXT, b"a", rsv=2), 1002),
    ("5.2 RSV3", masked(BINARY, b"a", rsv=1), 1002),
    ("5.2 RSV on a ping", masked(PING, rsv=4), 1002),
    *[(f"5.2 reserved opcode {opcode}", masked(opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    ("5.2 a length with its highest bit set", b"\x82\xff" + b"\xff" * 8, 1002),
    ("5.4 a continuation of nothing", masked(CONTINUATION, b"a"), 1002),
    ("5.4 a message inside another", masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"), 1002),
    ("5.4 a short message inside another", masked(BINARY, b"a", fin=False) + masked(BINARY, b"b"), 1002),
    ("5.5 a control frame in pieces", masked(PING, b"a", fin=False), 1002),
    ("5.5 a control frame of 126 bytes", masked(PING, b"a" * 126), 1002),
    ("5.5.1 a close of one byte", masked(CLOSE, b"a"), 1002),
    *[
        (f"7.4 code {code}", masked(CLOSE, close_payload(code)), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ],
    ("5.5.1 a reason that is not UTF-8", masked(CLOSE, close_payload(1000, b"\xce\xba\xe1\xbd\xb9\xed")), 1007),
    ("8.1 a text that is not UTF-8", masked(TEXT, b"\xff"), 1007),
    ("8.1 a surrogate", masked(TEXT, b"\xed\xa0\x80"), 1007),
    ("8.1 a text that ends in a character", masked(TEXT, b"a\xce"), 1007),
    ("8.1 found wrong before its end", masked(TEXT, b"\xff", fin=False), 1007),
    ("8.1 found wrong before its frame's end", masked(TEXT, b"\xff" + b"a" * 200)[:20], 1007),
    ("10.4 a message over the limit, by its head", masked(BINARY, b"x" * (LIMIT + 1))[:8], 1009),
    ("10.4 a short message over the limit", masked(TEXT, b"x" * 11), 1009),
    (
        "10.4 a fragment too many",
        masked(BINARY, b"x" * LIMIT, fin=False) + masked(CONTINUATION, b"x"),
        1009,
    ),
]


@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in OK], ids=[row[0] for row in OK])
def test_frames_become_messages(data: bytes, expected: list[Any]) -> None:
    assert events(data) == expected


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_breaks_a_rule_fails_with_its_code(data: bytes, code: int) -> None:
    limit = 10 if code == 1009 and len(data) < 20 and data[0] == 0x81 else LIMIT
    found = events(data, limit)
    assert [(kind, content[0]) for kind, content in found] == [(FAIL, code)]


def test_what_was_right_before_is_kept() -> None:
    found = events(masked(TEXT, b"good") + masked(TEXT, b"bad", rsv=2) + masked(TEXT, b"never"))
    assert [kind for kind, _ in found] == [TEXT, FAIL]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([row[1] for row in OK] + [row[1] for row in WRONG]), max_size=4), st.data())
def test_any_split_of_the_bytes_gives_the_same_events(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    receiver = Receiver(LIMIT)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += fed(receiver, stream[start:end])
    assert found == events(stream)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.integers(1, 7))
def test_no_bytes_raise_or_give_an_event_after_the_end(data: bytes, step: int) -> None:
    receiver = Receiver(100, Deflate(Agreement()))
    ended = False
    for at in range(0, len(data), step):
        for kind, _ in fed(receiver, data[at : at + step]):
            assert not ended
            ended = kind in (CLOSE, FAIL)
    assert receiver.is_done is ended


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=600), st.binary(min_size=4, max_size=4))
def test_unmasking_is_undone_by_itself(data: bytes, mask: bytes) -> None:
    assert plain_unmask(plain_unmask(data, mask), mask) == data
    assert unmask(data, mask) == plain_unmask(data, mask)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=400)), max_size=6), st.integers(1, 50))
def test_messages_in_fragments_of_any_size_arrive_whole(messages: list[tuple[bool, bytes]], size: int) -> None:
    stream = b""
    expected: list[Any] = []
    for is_text, raw in messages:
        payload = raw.decode("latin-1").encode() if is_text else raw
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for number, piece in enumerate(pieces):
            opcode = CONTINUATION if number else TEXT if is_text else BINARY
            stream += masked(opcode, piece, fin=number == len(pieces) - 1)
        expected.append((TEXT, payload.decode()) if is_text else (BINARY, payload))
    assert events(stream) == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_frames_of_ours_have_the_shortest_length(size: int) -> None:
    output = frame(BINARY, b"x" * size)
    data = output if isinstance(output, bytes) else b"".join(output)
    extra = 2 if size < 126 else 4 if size < 65536 else 10
    assert len(data) == size + extra
    assert data[0] == 0x82
    assert data[1] == min(size, 125) if size < 126 else data[1] in (126, 127)


def test_a_close_frame_carries_code_and_reason() -> None:
    assert close_frame(1000, "bye") == b"\x88\x05\x03\xe8bye"
    assert close_frame(1005) == b"\x88\x00"


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=200))
def test_a_reason_that_is_too_long_is_cut_at_a_character(reason: str) -> None:
    data = close_frame(4000, reason)
    assert len(data) <= 2 + 2 + REASON_MAX_BYTES
    assert data[1] == len(data) - 2
    assert reason.encode("utf-8", "replace").startswith(data[4:])
    data[4:].decode()


def test_codes_that_may_be_sent() -> None:
    sendable = [code for code in range(6000) if is_sendable(code)]
    assert sendable == [1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)]


def test_one_byte_fragments_do_not_take_a_hundred_times_their_size() -> None:
    import tracemalloc

    receiver = Receiver(1 << 20)
    stream = masked(TEXT, b"x", fin=False) + masked(CONTINUATION, b"x", fin=False) * 49_999
    tracemalloc.start()
    try:
        assert fed(receiver, stream) == []
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_feed_does_a_bounded_amount_of_work() -> None:
    receiver = Receiver(1 << 20)
    found = receiver.feed(masked(BINARY) * 1000)
    assert 0 < len(found) < 500
    assert receiver.has_more
    while receiver.has_more:
        found += receiver.feed(b"")
    assert found == [(BINARY, b"")] * 1000


def test_a_message_that_inflates_to_much_is_made_in_several_feeds() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -11)
    payload = (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    receiver = Receiver(1 << 20, Deflate(Agreement(client_window_bits=11)))
    feeds, found = 1, receiver.feed(masked(BINARY, payload, rsv=4) + masked(TEXT, b"next"))
    while not found:
        assert receiver.has_more
        feeds, found = feeds + 1, receiver.feed(b"")
    assert feeds >= 4
    assert found + fed(receiver, b"") == [(BINARY, bytes(1 << 20)), (TEXT, "next")]


def test_a_message_that_inflates_beyond_the_limit_is_too_big() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (packer.compress(bytes(50_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    found = events(masked(BINARY, payload, rsv=4), 1 << 20, Deflate(Agreement()))
    assert found == [(FAIL, (1009, "the message is too big"))]
