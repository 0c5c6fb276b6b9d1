"""Messages to frames and back; what is not a message is refused."""

from __future__ import annotations

import math
import struct
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.channel import codec, messages
from caddysnake.channel.codec import MAX_FRAME, TEXT_LIMIT, FrameError, decode, encode, shorten
from caddysnake.channel.messages import Drain, Failed, Join, Message, Ready, Reaped, Spawn, Spawned, Take, Takes

KINDS: list[type] = [
    value for value in vars(messages).values() if isinstance(value, type) and hasattr(value, "_fields")
]
U32 = st.integers(0, 2**32 - 1)
NUMBERS = {
    ("Spawned", "pid"): st.integers(-4095, 2**22),
    ("Reaped", "status"): st.integers(0, 0xFFFF).filter(lambda status: status & 0x7F != 0x7F),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def field(kind: type, name: str, hint: object) -> st.SearchStrategy[Any]:
    if hint is str:
        return TEXT
    if hint is bytes:
        return st.lists(U32, min_size=1, max_size=64).map(lambda slots: Takes.several([Take(s, 1) for s in slots])[0])
    if hint is float:
        return st.floats(0, allow_nan=False, allow_infinity=False)
    return NUMBERS.get((kind.__name__, name), U32)


def instances(kind: type) -> st.SearchStrategy[Message]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: field(kind, name, hint) for name, hint in hints.items()})


EXAMPLE: dict[object, Any] = {str: "grün", bytes: bytes(16)}
ANY = st.one_of([instances(kind) for kind in KINDS])
EXAMPLES: list[Message] = [
    kind(*[EXAMPLE.get(hint, 7) for hint in get_type_hints(kind).values()]) for kind in KINDS
]


def name(message: object) -> str:
    return type(message).__name__


def test_every_message_of_the_vocabulary_has_a_layout() -> None:
    assert {kind for kind, _ in codec._LAYOUT.values()} == set(KINDS) == set(Message.__args__)


@given(ANY)
def test_a_message_survives_the_journey(message: Message) -> None:
    again = decode(encode(message))
    assert again == message
    assert type(again) is type(message)


@pytest.mark.parametrize("message", EXAMPLES, ids=name)
def test_every_truncation_is_refused(message: Message) -> None:
    frame = encode(message)
    for end in range(len(frame)):
        with pytest.raises(FrameError):
            decode(frame[:end])


@pytest.mark.parametrize("message", EXAMPLES, ids=name)
@pytest.mark.parametrize("more", [b"\0", b"\0" * 4, b"x" * 100])
def test_every_extension_is_refused(message: Message, more: bytes) -> None:
    with pytest.raises(FrameError):
        decode(encode(message) + more)


def test_an_unknown_type_is_refused() -> None:
    for code in set(range(256)) - codec._LAYOUT.keys():
        with pytest.raises(FrameError, match=f"unknown message type {code}"):
            decode(bytes((code,)) + b"\0" * 8)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(frame: bytes) -> None:
    try:
        message = decode(frame)
    except FrameError:
        return
    assert encode(message) == frame or any(isinstance(value, float) and math.isnan(value) for value in message)


@given(st.sampled_from([code for code, (_, fields) in codec._LAYOUT.items() if "s" in fields]), st.binary(max_size=80))
def test_no_text_does_worse_than_being_refused(code: int, rest: bytes) -> None:
    try:
        decode(bytes((code,)) + rest)
    except FrameError:
        pass


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_text_that_is_not_utf8_is_refused(bad: bytes) -> None:
    frame = b"\x20" + struct.pack("<II", 1, len(bad)) + bad
    with pytest.raises(FrameError, match="malformed Ready"):
        decode(frame)


def test_a_length_beyond_the_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="runs past the end"):
        decode(b"\x20" + struct.pack("<II", 1, 2**32 - 1) + b"x")


def test_a_frame_over_the_limit_is_refused() -> None:
    text = b"x" * MAX_FRAME
    with pytest.raises(FrameError):
        decode(b"\x20" + struct.pack("<II", 1, len(text)) + text)


@given(st.text(), st.integers(0, 400))
def test_shortened_text_fits(text: str, limit: int) -> None:
    raw = shorten(text, limit).encode()
    assert len(raw) <= limit
    if len(text.encode("utf-8", "replace")) <= limit:
        assert raw == text.encode("utf-8", "replace")


@pytest.mark.parametrize("text", ["a" * 500, "ü" * 500, "𝔘" * 500, ""])
def test_shortened_text_fits_any_limit(text: str) -> None:
    for limit in range(600):
        assert len(shorten(text, limit).encode()) <= limit


def test_shortened_text_keeps_its_two_ends() -> None:
    text = shorten("first line\n" + "x" * 50_000 + "\nlast line")
    assert text.startswith("first line\n")
    assert text.endswith("\nlast line")
    assert "cut" in text


@given(st.text(max_size=40_000), st.text(max_size=40_000))
def test_any_text_makes_a_frame_that_is_accepted(code: str, text: str) -> None:
    frame = encode(Failed(code, text))
    assert len(frame) <= MAX_FRAME
    again = decode(frame)
    assert isinstance(again, Failed)


def test_a_traceback_of_any_length_arrives_with_both_ends() -> None:
    again = decode(encode(Failed("import-failed", "Traceback\n" + "ü" * 100_000 + "\nValueError: no")))
    assert isinstance(again, Failed)
    assert again.text.startswith("Traceback\n")
    assert again.text.endswith("ValueError: no")
    assert len(again.text.encode()) > TEXT_LIMIT // 3


def test_lone_surrogates_do_not_stop_a_message() -> None:
    assert decode(encode(Ready(1, "a\udcffb"))) == Ready(1, "a?b")


@pytest.mark.parametrize(
    "message",
    [
        *(Spawned(1, pid) for pid in (-(2**31), -4096, 2**22 + 1, 2**31 - 1)),
        *(Reaped(1, status) for status in (-1, -(2**31), 0x7F, 0x137F, 0xFFFF, 0x10000, 2**31 - 1)),
        *(kind(*numbers, seconds) for kind, numbers in ((Drain, ()), (Spawn, (1,)))
          for seconds in (-1.0, math.inf, math.nan)),
        *(Join(1, 1, seconds, "/") for seconds in (-0.5, -math.inf, math.nan)),
    ],
    ids=repr,
)  # fmt: skip
def test_a_number_that_cannot_be_what_its_field_means_is_refused(message: Message) -> None:
    with pytest.raises(FrameError, match=f"{name(message)} with "):
        decode(encode(message))


@pytest.mark.parametrize("message", [Take(-1, 0), Take(2**32, 0), Spawned(1, 2**31)])
def test_a_number_out_of_range_is_the_callers_bug(message: Message) -> None:
    with pytest.raises(struct.error):
        encode(message)
