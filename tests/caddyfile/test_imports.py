"""Imports that need a disk: files, patterns, circles, and how much work they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.parser import ParsedFile, parse


def parsed(folder: Path, environ: dict[str, str] | None = None) -> ParsedFile:
    file = folder / "Caddyfile"
    return parse(file.read_bytes(), str(file), environ or {})


def words(result: ParsedFile) -> list[str]:
    """Every directive's name and arguments, of all sites."""
    return [token.text for site in result.sites for segment in site.segments for token in segment.tokens]


def test_the_files_read_are_listed_once_each(tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(":80 {\n\timport a\n\timport a\n\timport b*\n}\n")
    (tmp_path / "a").write_text("respond a\n")
    (tmp_path / "b1").write_text("respond b\n")

    result = parsed(tmp_path)

    assert result.files == [str(tmp_path / "a"), str(tmp_path / "b1")]


def test_a_file_that_imports_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(":80\nimport Caddyfile\n")

    with pytest.raises(CaddyfileError, match="import cycle"):
        parsed(tmp_path)


def test_a_circle_of_files_is_refused_where_it_closes(tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(":80\nimport a\n")
    (tmp_path / "a").write_text("import b\n")
    (tmp_path / "b").write_text("respond ok\nimport a\n")

    with pytest.raises(CaddyfileError, match="import cycle") as caught:
        parsed(tmp_path)

    assert (caught.value.file, caught.value.line) == (str(tmp_path / "b"), 2)


def test_an_absolute_path_is_imported_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("respond ok\n")
    (tmp_path / "Caddyfile").write_text(f":80\nimport {tmp_path}/sub/a\n")

    assert words(parsed(tmp_path)) == ["respond", "ok"]


def test_a_pattern_in_a_folder_that_is_not_there_is_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(":80\nimport nowhere/*.conf\n")

    result = parsed(tmp_path)

    assert [str(warning).partition("Caddyfile:")[2] for warning in result.warnings] == [
        "2: no files match the import pattern nowhere/*.conf"
    ]


def test_a_pattern_names_files_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    for name in ("10", "9", "Z", "a", "é", ".hidden"):
        (tmp_path / f"{name}.conf").write_text(f"respond {name}\n")
    (tmp_path / "Caddyfile").write_text(":80\nimport *.conf\n")

    assert words(parsed(tmp_path))[1::2] == ["10", "9", "Z", "a", "é"]


def test_variables_are_replaced_in_imported_files_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("respond {$WORD}\n")
    (tmp_path / "Caddyfile").write_text(":80\nimport {$FILE}\n")

    assert words(parsed(tmp_path, {"WORD": "hello", "FILE": "a"})) == ["respond", "hello"]


def test_a_file_that_cannot_be_read_is_an_error_at_the_import(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    (tmp_path / "Caddyfile").write_text(":80\nimport a\n")

    with pytest.raises(CaddyfileError, match=r"cannot import .*No such file") as caught:
        parsed(tmp_path)

    assert caught.value.line == 2


def test_ten_thousand_sites_with_an_import_each_are_not_quadratic(tmp_path: Path) -> None:
    site = "site{0}.example {{\n\timport common {0}\n\tpython /x* {{\n\t\tmodule_asgi app:app\n\t}}\n}}\n"
    (tmp_path / "Caddyfile").write_text(
        "(common) {\n\theader X {args[0]}\n}\n" + "".join(site.format(number) for number in range(10_000))
    )

    result = parsed(tmp_path)

    assert len(result.sites) == 10_000
    assert [token.text for token in result.sites[-1].segments[0].tokens] == ["header", "X", "9999"]
