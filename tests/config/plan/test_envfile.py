"""The env_file format, what may be set, and where a file may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.config.language.values import InvalidValue
from caddysnake.config.language.variables import check_pattern, may_be_set
from caddysnake.config.plan import envfile


def test_lines_are_keys_and_values() -> None:
    content = b"""\
# a comment
PLAIN=value

export EXPORTED=yes
SPACED = in between
DOUBLE="quoted # not a comment"
SINGLE='single'
NESTED='"inner"'
LONE="
HALF="open
INLINE=value # a comment
TABBED=value\t# a comment
HASH=value#stays # a comment
BEHIND="quoted # no comment" # a "comment"
SAYS='it's' # a comment
EMPTY=
ONLY= # a comment
FRAGMENT=#stays
EQUALS=a=b=c
"""
    assert envfile.parse(content, ".env") == {
        "PLAIN": "value",
        "EXPORTED": "yes",
        "SPACED": "in between",
        "DOUBLE": "quoted # not a comment",
        "SINGLE": "single",
        "NESTED": '"inner"',
        "LONE": '"',
        "HALF": '"open',
        "INLINE": "value",
        "TABBED": "value",
        "HASH": "value#stays",
        "BEHIND": "quoted # no comment",
        "SAYS": "it's",
        "EMPTY": "",
        "ONLY": "",
        "FRAGMENT": "#stays",
        "EQUALS": "a=b=c",
    }


def test_the_later_of_two_wins() -> None:
    assert envfile.parse(b"A=1\nA=2\n", ".env") == {"A": "2"}
    assert envfile.parse(b"CADDYSNAKE_CACHE_TIMEOUT=2\n", ".env") == {"CADDYSNAKE_CACHE_TIMEOUT": "2"}


def test_a_byte_order_mark_and_dos_line_ends_are_no_part_of_it() -> None:
    assert envfile.parse(b"\xef\xbb\xbfA=1\r\nB=2\r\n", ".env") == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"no equals sign", "has no ="),
        (b"1A=x", "not the name"),
        (b"A-B=x", "not the name"),
        (b"=x", "not the name"),
        (b"LD_PRELOAD=x", "may not be set"),
        (b"DYLD_X=x", "may not be set"),
        (b"CADDYSNAKE_X=x", "may not be set"),
        (b"PYTHONUNBUFFERED=1", "may not be set"),
        (b"A=\xff", "not UTF-8"),
        (b"A=a\0b", "NUL"),
    ],
)
def test_a_bad_line_is_named(line: bytes, message: str) -> None:
    with pytest.raises(CaddyfileError) as caught:
        envfile.parse(b"GOOD=1\n\n" + line + b"\n", "/srv/.env")
    assert (caught.value.file, caught.value.line) == ("/srv/.env", 3)
    assert message in caught.value.message


def test_a_line_without_an_equals_sign_is_not_repeated() -> None:
    with pytest.raises(CaddyfileError) as caught:
        envfile.parse(b"hunter2\n", ".env")
    assert "hunter2" not in str(caught.value)


@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Z][A-Z0-9_]{0,8}\Z").filter(may_be_set),
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    )
)
def test_every_value_on_one_line_can_be_quoted(variables: dict[str, str]) -> None:
    content = "".join(f'{name}="{value}"\n' for name, value in variables.items())
    assert envfile.parse(content.encode(), ".env") == variables


def test_a_relative_file_lies_in_the_working_directory(tmp_path: Path) -> None:
    assert envfile.locate("conf/.env", tmp_path) == tmp_path.resolve() / "conf" / ".env"


@pytest.mark.parametrize("path", ["../.env", "conf/../../.env", "conf/..", ".."])
def test_a_relative_file_does_not_climb(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidValue, match=r"\.\."):
        envfile.locate(path, tmp_path)


def test_a_link_out_of_the_working_directory_is_refused(tmp_path: Path) -> None:
    app, secrets = tmp_path / "app", tmp_path / "secrets"
    app.mkdir()
    secrets.mkdir()
    (app / "linked").symlink_to(secrets)
    with pytest.raises(InvalidValue, match="leads out of the working directory"):
        envfile.locate("linked/.env", app)


def test_a_linked_working_directory_is_followed_first(tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    (tmp_path / "current").symlink_to(release)
    assert envfile.locate(".env", tmp_path / "current") == release.resolve() / ".env"


def test_an_absolute_file_is_trusted(tmp_path: Path) -> None:
    assert envfile.locate("/etc/app.env", tmp_path) == Path("/etc/app.env")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="No such file"):
        envfile.read(tmp_path / "missing")


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(InvalidValue, match="not a regular file"):
            envfile.read(path)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"#" * (envfile.MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidValue, match="larger"):
        envfile.read(tmp_path / "huge")


@pytest.mark.parametrize("pattern", ["DATABASE_URL", "DATABASE_*", "*"])
def test_names_and_patterns_may_be_passed_on(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize("pattern", ["A-B", "", "LD_PRELOAD", "[A-Z]"])
def test_other_patterns_may_not(pattern: str) -> None:
    with pytest.raises(InvalidValue):
        check_pattern(pattern)
