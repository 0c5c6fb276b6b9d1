"""``wsgi.input``: reading content as it arrives is reading a file that has it all."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.worker.wsgi.call.input import NO_INPUT, InputClosed, LazyInput

contents = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"d\n", b"e\nf", b"\n\n", b"0123456789"]), max_size=12)
sizes = st.one_of(st.none(), st.integers(min_value=-1, max_value=12))
steps = st.lists(st.tuples(st.sampled_from(["read", "readline", "readlines"]), sizes), max_size=8)


def lazily(pieces: list[bytes], arrived: int = 0) -> LazyInput:
    rest: Iterator[bytes] = iter(pieces[arrived:])
    return LazyInput(b"".join(pieces[:arrived]), lambda: next(rest, b""))


@given(contents, st.integers(min_value=0, max_value=12), steps)
def test_any_way_of_arriving_reads_as_a_file(
    pieces: list[bytes], arrived: int, steps: list[tuple[str, int | None]]
) -> None:
    ours, file = lazily(pieces, arrived), io.BytesIO(b"".join(pieces))
    for method, size in steps:
        arguments = () if size is None else (size,)
        if method == "readlines" and size is not None and size <= 0:
            arguments = (None,)
        assert getattr(ours, method)(*arguments) == getattr(file, method)(*arguments)
    assert list(ours) == list(file)


def test_no_more_is_waited_for_than_is_asked_for() -> None:
    def pull() -> bytes:
        raise AssertionError("waited")

    stream = LazyInput(b"one\ntwo", pull)
    assert stream.read(2) == b"on"
    assert stream.readline() == b"e\n"
    assert stream.readline(2) == b"tw"
    assert stream.read(0) == b""


def test_an_end_is_not_asked_for_again() -> None:
    ends = iter([b"all", b""])
    stream = LazyInput(b"", lambda: next(ends))
    assert stream.read() == b"all"
    assert stream.read() == stream.readline() == b""
    assert stream.readlines() == []


def test_what_goes_wrong_while_waiting_reaches_the_app() -> None:
    def pull() -> bytes:
        raise ConnectionError("the client left")

    with pytest.raises(OSError, match="the client left"):
        LazyInput(b"half", pull).read()


def test_a_detached_input_refuses() -> None:
    stream = lazily([b"unread"], 1)
    stream.discard()
    with pytest.raises(InputClosed):
        stream.read()


def test_no_content_is_a_file_at_its_end() -> None:
    assert NO_INPUT.read() == NO_INPUT.read(5) == NO_INPUT.readline() == b""
    assert NO_INPUT.readlines() == list(NO_INPUT) == []


@pytest.mark.parametrize("stream", [lazily([b"a\n", b"b"], 1), lazily([b"a\n", b"b"]), NO_INPUT])
def test_it_can_be_wrapped_as_any_binary_file(stream: io.BufferedIOBase) -> None:
    expected = [] if stream is NO_INPUT else ["a\n", "b"]
    assert list(io.TextIOWrapper(stream, "utf-8")) == expected  # type: ignore[type-var]
    assert not stream.closed
    assert next(stream, None) is None


def test_a_part_that_has_arrived_is_not_kept_back() -> None:
    stream = lazily([b"one", b"two"])
    assert (stream.read1(), stream.read1(2), stream.read1(), stream.read1()) == (b"one", b"tw", b"o", b"")
