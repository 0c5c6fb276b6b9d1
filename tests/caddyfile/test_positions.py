"""Where a token stood, and what an error says about the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from caddysnake.caddyfile.errors import CaddyfileError, nearest
from caddysnake.caddyfile.lexer import tokenize
from caddysnake.caddyfile.parser import parse
from caddysnake.caddyfile.structure import build_sites


def error_of(source: str | bytes, file: str = "Caddyfile") -> CaddyfileError:
    """The first thing that is wrong with a file."""
    data = source if isinstance(source, bytes) else source.encode()
    try:
        _, errors = build_sites(parse(data, file, {}))
    except CaddyfileError as error:
        return error
    return errors[0]


def test_a_token_knows_its_line_and_column() -> None:
    tokens = tokenize('a  "b c"\n\té `d`\r\n  # x\n<<E\n  text\n  E last', "f")

    assert [(token.text, token.line, token.column, token.quote) for token in tokens] == [
        ("a", 1, 1, ""),
        ("b c", 1, 4, '"'),
        ("é", 2, 2, ""),
        ("d", 2, 4, "`"),
        ("text", 4, 1, "<"),
        ("last", 6, 5, ""),
    ]


def test_a_continued_line_advances_for_people_but_not_for_the_language() -> None:
    first, second, third = tokenize("a \\\n b\nc", "f")

    assert (second.line, second.row) == (2, first.row)
    assert (third.line, third.row) == (3, 3)


def test_a_byte_order_mark_is_not_part_of_the_first_token() -> None:
    (token,) = tokenize("\ufeffa", "f")

    assert (token.text, token.column) == ("a", 1)


def test_an_error_knows_its_column() -> None:
    source = ":80 {\n\trespond /a @m\n\thanlde {\n\t}\n}\n"

    error = error_of(source)

    assert str(error) == 'Caddyfile:3: unknown directive "hanlde" (did you mean "handle"?)'
    assert error.column == 2


def test_an_error_in_an_imported_file_names_that_file_and_the_import(tmp_path: Path) -> None:
    (tmp_path / "inner.conf").write_text("header A 1\n\tfoo\n")
    file = tmp_path / "Caddyfile"
    file.write_text(":80 {\n\timport inner.conf\n}\n")

    error = error_of(file.read_bytes(), str(file))

    assert (error.file, error.line, error.column) == (str(tmp_path / "inner.conf"), 2, 2)
    assert error.imports == (f"{file}:2",)
    assert f"imported at {file}:2" in str(error)


def test_an_error_in_a_snippet_names_the_line_of_the_import() -> None:
    error = error_of("(s) {\n\tnope\n}\n:80 {\n\timport s\n}\n")

    assert str(error).startswith('Caddyfile:2: unknown directive "nope", imported at Caddyfile:5 (s)')


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [(b":80\n# \xff\n", 2, 3), (b"\xfe", 1, 1), ("é".encode() + b"\xc3", 1, 2)],
)
def test_a_file_that_is_not_utf_8_is_refused_at_the_byte(source: bytes, line: int, column: int) -> None:
    error = error_of(source)

    assert (error.line, error.column) == (line, column)
    assert "not UTF-8" in error.message


def test_a_variable_that_is_not_utf_8_is_refused_where_it_is_put_in() -> None:
    with pytest.raises(CaddyfileError, match="not UTF-8") as caught:
        parse(b":80\nrespond a{$X}\n", "Caddyfile", {"X": b"caf\xe9".decode("utf-8", "surrogateescape")})

    assert (caught.value.line, caught.value.column) == (2, 13)


def test_an_imported_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.conf").write_bytes(b"respond caf\xe9\n")

    error = error_of(b":80\nimport latin.conf\n", str(tmp_path / "Caddyfile"))

    assert error.file == str(tmp_path / "latin.conf")


def test_every_site_says_its_first_mistake() -> None:
    parsed = parse(b":80 {\n\tnope\n}\n:81 {\n\trespond ok\n}\n:82 {\n\thandle {\n\t\tnope\n\t}\n}\n", "Caddyfile", {})

    sites, errors = build_sites(parsed)

    assert [site.addresses[0].port for site in sites] == ["81"]
    assert [error.line for error in errors] == [2, 9]


def test_a_name_that_is_like_a_known_one_is_suggested() -> None:
    assert nearest("pyton", ("python", "respond")) == 'did you mean "python"?'
    assert nearest("xyz", ("python", "respond")) is None


@pytest.mark.parametrize("line", ["handle {\n", "route /x {\n"])
def test_blocks_nested_without_end_are_an_error_and_no_crash(line: str) -> None:
    error = error_of(":80 {\n" + line * 1000 + "}\n" * 1000 + "}\n")

    assert error.message == "the blocks in here are nested too deeply"


def test_a_matcher_negated_without_end_is_an_error_and_no_crash() -> None:
    error = error_of(":80 {\n@m " + "not " * 5000 + "path /a\n}\n")

    assert error.message == "the blocks in here are nested too deeply"
