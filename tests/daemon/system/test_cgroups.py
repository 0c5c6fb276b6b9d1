"""Groups of processes: what is read and decided, in folders that look like cgroup v2.

Plain folders neither move a process nor end one. What the kernel does with the same writes is proved where it has
the memory controller: tests/machine/memory.py.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.hosted import Hosted, pids, threads, write
from support.house import run, spec, until

from caddysnake.daemon.system import cgroups
from caddysnake.daemon.system.cgroups import CgroupTree, Group, Undelegated, own_group, why_killed

OWN = "/system.slice/caddysnake.service"
FILES = {
    "cgroup.controllers": "cpu memory pids\n",
    "cgroup.type": "domain\n",
    "cgroup.procs": f"{os.getpid()}\n",
    "cgroup.subtree_control": "",
}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "self/cgroup").write_text(f"4:pids:/elsewhere\n0::{OWN}\n")
    (folder / "self/mountinfo").write_text(
        f"29 22 0:25 / {tmp_path}/v1 rw shared:4 - cgroup cgroup rw,pids\n"
        f"30 22 0:26 / {tmp_path}/v2 rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroups, "_SYSTEMD", str(tmp_path / "systemd"))
    folder = tmp_path / f"v2{OWN}"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "daemon").mkdir()
    (folder / "daemon/cgroup.procs").write_text("")
    return folder


def test_the_daemon_moves_to_a_leaf_before_it_divides_its_group(
    proc: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled, write = [], cgroups._write

    def written(path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control":
            enabled.append(text)
        write(path, text)

    monkeypatch.setattr(cgroups, "_write", written)
    assert CgroupTree.take(proc=str(proc)).root == own
    assert (own / "daemon/cgroup.procs").read_text().strip() == str(os.getpid())
    assert (enabled[0], sorted(enabled[1:])) == ("+memory", ["+cpu", "+pids"])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("cgroup.controllers", "cpu pids\n", "has no memory controller"),
        ("cgroup.type", None, "is everybody's"),
        ("cgroup.procs", f"{os.getpid()}\n1\n", "others are in .*: process 1"),
        ("daemon/cgroup.procs", "1\n", "another daemon is in "),
    ],
    ids=["without memory", "no group any more", "shared", "another daemon's"],
)
def test_a_group_that_is_not_its_own_is_left_alone(
    proc: Path, own: Path, name: str, text: str | None, reason: str
) -> None:
    if text is None:
        (own / name).unlink()
    else:
        (own / name).write_text(text)
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    with pytest.raises(Undelegated, match=reason):
        CgroupTree.take(proc=str(proc))
    assert before == {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}


def test_what_systemd_has_not_delegated_is_left_alone(proc: Path, own: Path, tmp_path: Path) -> None:
    (tmp_path / "systemd").mkdir()
    with pytest.raises(Undelegated, match="systemd has not delegated"):
        CgroupTree.take(proc=str(proc))


def test_it_is_found_in_a_container_and_beside_v1_and_missed_without_v2(proc: Path, tmp_path: Path) -> None:
    assert own_group(proc) == tmp_path / f"v2{OWN}"
    (proc / "self/mountinfo").write_text(f"30 22 0:26 /system.slice {tmp_path}/part ro - cgroup2 none rw\n")
    assert own_group(proc) == tmp_path / "part/caddysnake.service"
    (proc / "self/mountinfo").write_text("29 22 0:25 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n")
    with pytest.raises(Undelegated, match="cgroup v2 is not mounted"):
        own_group(proc)


def test_a_group_that_cannot_be_made_leaves_nothing(own: Path) -> None:
    tree = CgroupTree(own)
    with pytest.raises(FileNotFoundError):  # a plain folder has no memory.max
        tree.place("../etc/x y", 7, os.getpid(), {"memory": 1 << 20})
    assert not tree.known
    assert not list(own.glob("app-*"))
    assert not (own.parent / "etc").exists()


@pytest.mark.parametrize(
    ("controllers", "wanted"),
    [
        ("memory cpu pids", {"memory": 5, "cpu": 50, "processes": 9}),
        ("memory", {"memory": 5}),
        ("cpu memory", {"memory": 5, "cpu": 50}),
    ],
)
def test_only_what_is_delegated_is_held(own: Path, controllers: str, wanted: dict[str, int]) -> None:
    (own / "cgroup.subtree_control").write_text(controllers)
    limits = {"memory": 5, "cpu": 50, "processes": 9, "open_files": 7}
    assert CgroupTree(own).bounds(limits) == wanted


def test_each_bound_is_written_as_the_kernel_has_it(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    monkeypatch.setattr(cgroups, "_write", lambda path, text: written.update({path.name: text}))
    CgroupTree(own).place("blog", 7, 42, {"cpu": 150, "processes": 9})
    assert written == {"cpu.max": "150000 100000", "pids.max": "9", "cgroup.procs": "42"}


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n", "came to its limit of 64 MB"),
        ("max 12\noom 0\noom_kill 1\n", "the service, or the machine, is out of memory"),
        ("max 12\noom 1\noom_kill 0\n", "^$"),
        ("what\n", "^$"),
        (None, "^$"),
    ],
)
def test_why_the_kernel_killed_is_read_from_its_counts(tmp_path: Path, events: str | None, reason: str) -> None:
    if events is not None:
        (tmp_path / "memory.events").write_text(events)
    assert re.search(reason, why_killed(tmp_path, 64_000_000))


def test_what_nobody_answers_for_is_removed(own: Path) -> None:
    for name in ("app-blog-1", "app-blog-2"):
        (own / name / "made-by-the-app").mkdir(parents=True)
    tree = CgroupTree(own)
    tree.known.add("app-blog-2")
    tree.tidy()
    assert [path.name for path in own.glob("app-*")] == ["app-blog-2"]


def test_a_group_is_carried_by_its_path() -> None:
    assert Group(*Group("/sys/fs/cgroup/x/app-blog-1", 5).snapshot()).path == "/sys/fs/cgroup/x/app-blog-1"


# -- workers, in a tree of folders --------------------------------------------------------------------------------


class Folders(CgroupTree):
    """Where each group is a folder. ``fails``: none can be made."""

    def __init__(self, root: Path, imported: Path, fails: bool = False) -> None:
        super().__init__(root)
        self.placed: dict[int, Path] = {}
        self._imported = imported
        self._fails = fails

    def place(self, app: str, number: int | str, pid: int, bounds: Mapping[str, int]) -> str:
        time.sleep(0.2)
        assert not self._imported.exists(), "it runs the app already"
        if self._fails:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.placed[pid] = self.root / f"app-{number}"
        self.placed[pid].mkdir()
        return str(self.placed[pid])


@pytest.mark.parametrize("runtime", ["process", "thread"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_app_runs_once_its_process_is_placed_and_has_the_other_limit_if_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, fails: bool
) -> None:
    more = "import resource\nopen('imported', 'w').close()"
    home = write(tmp_path, "main", "wsgi", "b'%d' % resource.getrlimit(resource.RLIMIT_DATA)[0]", more)
    tree = Folders(tmp_path, home / "imported", fails)
    monkeypatch.setattr(cgroups, "_tree", tree)
    limits = {"memory": 1 << 30, "open_files": 512}
    kinds = {"process": spec("main:app", "wsgi", home, limits=limits), "thread": threads(home, "wsgi", limits=limits)}

    async def work() -> None:
        async with Hosted() as house:
            app = await house.started(kinds[runtime])
            (worker,) = app.pool.ready
            wanted = 1 << 30 if fails else resource.RLIM_INFINITY
            assert await house.ask(app) == (200, b"%d" % wanted)
            assert worker.process.memory_limit == ("rlimit" if fails else "cgroup")
            assert list(tree.placed) == ([] if fails else pids(app))
            if fails:
                return
            # As the kernel has it, when it ends all that is in a group.
            events = tree.placed[worker.pid] / "memory.events"
            events.write_text("oom 1\noom_kill 1\n")
            (home / "imported").unlink()
            os.kill(worker.pid, signal.SIGKILL)
            await until(lambda: app.pool.core.last_failure, "its end")
            assert app.pool.core.last_failure is not None
            assert app.pool.core.last_failure.code == "memory"
            events.unlink()  # with it, a plain folder cannot be removed

    run(work())
    assert not list(tmp_path.glob("app-*"))
