"""The cursor a directive holds."""

from __future__ import annotations

import pytest

from caddysnake.caddyfile.dispenser import Dispenser
from caddysnake.caddyfile.lexer import tokenize


def dispenser(text: str) -> Dispenser:
    return Dispenser(tokenize(text, "Caddyfile"))


def test_arguments_end_with_the_line_or_before_a_block() -> None:
    line = dispenser("python a b {\n\tc d\n}\n")

    assert line.next()
    assert line.remaining_args() == ["a", "b"]
    assert not line.next_arg()
    assert line.val() == "b"


def test_a_quoted_brace_is_an_argument() -> None:
    line = dispenser('respond "{" b')

    line.next()

    assert line.remaining_args() == ["{", "b"]


def test_a_block_is_walked_line_by_line_with_the_blocks_inside() -> None:
    line = dispenser("a {\n\tb 1\n\tc {\n\t\td 2\n\t}\n\te\n}\nf")
    seen: list[tuple[str, list[str]]] = []

    line.next()
    outer = line.nesting()
    while line.next_block(outer):
        name, arguments = line.val(), line.remaining_args()
        seen.append((name, arguments))
        inner = line.nesting()
        while line.next_block(inner):
            seen.append((f"{name}/{line.val()}", line.remaining_args()))

    assert seen == [("b", ["1"]), ("c", []), ("c/d", ["2"]), ("e", [])]
    assert line.next()
    assert line.val() == "f"


@pytest.mark.parametrize("text", ["a", "a b", "a {\n}", "a b {\n}"])
def test_no_block_and_an_empty_one_have_no_lines(text: str) -> None:
    line = dispenser(text)
    line.next()
    line.remaining_args()

    assert not line.next_block(line.nesting())


def test_a_segment_is_a_line_with_the_block_it_opens() -> None:
    line = dispenser("a {\n\tb c {\n\t\td\n\t}\n\te\n}")
    line.next()
    outer = line.nesting()
    segments = []
    while line.next_block(outer):
        segments.append([token.text for token in line.next_segment()])

    assert segments == [["b", "c", "{", "d", "}"], ["e"]]


def test_an_error_is_that_of_the_token_under_the_cursor() -> None:
    line = dispenser("a\n b")
    line.next()
    line.next()

    error = line.error("is wrong", "be right")

    assert str(error) == "Caddyfile:2: is wrong (be right)"
    assert (error.token, error.column) == ("b", 2)


def test_an_empty_dispenser_blames_the_place_it_was_given() -> None:
    (place,) = tokenize("a", "Caddyfile")

    assert str(Dispenser([], place).error("is missing")) == "Caddyfile:1: is missing"
    assert Dispenser([]).val() == ""
    assert not Dispenser([]).next()
