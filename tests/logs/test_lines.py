"""Bytes to lines, lines to groups, groups to repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.logs.lines import LINE_MAX_BYTES, Lines
from caddysnake.logs.repeats import SHOWN, WINDOW_S, Repeats
from caddysnake.logs.tracebacks import GROUP_MAX_LINES, Group, Grouping


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=8), st.data())
def test_however_it_is_cut_the_lines_are_the_same(lines: list[bytes], data: st.DataObject) -> None:
    written = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=5)))
    whole, pieces = Lines().feed(written), []
    cut = Lines()
    for start, end in zip([0, *cuts], [*cuts, len(written)], strict=True):
        pieces += cut.feed(written[start:end])
    assert pieces == whole
    assert len(whole) == len(lines)
    assert not cut


def test_what_is_no_utf_8_is_shown() -> None:
    assert Lines().feed(b"caf\xc3\xa9 \xff\xfe\r\n\n") == ["café \\xff\\xfe", ""]


@pytest.mark.parametrize("piece", [1000, 1 << 20])
def test_a_very_long_line_is_cut_and_says_so(piece: int) -> None:
    line = b"x" * (LINE_MAX_BYTES + 12_345) + b"\nnext\n"
    lines = Lines()
    found = [text for at in range(0, len(line), piece) for text in lines.feed(line[at : at + piece])]
    assert found == ["x" * LINE_MAX_BYTES + " [… 12,345 bytes cut]", "next"]


def test_a_cut_leaves_no_half_character() -> None:
    (text,) = Lines().feed(b"x" * (LINE_MAX_BYTES - 1) + "é".encode() + b"\n")
    assert text == "x" * (LINE_MAX_BYTES - 1) + " [… 1 bytes cut]"


CHAINED = """\
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()

KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
    h()
ValueError: no"""


def grouped(text: str) -> list[Group]:
    grouping = Grouping()
    return [group for line in text.split("\n") for group in grouping.feed(line)] + grouping.take()


def test_a_traceback_is_one_group_with_its_exception_for_a_title() -> None:
    before, trace, after = grouped(f"before\n{CHAINED}\nafter")
    assert before == Group("before", "", False)
    assert trace == Group("ValueError: no", CHAINED, True)
    assert after == Group("after", "", False)


def test_empty_lines_behind_a_traceback_are_not_lost() -> None:
    assert grouped(f"{CHAINED}\n\nx")[1:] == [Group("", "", False), Group("x", "", False)]


def test_a_dump_of_stacks_is_one_group() -> None:
    dump = "Fatal Python error: Segmentation fault\n\nThread 0x00007f (most recent call first):\n  File a, line 1"
    assert grouped(dump + "\nplain") == [
        Group("Fatal Python error: Segmentation fault", dump, True), Group("plain", "", False)
    ]  # fmt: skip


def test_an_endless_traceback_is_told_in_pieces() -> None:
    text = "Traceback (most recent call last):\n" + "  x\n" * GROUP_MAX_LINES * 2
    assert sum(len((group.text or group.title).split("\n")) for group in grouped(text)) >= GROUP_MAX_LINES * 2


@given(st.lists(st.sampled_from([*CHAINED.split("\n"), "x", "", "  y", "Thread 0x1 (most recent call first):"])))
def test_grouping_loses_no_line(lines: list[str]) -> None:
    grouping = Grouping()
    groups = [group for line in lines for group in grouping.feed(line)] + grouping.take()
    assert [line for group in groups for line in (group.text or group.title).split("\n")] == lines


def test_a_repeated_thing_is_told_a_few_times_and_then_counted() -> None:
    repeats = Repeats(1)
    told = []
    for number in range(1234):
        assert repeats.ended(number / 1000, "same") == []
        told.append(repeats.see("same", number / 1000))
    assert told.count(True) == SHOWN
    assert repeats.ended(2.0, "other") == [("same", 1234 - SHOWN)]
    assert repeats.see("other", 2.0)


def test_what_goes_on_is_told_again_when_its_window_is_over() -> None:
    repeats = Repeats()
    for _ in range(100):
        repeats.see("same", 1.0)
    assert repeats.ended(1.0 + WINDOW_S) == [("same", 100 - SHOWN)]
    assert repeats.see("same", 1.0 + WINDOW_S)


def test_what_happens_once_a_second_is_always_told() -> None:
    repeats = Repeats(1)
    for second in range(100):
        assert repeats.ended(second, "tick") == []
        assert repeats.see("tick", second)
