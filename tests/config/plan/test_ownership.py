"""Who else could change what root is about to execute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tenants import ALICE, needs_root, public_folder

from caddysnake.config.plan.accounts import Account
from caddysnake.config.plan.search import foreign_hand, installation, misleads
from caddysnake.files import closed_to, first_hand

pytestmark = needs_root


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as found:
        yield found


def venv(folder: Path) -> Path:
    site = folder / "venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (folder / "venv" / "bin").mkdir()
    (folder / "venv" / "bin" / "python3").symlink_to("/usr/bin/env")
    (folder / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    return folder / "venv"


def test_what_is_roots_all_the_way_down_is_nobody_elses(folder: Path) -> None:
    made = venv(folder)
    assert foreign_hand(str(made / "bin" / "python3")) is None


@pytest.mark.parametrize(
    "place", ["", "bin", "lib", "lib/python3.11", "lib/python3.11/site-packages", "pyvenv.cfg", "bin/python3"]
)
def test_a_part_that_belongs_to_somebody_else_is_named(folder: Path, place: str) -> None:
    made = venv(folder)
    os.chown(made / place, ALICE, ALICE, follow_symlinks=False)
    found = foreign_hand(str(made / "bin" / "python3"))
    assert found is not None
    assert found == f"{made / place} belongs to user {ALICE}"


@pytest.mark.parametrize("place", ["", "bin", "lib/python3.11/site-packages", "pyvenv.cfg"])
@pytest.mark.parametrize(("mode", "who"), [(0o002, "everybody"), (0o020, f"group {ALICE}"), (0o1002, "everybody")])
def test_a_part_that_others_may_write_is_named(folder: Path, place: str, mode: int, who: str) -> None:
    made = venv(folder)
    path = made / place
    os.chown(path, 0, ALICE)
    path.chmod(path.stat().st_mode & 0o7777 | mode)
    found = foreign_hand(str(made / "bin" / "python3"))
    assert found is not None
    assert "may be written by " + who in found


def test_the_group_of_root_alone_is_nobody(folder: Path) -> None:
    made = venv(folder)
    made.chmod(0o775)
    assert foreign_hand(str(made / "bin" / "python3")) is None


def test_a_link_is_followed_to_where_the_program_is(folder: Path) -> None:
    made = venv(folder)
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / "python3").write_text("")
    os.chown(theirs, ALICE, ALICE)
    (made / "bin" / "python3").unlink()
    (made / "bin" / "python3").symlink_to("../../theirs/python3")
    assert foreign_hand(str(made / "bin" / "python3")) == f"{theirs} belongs to user {ALICE}"


def test_in_a_sticky_folder_on_the_way_only_what_is_roots_counts(folder: Path) -> None:
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "inner").mkdir()
    assert first_hand(str(shared / "inner")) is None
    os.chown(shared / "inner", ALICE, ALICE)
    assert str(first_hand(str(shared / "inner"))) == f"{shared}/inner belongs to user {ALICE}"


def test_links_in_a_circle_and_what_is_not_there_end(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    assert first_hand(str(folder / "loop" / "x")) is None
    assert first_hand(str(folder / "none" / "x")) is None


def test_the_folder_that_keeps_a_user_out_is_found(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir(mode=0o700)
    (inner / "file").write_text("")
    assert closed_to(str(inner / "file"), ALICE, frozenset({ALICE})) == str(inner)
    assert closed_to(str(inner / "file"), 0, frozenset({0})) is None
    inner.chmod(0o750)
    os.chown(inner, 0, ALICE)
    assert closed_to(str(inner / "file"), ALICE, frozenset({ALICE})) is None


def opened_for(path: Path, account: Account | None) -> str | None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return misleads(str(path), descriptor, account)
    finally:
        os.close(descriptor)


def test_a_link_of_a_tenants_does_not_make_root_read_for_it(folder: Path) -> None:
    secret = folder / "secret.env"
    secret.write_text("TOKEN=1\n")
    secret.chmod(0o640)
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / ".env").symlink_to(secret)
    os.chown(theirs, ALICE, ALICE)
    alice = Account(ALICE, ALICE, (), "alice", "/")
    why = opened_for(theirs / ".env", alice)
    assert why == f"may not be read by user alice, and could lead anywhere: {theirs} belongs to user {ALICE}"
    assert opened_for(secret, alice) is None  # the operator named it, and nobody can put another in its place
    assert opened_for(theirs / ".env", None) is None
    os.chown(secret, 0, ALICE)
    assert opened_for(theirs / ".env", alice) is None  # it may read it anyway
    os.chown(secret, ALICE, 0)
    assert opened_for(theirs / ".env", alice) is None


def test_a_fifo_in_a_venv_holds_nobody_up(folder: Path) -> None:
    made = venv(folder)
    (made / "pyvenv.cfg").unlink()
    os.mkfifo(made / "pyvenv.cfg")
    os.mkfifo(made / "lib" / "python3.11" / "site-packages" / "x.pth")
    assert installation(str(made / "bin" / "python3")).complete is False
