"""Temporary folders of apps are removed whatever the apps have left in them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import is_spared
from support.worker import PATIENCE_S

from caddysnake.daemon.system import tempdirs


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(tempdirs, "_base", None)
    yield tmp_path
    asyncio.run(tempdirs.settle(PATIENCE_S))


def made() -> Path:
    return Path(tempdirs.make("app", os.getuid(), os.getgid()))


def removed(place: Path, patience_s: float = PATIENCE_S) -> None:
    asyncio.run(tempdirs.settle(patience_s))
    assert list(place.iterdir()) == []


def nest(folder: Path, depth: int) -> None:
    """A chain of folders, far longer than any path may be, a file in each."""
    here = os.open(folder, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)
        here = inner
    os.close(here)


def test_they_are_spared_by_who_removes_what_is_old(place: Path) -> None:
    folder = made()
    assert is_spared(folder.parent)
    tempdirs.restore(str(folder.parent))
    assert is_spared(folder.parent)
    tempdirs.discard(str(folder))


def test_a_folder_nested_thousands_deep_is_removed(place: Path) -> None:
    folder = made()
    nest(folder, 2500)
    (folder / "beside").mkdir()
    nest(folder / "beside", 20)
    before = len(os.listdir("/proc/self/fd"))
    tempdirs.discard(str(folder))
    assert len(os.listdir("/proc/self/fd")) <= before + 10
    removed(place, PATIENCE_S * 4)


def test_modes_that_keep_its_owner_out_keep_nothing(place: Path) -> None:
    folder = made()
    for name in ("a", "b"):
        (folder / name / "c" / "d").mkdir(parents=True)
        (folder / name / "c" / "file").write_text("x")
    for path in ("a/c/d", "a/c", "a", "b/c", ""):
        (folder / path).chmod(0)
    tempdirs.discard(str(folder))
    removed(place)


def test_no_link_is_followed(place: Path) -> None:
    outside = place / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = made()
    (folder / "in").mkdir()
    for link in ("link", "in/link"):
        (folder / link).symlink_to(outside)
    os.link(outside / "kept", folder / "in" / "hard")
    (folder / "in" / "dangling").symlink_to("/nonexistent")
    os.mkfifo(folder / "in" / "fifo")
    tempdirs.discard(str(folder))
    asyncio.run(tempdirs.settle(PATIENCE_S))
    assert [path.name for path in place.iterdir()] == ["outside"]
    assert (outside / "kept").read_text() == "x"


def test_a_huge_one_neither_holds_up_the_loop_nor_another(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge, small = made(), made()
    for number in range(100):
        (huge / f"{number}").mkdir()
        for inner in range(50):
            (huge / f"{number}" / f"{inner}").touch()
    (small / "file").touch()
    emptied, steps, threads = tempdirs.emptied, [], set()

    def seen(folder: str) -> Iterator[None]:
        for _ in emptied(folder):
            steps.append(folder)
            threads.add(threading.get_ident())
            yield

    monkeypatch.setattr(tempdirs, "emptied", seen)
    tempdirs.discard(str(huge))
    tempdirs.discard(str(small))
    removed(place)
    assert steps[-1] == steps[0], "the small one waited for the huge one"
    assert len(set(steps)) == 2
    assert threading.get_ident() not in threads


def test_what_another_image_of_the_daemon_had_not_removed_is_removed(place: Path) -> None:
    folder = made()
    nest(folder, 10)
    gone = folder.rename(folder.parent / "gone-0123456789abcdef")
    kept = made()
    tempdirs.restore(str(gone.parent))
    asyncio.run(tempdirs.settle(PATIENCE_S))
    assert not gone.exists()
    assert kept.exists()
    tempdirs.discard(str(kept))
    removed(place)


def test_what_a_killed_daemon_has_left_is_removed_with_the_next_folder(place: Path) -> None:
    stale = place / f"caddysnake-{2**22 + 1}-{os.stat('/proc/self/ns/pid').st_ino}-abc"
    (stale / "app-x").mkdir(parents=True)
    nest(stale / "app-x", 20)
    living = place / f"caddysnake-{os.getpid()}-{os.stat('/proc/self/ns/pid').st_ino}-abc"
    living.mkdir()
    folder = made()
    asyncio.run(tempdirs.settle(PATIENCE_S))
    assert not stale.exists()
    assert living.exists()
    living.rmdir()
    tempdirs.discard(str(folder))
    removed(place)


def test_a_stop_does_not_wait_for_ever(place: Path) -> None:
    folder = made()
    for number in range(2000):
        (folder / f"{number}").touch()
    tempdirs.discard(str(folder))
    begun = time.monotonic()
    asyncio.run(tempdirs.settle(0.0))
    assert time.monotonic() - begun < 5
    removed(place)
