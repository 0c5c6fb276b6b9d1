"""What is noticed of changes in folders, and what is not."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.house import run, until
from support.tenants import ALICE, needs_root, public_folder

from caddysnake.daemon.apps.autoreload import trees
from caddysnake.daemon.apps.autoreload.trees import Root
from caddysnake.daemon.apps.autoreload.watcher import Watch, Watching

QUIET_S = 0.1


class Seen:
    """Changes of ``folder`` as they are told: paths relative to it, and how often something was."""

    def __init__(self, folder: Path) -> None:
        self.paths: set[str] = set()
        self.times = 0
        self._folder = os.path.realpath(folder)

    def tell(self, paths: frozenset[str]) -> None:
        self.times += 1
        self.paths |= {os.path.relpath(path, self._folder) for path in paths}


def observe(folder: Path, change: Callable[[], None], expected: set[str], *patterns: str) -> None:
    """``change`` something in the watched ``folder``: exactly ``expected`` is told."""

    async def work() -> None:
        watching = Watching()
        seen, marker = Seen(folder), Seen(folder)
        (folder / "old.py").touch()
        watch = watching.watch(Root(str(folder), patterns), QUIET_S, seen.tell, time.time() + 3600)
        # A root of its own in the same thread: when it has told, so has, or would have, the other.
        watching.watch(Root(str(folder), (*patterns, "*.marker")), QUIET_S, marker.tell, time.time() + 3600)
        await until(lambda: _is_watched(folder, marker), "the watch")
        seen.paths.clear()
        change()
        await until(lambda: seen.paths >= expected, f"news of {expected}, but of {seen.paths}")
        number = marker.times
        (folder / "last.marker").write_text("x")
        await until(lambda: marker.times > number, "the marker")
        await asyncio.sleep(3 * QUIET_S)
        assert seen.paths == expected
        watch.cancel()
        await watching.close()

    run(work())


def _is_watched(folder: Path, marker: Seen) -> bool:
    if not marker.times:
        (folder / "first.marker").write_text("x")
    return bool(marker.times)


def test_a_file_that_is_written_is_told(tmp_path: Path) -> None:
    observe(tmp_path, lambda: (tmp_path / "old.py").write_text("1") and None, {"old.py"})


def test_a_file_that_is_replaced_as_editors_do_is_told(tmp_path: Path) -> None:
    def save() -> None:
        (tmp_path / "old.py~").write_text("1")
        os.replace(tmp_path / "old.py~", tmp_path / "old.py")

    observe(tmp_path, save, {"old.py"})


def test_a_file_that_is_deleted_is_told(tmp_path: Path) -> None:
    observe(tmp_path, (tmp_path / "old.py").unlink, {"old.py"})


def test_only_python_files_and_what_was_asked_for_count(tmp_path: Path) -> None:
    def write() -> None:
        for name in ("a.txt", "b.html", "c.pyc", ".#old.py", "d.css"):
            (tmp_path / name).write_text("1")

    observe(tmp_path, write, {"b.html"}, "*.html")


def test_a_pattern_with_a_slash_is_for_the_whole_path(tmp_path: Path) -> None:
    def write() -> None:
        (tmp_path / "templates").mkdir()
        (tmp_path / "templates" / "a.txt").write_text("1")
        (tmp_path / "b.txt").write_text("1")

    observe(tmp_path, write, {"templates/a.txt"}, "templates/*.txt")


def test_folders_made_at_once_and_deep_are_watched(tmp_path: Path) -> None:
    def write() -> None:
        (tmp_path / "a" / "b" / "c").mkdir(parents=True)
        (tmp_path / "a" / "b" / "c" / "new.py").write_text("1")

    observe(tmp_path, write, {"a/b/c/new.py"})


def test_folders_without_code_of_the_apps_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "pyvenv.cfg").touch()

    def write() -> None:
        (tmp_path / "environment" / "x.py").write_text("1")
        for name in (".git", "__pycache__", "node_modules", "a/__pycache__"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "x.py").write_text("1")
        (tmp_path / "a" / "told.py").write_text("1")

    observe(tmp_path, write, {"a/told.py"})


def test_a_folder_that_is_moved_takes_its_files_along(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").touch()
    observe(tmp_path, lambda: os.rename(tmp_path / "a", tmp_path / "b"), {"a/x.py", "b/x.py"})


def test_a_folder_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    def replace() -> None:
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "new.py").write_text("1")

    observe(tmp_path, replace, {"a/new.py"})


def test_a_hundred_files_at_once_are_told_once(tmp_path: Path) -> None:
    async def work() -> None:
        watching = Watching()
        seen = Seen(tmp_path)
        watching.watch(Root(str(tmp_path)), 0.5, seen.tell, 0.0)
        for number in range(100):
            (tmp_path / f"f{number}.py").write_text("1")
        await until(lambda: len(seen.paths) == 100, "news of all")
        assert seen.times == 1
        await watching.close()

    run(work())


def test_a_link_that_leads_elsewhere_is_followed_there(tmp_path: Path) -> None:
    """As releases are switched: ``current -> releases/2``."""

    async def work() -> None:
        for release in ("1", "2"):
            (tmp_path / release).mkdir()
            (tmp_path / release / "main.py").write_text(release)
        current = tmp_path / "current"
        current.symlink_to("1")
        watching = Watching()
        seen, marker = Seen(tmp_path), Seen(tmp_path)
        watching.watch(Root(str(current)), QUIET_S, seen.tell, time.time() + 3600)
        watching.watch(Root(str(current), ("*.marker",)), QUIET_S, marker.tell, time.time() + 3600)
        await until(lambda: _is_watched(current, marker), "the watch")
        (tmp_path / "next").symlink_to("2")
        os.replace(tmp_path / "next", current)
        await until(lambda: "2/main.py" in seen.paths, "news of the other release")
        seen.paths.clear()
        (tmp_path / "2" / "main.py").write_text("changed")
        await until(lambda: seen.paths == {"2/main.py"}, "news of a change in it")
        await watching.close()

    run(work())


def test_a_root_that_comes_later_is_watched_then(tmp_path: Path) -> None:
    async def work() -> None:
        watching = Watching()
        seen = Seen(tmp_path)
        watching.watch(Root(str(tmp_path / "later")), QUIET_S, seen.tell, 0.0)
        await asyncio.sleep(0.2)
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "main.py").write_text("1")
        await until(lambda: seen.paths == {"later/main.py"}, "news of it")
        await watching.close()

    run(work())


def test_what_changed_before_anybody_looked_is_told_too(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "old.py").write_text("1")
        await asyncio.sleep(0.05)  # clocks of files tick every few milliseconds
        since = time.time()
        await asyncio.sleep(0.05)
        (tmp_path / "new.py").write_text("1")
        watching = Watching()
        first, second = Seen(tmp_path), Seen(tmp_path)
        watching.watch(Root(str(tmp_path)), QUIET_S, first.tell, since)
        await until(lambda: first.paths == {"new.py"}, "news of it")
        watching.watch(Root(str(tmp_path)), QUIET_S, second.tell, since)
        await until(lambda: second.times, "news for who came later")
        await watching.close()

    run(work())


def _write(folder: Path) -> None:
    (folder / "told.py").write_text(str(time.time()))


def _bad_file(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).touch()


def _bad_folder(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9")).mkdir()


def _deep(folder: Path) -> None:
    for _ in range(trees.DEPTH_MAX + 20):
        folder /= "d"
    folder.mkdir(parents=True)


def _many_folders(folder: Path) -> None:
    for number in range(60):
        (folder / f"d{number}").mkdir()


def _many_names(folder: Path) -> None:
    (folder / "crowd").mkdir()
    for number in range(600):
        (folder / "crowd" / f"{number}.txt").touch()


def _many_modules(folder: Path) -> None:
    for number in range(150):
        (folder / f"m{number}.py").touch()
    (folder / "d").mkdir()


@pytest.mark.parametrize("harm", [_bad_file, _bad_folder, _deep, _many_folders, _many_names, _many_modules])
def test_what_somebody_puts_into_his_folder_leaves_the_others_watched(
    tmp_path: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "FOLDERS_MAX", 50)
    monkeypatch.setattr(trees, "ENTRIES_MAX", 500)
    monkeypatch.setattr(trees, "FILES_MAX", 100)
    evil, good = tmp_path / "evil", tmp_path / "good"
    evil.mkdir()
    good.mkdir()

    async def work() -> None:
        watching = Watching()
        of_evil, of_good = Seen(evil), Seen(good)
        watching.watch(Root(str(evil)), QUIET_S, of_evil.tell, time.time())
        watching.watch(Root(str(good)), QUIET_S, of_good.tell, time.time())

        async def told(folder: Path, seen: Seen) -> None:
            # Again and again: it may be found only when the folder is watched again.
            for _ in range(600):
                number = seen.times
                _write(folder)
                for _ in range(20):
                    if seen.times > number:
                        return
                    await asyncio.sleep(0.02)
            raise AssertionError(f"nothing is told of {folder.name}")

        await told(evil, of_evil)
        await told(good, of_good)
        for _ in range(2):
            await asyncio.to_thread(harm, evil)
            await asyncio.sleep(1.5)
            before = of_good.times
            _write(good)
            await until(lambda before=before: of_good.times > before, "news of the good one")  # type: ignore[misc]
            shutil.rmtree(evil)
            evil.mkdir()
        of_evil.paths.clear()
        await told(evil, of_evil)
        assert "told.py" in of_evil.paths
        await watching.close()

    run(work())


@needs_root
def test_a_tenants_link_does_not_make_root_look_where_he_may_not() -> None:
    with public_folder() as folder:
        (folder / "secret" / "inner").mkdir(parents=True)
        (folder / "secret" / "inner" / "x.py").touch()
        (folder / "secret").chmod(0o700)
        (folder / "alice").mkdir()
        (folder / "alice" / "x.py").touch()
        os.chown(folder / "alice", ALICE, ALICE)
        for name, target in (("linked", folder / "secret"), ("deep", folder / "secret" / "inner")):
            (folder / "alice" / name).symlink_to(target)
            assert len(trees.walk(Root(str(folder / "alice"))).files) == 1
            with pytest.raises(trees.TooMuch, match="leads to what not everybody may read"):
                trees.walk(Root(str(folder / "alice" / name)))
        assert len(trees.walk(Root(str(folder / "secret"))).files) == 1


def test_the_thread_ends_with_the_last_watch(tmp_path: Path) -> None:
    async def work() -> None:
        watching = Watching()
        watches = [watching.watch(Root(str(tmp_path)), QUIET_S, lambda paths: None, 0.0) for _ in range(3)]
        scouts = [thread for thread in threading.enumerate() if thread.name == "watching"]
        assert len(scouts) == 1
        for watch in watches:
            assert scouts[0].is_alive()
            watch.cancel()
        await until(lambda: not scouts[0].is_alive(), "its end")

    run(work())


@pytest.mark.parametrize("pauses", [[0.0], [0.05] * 4, [0.05] * 40])
def test_changes_are_told_when_they_stop_or_after_a_while(pauses: list[float]) -> None:
    async def work() -> None:
        told: list[frozenset[str]] = []
        watch = Watch(Watching(), Root("/"), 0.15, told.append)
        for number, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            watch.note([str(number)])
        await until(lambda: told and len(frozenset().union(*told)) == len(pauses), "all of them")
        if len(pauses) < 10:
            assert len(told) == 1
        else:
            assert len(told) >= 2
        watch.cancel()

    run(work())


def test_a_change_in_the_moment_in_which_another_root_is_added_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        watching = Watching()
        folder = tmp_path / "first"
        folder.mkdir()
        file = folder / "main.py"
        file.touch()
        seen = Seen(folder)
        watching.watch(Root(str(folder), ()), 0.01, seen.tell, time.time())
        for number in range(15):
            await asyncio.sleep(0.01 * number)  # wherever the thread stands
            other = tmp_path / f"other{number}"
            other.mkdir()
            times = seen.times
            file.write_text(str(number))
            watching.watch(Root(str(other), ()), 0.01, lambda paths: None, time.time())
            await until(lambda times=times: seen.times > times, f"news of change {number}")
        await watching.close()

    run(work())
