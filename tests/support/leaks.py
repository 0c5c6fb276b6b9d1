"""Fails a test that leaves a child process, a socket, a pidfd, shared memory or something temporary behind.

Those are what this project is about: a worker that nobody reaps or a descriptor with a second owner is a bug in the
code as often as in the test. Pipes and open files are left to Python's own ResourceWarning, which is an error here
anyway. Temporary files are made in a folder of this process's own (``TMPDIR``, for all that it starts), which goes in
the end, also with what was killed.

What fixtures of a wider scope hold is there before the test begins, so it does not count; a test must not start such
a fixture itself with `request.getfixturevalue`. Threads of one process share descriptors, so this needs the tests of a
process to run one after another, as they do under xdist. Linux only: elsewhere nothing is checked.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# A child that a background thread of asyncio reaps may be there after its test, on a busy machine for seconds.
GRACE_S = 10.0
WATCHED_DESCRIPTORS = ("socket:", "anon_inode:[pidfd]", "/memfd:")
# They belong to the standard library's multiprocessing and live as long as the process that first needed them.
HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


class Holdings(NamedTuple):
    """What this process owns. `descriptors` are (number, target): a number is reused, its target is not."""

    children: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    files: frozenset[str]
    """Temporary ones, and folders."""

    def beyond(self, earlier: Holdings) -> Holdings:
        return Holdings(*(now - before for now, before in zip(self, earlier, strict=True)))


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> frozenset[int]:
    """Pids of our children, zombies among them. Reads all of /proc, but only when there is any."""
    if not _has_children():
        return frozenset()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # "pid (command) state ppid …"; the command may hold spaces and parentheses.
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == os.getpid() and not any(helper in command for helper in HELPERS):
            found.add(int(entry.name))
    return frozenset(found)


def _descriptors() -> frozenset[tuple[int, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith(WATCHED_DESCRIPTORS):
            found.add((int(number), target))
    return frozenset(found)


def _files() -> frozenset[str]:
    folder = tempfile.gettempdir()
    return frozenset(f"{folder}/{name}" for name in os.listdir(folder))


def remove_folders_of(pid: int) -> None:
    """Remove what a daemon that was killed has left, as the next one that starts would."""
    for name in os.listdir(tempfile.gettempdir()):
        if name.startswith(f"caddysnake-{pid}-"):
            shutil.rmtree(f"{tempfile.gettempdir()}/{name}")


def holdings() -> Holdings:
    return Holdings(_children(), _descriptors(), _files())


def _describe(leaked: Holdings) -> str:
    lines = []
    for pid in sorted(leaked.children):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            command = ""
        lines.append(f"child {pid}: {command or 'ended, but nobody waited for it'}")
    lines += [f"descriptor {number}: {target}" for number, target in sorted(leaked.descriptors)]
    lines += sorted(leaked.files)
    return "This test left behind:\n  " + "\n  ".join(lines)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _leaked_since(before: Holdings) -> Holdings:
    leaked = holdings().beyond(before)
    if any(leaked):
        gc.collect()  # an object in a cycle closes its descriptor only now
        deadline = time.monotonic() + GRACE_S
        while any(leaked := holdings().beyond(before)) and time.monotonic() < deadline:
            time.sleep(0.02)
    return leaked


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    tmp_path_factory.getbasetemp()  # pytest's own stays where it was, and is kept
    with pytest.MonkeyPatch.context() as patch:
        folder = tempfile.mkdtemp(prefix="cs-")  # short: sockets are in it
        os.chmod(folder, 0o1777)  # some tests are other users
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(temporary_folder: None) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    before = holdings()
    yield
    leaked = _leaked_since(before)
    if any(leaked):
        description = _describe(leaked)
        for pid in leaked.children:
            _end(pid)
        for path in leaked.files:
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        pytest.fail(description, pytrace=False)
