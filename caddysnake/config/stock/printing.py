"""Tokens back to text, such that lexing the text gives the same tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...caddyfile.lexer import SPACES
from ...caddyfile.tokens import Token, on_new_line

# Nothing in it that opens a quote, a comment or a heredoc, and nothing that is an escape.
_PLAIN = re.compile(rf'(?!<<)(?!\{{?\}}?\Z)[^{SPACES}"`#\\][^{SPACES}"`\\]*')


def print_token(token: Token) -> str:
    """The text of one token, quoted as it was if that can be. Raises ``CaddyfileError``: no quoting can express it."""
    text = token.text
    if token.opens or token.closes:
        return text
    if "{$" in text:
        # It came out of a variable or an escape; written out, it would be replaced.
        raise token.error(f"{text} cannot be written into a file: {{$ begins an environment variable")
    if not token.quote and _PLAIN.fullmatch(text):
        return text
    quoted = {"`": None if "`" in text else f"`{text}`", '"': _quoted(text)}
    for quote in (token.quote, "`", '"'):
        written = quoted.get(quote)
        if written is not None:
            return written
    return _heredoc(token)


def _quoted(text: str) -> str | None:
    # Between double quotes only \" is an escape, so a backslash cannot stand before a quote.
    if re.search(r'\\("|\Z)', text):
        return None
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


def _heredoc(token: Token) -> str:
    marker = "TEXT"
    while marker in token.text:
        marker += "_"
    if "\r" in token.text or not token.text:
        raise token.error("the text cannot be written into a file: no kind of quotes can hold it")
    return f"<<{marker}\n{token.text}\n{marker}"


def print_lines(tokens: Sequence[Token], depth: int) -> str:
    """Whole lines, *depth* tabs in at the outside."""
    lines: list[str] = []
    before: Token | None = None
    for token in tokens:
        if token.closes:
            depth -= 1
        if before is None or on_new_line(before, token):
            lines.append("\t" * depth + print_token(token))
        else:
            lines[-1] += f" {print_token(token)}"
        if token.opens:
            depth += 1
        before = token
    return "".join(f"{line}\n" for line in lines)
