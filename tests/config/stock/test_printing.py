"""Tokens written out and read again are the same tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.lexer import tokenize
from caddysnake.caddyfile.tokens import Token, on_new_line
from caddysnake.config.stock.printing import print_lines, print_token
from caddysnake.config.stock.sourcetext import Edit, SourceText

TEXTS = st.text(st.sampled_from("ab{}$\"'`\\#</*@ \n\t<E\u00e9\u3000:,"), max_size=8)
QUOTES = st.sampled_from(["", '"', "`", "<"])


@given(st.lists(st.lists(st.tuples(TEXTS, QUOTES), min_size=1, max_size=4), max_size=4))
def test_any_tokens_survive(lines: list[list[tuple[str, str]]]) -> None:
    tokens = [
        Token(text, "Caddyfile", row * 100, 1, quote if quote or text else '"', row * 100)
        for row, line in enumerate(lines, 1)
        for text, quote in line
    ]
    # An unquoted word holds nothing that would have ended it, and braces at a line's end are blocks.
    assume(all(token.quote or (not set(token.text) & set(' \n\t\u3000"`{}\\#')) for token in tokens))
    assume(not any("{$" in token.text for token in tokens))
    assume(not any(token.text.startswith("<<") and not token.quote for token in tokens))
    try:
        text = print_lines(tokens, 1)
    except CaddyfileError:
        # What no quotes can hold: backticks beside a backslash before a quote, and nothing for a heredoc.
        assert any("`" in token.text and "\\" in token.text for token in tokens)
        return
    again = tokenize(text, "Caddyfile")
    assert [token.text for token in again] == [token.text for token in tokens]
    assert [on_new_line(*pair) for pair in pairwise(again)] == [
        before.row != after.row for before, after in pairwise(tokens)
    ]


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (Token("plain", "f", 1, 1), "plain"),
        (Token("/srv/{http.request.host}", "f", 1, 1), "/srv/{http.request.host}"),
        (Token("two words", "f", 1, 1, '"'), '"two words"'),
        (Token('say "hi"', "f", 1, 1, '"'), '"say \\"hi\\""'),
        (Token('say "hi"', "f", 1, 1, "`"), '`say "hi"`'),
        (Token("", "f", 1, 1, '"'), '""'),
        (Token("{", "f", 1, 1), "{"),
        (Token("{", "f", 1, 1, '"'), '"{"'),
        (Token("{}", "f", 1, 1), "`{}`"),
        (Token("a\\b", "f", 1, 1), "`a\\b`"),
        (Token("#x", "f", 1, 1), "`#x`"),
        (Token('`a\\"`', "f", 1, 1, "<"), '<<TEXT\n`a\\"`\nTEXT'),
    ],
)
def test_a_token_is_quoted_only_where_it_must_be(token: Token, text: str) -> None:
    assert print_token(token) == text


def test_what_would_be_replaced_by_a_variable_is_refused() -> None:
    with pytest.raises(CaddyfileError):
        print_token(Token("{$HOME}", "f", 1, 1))


SOURCE = """\
\ufeffone "two
lines" {$LONG} `three` {$NONE}four {$NONE:dflt} # comment
<<END
	text
	END five\\
six\r
{$LONG}
"""


def test_tokens_know_where_they_begin_and_end() -> None:
    text = SourceText(SOURCE.encode(), "f", {"LONG": "a b"})
    found = [text.text[text.start(token) : text.end(token)] for token in text.tokens]
    assert found[:8] == ["one", '"two\nlines"', "a", "b", "`three`", "four", "dflt", "<<END\n\ttext\n\tEND"]
    assert found[-3:] == ["six", "a", "b"]


def test_what_is_not_edited_stays_variables_and_all() -> None:
    text = SourceText(SOURCE.encode(), "f", {"LONG": "a b"})
    assert text.edited([]) == SOURCE.removeprefix("\ufeff")
    (four,) = [token for token in text.tokens if token.text == "four"]
    edited = text.edited([Edit(text.start(four), text.end(four), "FOUR")])
    assert edited == SOURCE.removeprefix("\ufeff").replace("four", "FOUR")


@given(st.lists(st.sampled_from(["word ", "{$A}", "{$B:x}", "{$C}\n", '"q {$A}" ', "\n"]), max_size=12), st.data())
def test_any_word_can_be_edited_alone(pieces: list[str], data: st.DataObject) -> None:
    source = "".join(pieces)
    text = SourceText(source.encode(), "f", {"A": "one two", "C": ""})
    words = [token for token in text.tokens if token.text == "word"]
    assume(words)
    word = data.draw(st.sampled_from(words))
    edited = text.edited([Edit(text.start(word), text.end(word), "WORD")])
    assert edited.count("WORD") == 1
    assert edited.replace("WORD", "word") == source
