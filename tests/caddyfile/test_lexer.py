"""The lexer's shortcut and its state machine are two ways to the same tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.caddyfiles import arguments, caddyfiles, layouts
from support.caddyjudge import fuzz_in_process

from caddysnake.caddyfile import lexer
from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.tokens import Token


def shortcut(source: str) -> list[Token] | str:
    try:
        return lexer.tokenize(source, "Caddyfile")
    except CaddyfileError as error:
        return str(error)


def machine_alone(source: str) -> list[Token] | str:
    scanner = lexer._Scanner(source.removeprefix("\ufeff"), "Caddyfile")
    try:
        while scanner.position < len(scanner.source):
            lexer._Machine(scanner).run()
    except CaddyfileError as error:
        return str(error)
    return scanner.tokens


@fuzz_in_process
@given(arguments() | layouts() | caddyfiles() | st.text())
def test_the_shortcut_finds_what_the_machine_finds(source: str) -> None:
    assert shortcut(source) == machine_alone(source)


@fuzz_in_process
@given(st.lists(arguments() | st.text(alphabet='ab \n\\"`<#\r{}E'), max_size=4).map("".join))
def test_every_token_stands_where_it_says(source: str) -> None:
    lines = source.split("\n")
    tokens = shortcut(source)

    for token in tokens if isinstance(tokens, list) else ():
        found = lines[token.line - 1][token.column - 1 :]
        assert found.lstrip("\\")[:1] == (token.quote or token.text[:1]) or found.startswith("\\")
