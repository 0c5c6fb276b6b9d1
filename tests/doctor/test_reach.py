"""Whether a user gets to a path is told as the kernel would tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.tenants import public_folder

from caddysnake.doctor.reach import Who, entering, may

UIDS = (1001, 1002)
GIDS = (2001, 2002)
MODES = (0, 0o600, 0o060, 0o006, 0o640, 0o446)


def asks_the_kernel(who: Who, path: Path, mode: int) -> bool:
    """What access(2) says to a process that is ``who``."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            os.setgroups(sorted(who.gids))
            os.setresgid(*[min(who.gids)] * 3)
            os.setresuid(*[who.uid] * 3)
            status = 0 if os.access(path, mode) else 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1)
    return status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")
@pytest.mark.parametrize("bit", [2, 4])
def test_rights_to_a_file_are_the_kernels(bit: int) -> None:
    wrong = []
    with public_folder() as folder:
        file = folder / "file"
        file.touch()
        for owner, group, mode in ((u, g, m) for u in UIDS for g in GIDS for m in MODES):
            os.chown(file, owner, group)
            file.chmod(mode)
            for who in (Who("a", UIDS[0], frozenset({GIDS[0]})), Who("b", UIDS[1], frozenset(GIDS))):
                told = may(who, file.stat(), bit)
                if told != asks_the_kernel(who, file, bit):
                    wrong.append((who, owner, group, oct(mode), told))
    assert wrong == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give folders away")
def test_the_first_folder_that_cannot_be_entered_is_named(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(private / "inner")
    who = Who("somebody", UIDS[0], frozenset({GIDS[0]}))
    start = entering(who, str(tmp_path))
    blocked_above = None if start is None else start.path
    private.chmod(0o700)
    obstacle = entering(who, str(tmp_path / "link"))
    assert obstacle is not None
    assert obstacle.path == (blocked_above or str(private))
    assert entering(Who("root", 0, frozenset({0})), str(tmp_path / "link")) is None


def test_what_is_not_there_is_an_obstacle_for_everybody(tmp_path: Path) -> None:
    obstacle = entering(Who("root", 0, frozenset({0})), str(tmp_path / "gone" / "x"))
    assert obstacle is not None
    assert (obstacle.path, obstacle.info) == (str(tmp_path / "gone"), None)
