"""Sockets in folders of a tenant's, who means harm to what root does there."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tenants import ALICE, BOB, needs_root, public_folder

from caddysnake.config.plan.admin import make_private
from caddysnake.daemon.sockets.opener import open_unix
from caddysnake.daemon.sockets.socket_file import ListenError, identity, lock_path, regive, remove, unlock_path

pytestmark = needs_root


@pytest.fixture
def folder() -> Iterator[Path]:
    """Root's, with a folder of Alice's, and a file and a folder that are nobody else's."""
    with public_folder() as found:
        (found / "alice").mkdir()
        os.chown(found / "alice", ALICE, ALICE)
        (found / "root").mkdir(mode=0o700)
        (found / "root" / "secret").write_text("of root")
        (found / "root" / "secret").chmod(0o600)
        yield found


def untouched(folder: Path) -> bool:
    info = os.stat(folder / "root" / "secret")
    names = {path.name for path in (folder / "root").iterdir()}
    return (info.st_uid, stat.S_IMODE(info.st_mode), info.st_size, names) == (0, 0o600, 7, {"secret"})


def test_a_socket_in_a_folder_of_somebody_elses_gets_its_mode_and_owner(folder: Path) -> None:
    path = folder / "alice" / "app.sock"
    listener = open_unix(str(path), 0o660, str(BOB), str(ALICE))
    info = path.lstat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o660, BOB, ALICE)
    assert sorted(os.listdir(folder / "alice")) == ["app.sock", "app.sock.lock"]
    listener.close()
    assert os.listdir(folder / "alice") == []


def test_a_link_in_the_place_of_the_folder_is_not_followed_for_root(folder: Path) -> None:
    (folder / "alice" / "run").symlink_to(folder / "root")
    os.chown(folder / "alice" / "run", ALICE, ALICE, follow_symlinks=False)
    with pytest.raises(ListenError, match=r"does not follow the link .*/alice/run, whose folder belongs to user"):
        open_unix(str(folder / "alice" / "run" / "app.sock"), 0o666, None, None)
    with pytest.raises(OSError, match="does not follow the link"):
        make_private(str(folder / "alice" / "run" / "caddysnake" / "admin"))
    assert untouched(folder)


def test_a_link_of_roots_own_is_followed(folder: Path) -> None:
    (folder / "run").symlink_to("root/../alice/./")
    listener = open_unix(str(folder / "run" / "app.sock"), None, None, None)
    assert (folder / "alice" / "app.sock").is_socket()
    listener.close()


def test_a_link_in_the_place_of_the_socket_is_left_alone_and_what_it_leads_to(folder: Path) -> None:
    path = folder / "alice" / "app.sock"
    path.symlink_to(folder / "root" / "secret")
    with pytest.raises(ListenError, match="exists and is not a socket"):
        open_unix(str(path), 0o666, str(ALICE), None)
    assert untouched(folder)


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "device", "folder", "socket"])
def test_a_lock_file_that_is_something_else_is_neither_opened_nor_written_to(folder: Path, kind: str) -> None:
    lock = folder / "alice" / "app.sock.lock"
    with contextlib.ExitStack() as stack:
        if kind == "link":
            lock.symlink_to(folder / "root" / "secret")
        elif kind == "hard link":
            os.link(folder / "root" / "secret", lock)
        elif kind == "fifo":
            os.mkfifo(lock)
        elif kind == "device":
            os.mknod(lock, 0o600 | stat.S_IFCHR, os.makedev(1, 7))  # /dev/full
        elif kind == "folder":
            lock.mkdir()
        else:
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(lock))
        with pytest.raises(ListenError, match="lock is no plain file: remove it"):
            open_unix(str(folder / "alice" / "app.sock"), None, None, None)
    assert (folder / "root" / "secret").read_text() == "of root"
    assert untouched(folder)


def test_a_folder_that_is_replaced_by_a_link_later_loses_nothing_of_others(folder: Path) -> None:
    listener = open_unix(str(folder / "alice" / "app.sock"), None, None, None)
    others = folder / "root" / "app.sock"
    os.rename(folder / "alice", folder / "away")
    (folder / "alice").symlink_to(folder / "root")
    os.chown(folder / "alice", ALICE, ALICE, follow_symlinks=False)
    os.link(folder / "away" / "app.sock", others)  # the very same file, where only root may remove it
    os.link(folder / "away" / "app.sock.lock", f"{others}.lock")
    listener.close()
    assert others.is_socket()
    assert Path(f"{others}.lock").exists()


def test_mode_and_owner_are_given_again_to_the_socket_that_is_ours_alone(folder: Path) -> None:
    path = folder / "alice" / "app.sock"
    listener = open_unix(str(path), 0o600, None, None)
    assert regive(str(path), listener.sock, 0o666, None, str(ALICE))
    assert (stat.S_IMODE(path.lstat().st_mode), path.lstat().st_gid) == (0o666, ALICE)
    os.rename(path, folder / "alice" / "other")
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(folder / "root" / "foreign.sock"))
        foreign.listen()
        for make in (os.symlink, os.link):
            make(folder / "root" / "foreign.sock", path)
            before = os.stat(folder / "root" / "foreign.sock").st_mode
            assert not regive(str(path), listener.sock, 0o666, str(ALICE), None)
            after = os.stat(folder / "root" / "foreign.sock")
            assert (after.st_mode, after.st_uid) == (before, 0)
            path.unlink()
    os.unlink(folder / "root" / "foreign.sock")
    path.symlink_to(folder / "root" / "secret")
    assert not regive(str(path), listener.sock, 0o666, str(ALICE), None)
    assert untouched(folder)
    listener.close()


SWAPPER = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
os.chdir(sys.argv[1])
print("on", flush=True)
number = 0
while True:
    number += 1
    for name in os.listdir("."):
        if name == "harm":
            continue
        try:
            os.rename(name, f"/proc/self/cwd/harm/{number}")
            os.symlink(sys.argv[3], name)
        except OSError:
            pass
        try:
            for inner in os.listdir(name):
                os.rename(name + "/" + inner, f"harm/{number}i")
                os.symlink(sys.argv[3], name + "/" + inner)
        except OSError:
            pass
    for name in os.listdir("."):
        try:
            if os.path.islink(name):
                os.unlink(name)
        except OSError:
            pass
"""


def test_a_tenant_who_swaps_whatever_appears_gets_nothing_of_roots(folder: Path) -> None:
    """He moves away and links what root makes in his folder, for as long as sockets are opened and closed there."""
    alice, secret = folder / "alice", folder / "root" / "secret"
    (alice / "harm").mkdir()
    os.chown(alice / "harm", ALICE, ALICE)
    with subprocess.Popen(
        [sys.executable, "-I", "-c", SWAPPER, str(alice), str(ALICE), str(secret)], stdout=subprocess.PIPE
    ) as swapper:
        try:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            opened, until = 0, time.monotonic() + 5
            while time.monotonic() < until:
                try:
                    listener = open_unix(str(alice / "app.sock"), 0o666, str(ALICE), str(ALICE))
                except ListenError:
                    continue
                opened += 1
                listener.close()
            assert untouched(folder)
            assert opened
        finally:
            swapper.kill()
    shutil.rmtree(alice)


def test_what_is_removed_must_be_what_was_known(folder: Path) -> None:
    path = str(folder / "alice" / "app.sock")
    lock = lock_path(path)
    known = identity(f"{path}.lock")
    assert known is not None
    os.rename(f"{path}.lock", f"{path}.kept")
    Path(f"{path}.lock").write_text("another")
    remove(f"{path}.lock", known)
    assert Path(f"{path}.lock").exists()
    unlock_path(path, lock)
    assert Path(f"{path}.lock").exists()
