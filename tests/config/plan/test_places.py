"""Where relative paths begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from caddysnake.config.plan.places import absolute, is_same, start_folder


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A link to the current directory."""
    (tmp_path / "releases" / "one").mkdir(parents=True)
    made = tmp_path / "current"
    made.symlink_to("releases/one")
    monkeypatch.chdir(made)
    return made


def test_a_folder_is_known_by_the_name_by_which_it_was_entered(link: Path) -> None:
    own = str(link.resolve())
    assert start_folder({"PWD": str(link)}) == str(link)
    for said in ("", "/", "current", f"{link}/.", f"{own}/../one", f"{link}/gone", "/\0"):
        assert start_folder({"PWD": said}) == own
    assert start_folder({}) == own


def test_a_folder_that_has_been_removed_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        start_folder({"PWD": f"{tmp_path}/gone"})


def test_links_stay_but_for_the_sake_of_what_lies_above(link: Path) -> None:
    assert absolute("app", str(link)) == f"{link}/app"
    assert absolute("./app//x/", str(link)) == f"{link}/app/x"
    assert absolute("/srv/app", str(link)) == "/srv/app"
    assert absolute("", str(link)) == str(link)
    assert absolute("../two", str(link)) == str(link.resolve().parent / "two")  # as the kernel has it
    assert absolute("/a/b/../c", "/") == "/a/c"


def test_one_file_has_many_names(link: Path) -> None:
    (link / "file").touch()
    assert is_same(f"{link}/file", f"{link.resolve()}/file")
    assert not is_same(f"{link}/file", f"{link}/other")
    assert is_same(f"{link}/gone", f"{link.resolve()}/gone")
    assert not is_same("?", f"{link}/file")
