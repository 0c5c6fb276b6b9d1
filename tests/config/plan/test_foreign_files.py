"""Files that root reads for a tenant: nothing is opened before it is known what it is, and whose."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.tenants import ALICE, BOB, needs_root, public_folder

from caddysnake import files
from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.caddyfile.parser import parse
from caddysnake.cli.reading import print_errors
from caddysnake.config.language.values import InvalidValue
from caddysnake.config.plan import envfile
from caddysnake.config.plan.accounts import Account
from caddysnake.config.plan.search import (
    Verdict,
    find_module,
    fingerprint,
    installation,
    is_script,
    misleads,
    modules_in,
)
from caddysnake.placeholders.names import _file_content

pytestmark = needs_root

_ALICE = Account(ALICE, ALICE, (), "alice", "/")
_IN_OPEN = 0x20


@pytest.fixture
def folder() -> Iterator[Path]:
    """Alice's folder, and one where root alone may look."""
    with public_folder() as found:
        (found / "root").mkdir(mode=0o700)
        (found / "alice").mkdir()
        os.chown(found / "alice", ALICE, ALICE)
        yield found


class Opened:
    """Which files in a folder are opened: by anybody, in any way but ``O_PATH`` (inotify(7), IN_OPEN)."""

    def __init__(self, *paths: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for path in paths:
            assert libc.inotify_add_watch(self.fd, os.fsencode(path), _IN_OPEN) >= 0

    def times(self) -> int:
        count = 0
        while select.select([self.fd], [], [], 0)[0]:
            data, at = os.read(self.fd, 65536), 0
            while at < len(data):
                at += 16 + struct.unpack_from("I", data, at + 12)[0]
                count += 1
        return count

    def close(self) -> None:
        os.close(self.fd)


def read_env(path: Path) -> None:
    with pytest.raises((InvalidValue, CaddyfileError)):
        envfile.read(path, partial(misleads, str(path), account=_ALICE))


def read_venv(path: Path) -> None:
    python = str(path.parent / "bin" / "python3")
    assert not installation(python).complete
    fingerprint(python)


def read_packages(path: Path) -> None:
    assert not installation(str(path.parents[3] / "bin" / "python3")).complete


def read_program(path: Path) -> None:
    assert not is_script(str(path))


def read_placeholder(path: Path) -> None:
    assert _file_content(str(path))({}) == ""


def read_import(path: Path) -> None:
    with pytest.raises(CaddyfileError, match="cannot import"):
        parse(f"import {path}\n".encode(), "Caddyfile", {})


def read_for_error(path: Path) -> None:
    print_errors([CaddyfileError("wrong", str(path), 1)], say=lambda text, level: None)


READERS: dict[str, Callable[[Path], None]] = {
    "app/.env": read_env,
    "pyvenv.cfg": read_venv,
    "lib/python3.11/site-packages/x.pth": read_packages,
    "bin/python3": read_program,
    "secret": read_placeholder,
    "sites.caddy": read_import,
    "wrong.caddy": read_for_error,
}


def make(kind: str, path: Path) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text("home = /usr/bin\nKEY=of root\nimport secrets\n#!/bin/sh\n")
        path.chmod(0o600)


def cases() -> Iterator[tuple[str, str, str]]:
    for name in READERS:
        for kind in ("fifo", "device", "socket", "folder", "secret"):
            for way in ("there", "linked", "linked folder", "hard link"):
                own = way == "there" and kind == "secret"
                none_such = (way == "hard link" and kind == "folder") or (way == "linked folder" and "/" not in name)
                if not own and not none_such:
                    yield name, way, kind


@pytest.mark.parametrize(("name", "way", "kind"), list(cases()))
def test_what_is_no_file_of_the_tenants_is_not_even_opened(folder: Path, name: str, way: str, kind: str) -> None:
    alice, path = folder / "alice", folder / "alice" / name
    (alice / "bin").mkdir()
    (alice / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (alice / "app").mkdir()
    if name != "bin/python3":
        (alice / "bin" / "python3").symlink_to("/usr/bin/env")
    if name != "pyvenv.cfg":
        (alice / "pyvenv.cfg").write_text("home = /nowhere\nversion = 3.11.2\n")
    target = folder / "root" / "x" / path.name
    target.parent.mkdir()
    if way == "there":
        make(kind, path)
        target = path
    else:
        make(kind, target)
        if way == "linked":
            path.symlink_to(target)
        elif way == "hard link":
            os.link(target, path)
        else:
            for each in path.parent.iterdir():
                each.unlink()
            path.parent.rmdir()
            path.parent.symlink_to(target.parent)
    for each in (alice, *alice.rglob("*")):
        if each != path or way == "there":
            os.chown(each, ALICE, ALICE, follow_symlinks=False)
    if kind == "folder":
        target.chmod(0o700)
    watch = Opened(target)
    started = time.monotonic()
    try:
        READERS[name](path)
        assert watch.times() == 0
    finally:
        watch.close()
    assert time.monotonic() - started < 30


def test_what_is_the_tenants_own_or_everybodys_is_read(folder: Path) -> None:
    alice = folder / "alice"
    (alice / "own").write_text("of alice")
    (alice / "own").chmod(0o600)
    os.chown(alice / "own", ALICE, ALICE)
    (folder / "public").write_text("for all")
    (alice / "linked").symlink_to(folder / "public")
    os.chown(alice / "linked", ALICE, ALICE, follow_symlinks=False)
    (folder / "root" / "secret").write_text("of root")
    assert files.read(alice / "own", 100) == b"of alice"
    assert files.read(alice / "linked", 3) == b"for"
    assert files.read(folder / "root" / "secret", 100) == b"of root"  # the operator named it


def test_another_tenants_file_is_not_read_for_one(folder: Path) -> None:
    (folder / "bob").mkdir()
    (folder / "bob" / "secret").write_text("of bob")
    (folder / "bob" / "secret").chmod(0o600)
    for each in (folder / "bob", folder / "bob" / "secret"):
        os.chown(each, BOB, BOB)
    (folder / "alice" / "linked").symlink_to(folder / "bob" / "secret")
    with pytest.raises(files.Unfit, match="leads to what not everybody may read"):
        files.read(folder / "alice" / "linked", 100)
    assert files.read(folder / "bob" / "secret", 100) == b"of bob"


def test_what_has_no_name_is_not_read_for_a_tenant(folder: Path) -> None:
    """Such as the settings of an app, in memory that the daemon holds."""
    memory = os.memfd_create("settings")
    try:
        os.write(memory, b"KEY=secret\n")
        path = folder / "alice" / ".env"
        path.symlink_to(f"/proc/{os.getpid()}/fd/{memory}")
        os.chown(path, ALICE, ALICE, follow_symlinks=False)
        with pytest.raises(files.Unfit, match="leads to what has no name"):
            files.read(path, 100)
        with pytest.raises(InvalidValue, match="could lead anywhere"):
            envfile.read(path, partial(misleads, str(path), account=_ALICE))
    finally:
        os.close(memory)


def test_an_env_file_that_became_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "public.env").write_text("A=1\n")
    path = envfile.locate(".env", folder / "alice")
    path.symlink_to(folder / "public.env")
    with pytest.raises(InvalidValue, match=f"leads out of {folder}/alice"):
        envfile.read(path, None, folder / "alice")


def test_a_folder_with_too_many_names_is_looked_at_within_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / "alice"
    for number in range(300):
        (place / f"f{number}.txt").touch()
    (place / "main.py").touch()
    monkeypatch.setattr("caddysnake.config.plan.search._NAMES_MAX", 100)
    assert find_module("main", (str(place),)) is Verdict.FOUND
    assert find_module("nothing", (str(place),)) is Verdict.UNKNOWN  # an extension module may be among the rest
    assert len(modules_in(str(place))) <= 100
    assert files.names(str(place), 100)[1] is False
    assert len(files.names(str(place), 1000)[0]) == 301


def test_folders_that_path_files_add_are_bounded(folder: Path) -> None:
    site = folder / "alice" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (folder / "alice" / "bin").mkdir()
    (folder / "alice" / "bin" / "python3").symlink_to("/usr/bin/env")
    (folder / "alice" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    for number in range(40):
        (site / f"{number}.pth").write_text("".join(f"{'./' * (n + 30 * number)}\n" for n in range(1, 31)))
    found = installation(str(folder / "alice" / "bin" / "python3"))
    assert len(found.folders) < 600
    assert not found.complete
