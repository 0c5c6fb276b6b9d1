"""A command is executed as its app is, and nothing of it is left when it has ended."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.house import until
from support.tenants import ALICE, Public, give, needs_root, public_folder
from support.worker import PATIENCE_S

from caddysnake.channel.settings import Settings
from caddysnake.config.plan import accounts, fence
from caddysnake.config.plan.fence import Fence, Wish
from caddysnake.daemon.apps.folder import PrivateFolder
from caddysnake.daemon.commands import execution
from caddysnake.daemon.commands.execution import Ending, Execution, NotExecuted
from caddysnake.daemon.commands.surroundings import Surroundings
from caddysnake.daemon.system import processes, tempdirs
from caddysnake.daemon.workers.child.launcher import ForkServerKey
from caddysnake.sandbox import walls
from caddysnake.sandbox.walls import Walls

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def heir() -> Iterator[None]:
    """As the daemon is, for as long as a test runs: other tests leave orphans to whoever has them."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    processes.reap_strays(set())
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def around(
    folder: Path, user: str | None = None, limits: dict[str, int] | None = None, python: str = sys.executable,
    **environ: str,
) -> Surroundings:  # fmt: skip
    own = {"PATH": os.environ["PATH"], **environ}
    settings = Settings("blog", "wsgi", "blog", "app", str(folder), own, limits=limits)
    account = accounts.resolve(user, None)
    return Surroundings.of(settings, ForkServerKey(python, "wsgi", (), (), (), account), str(folder))


async def output_of(surroundings: Surroundings, *command: str, **options: Any) -> tuple[str, Ending]:
    with tempfile.TemporaryFile() as file:
        streams: Sequence[int | None] = [None, file.fileno(), file.fileno()]
        run = await Execution.begin(surroundings, command, "test", streams=streams, **options)
        ending = await asyncio.wait_for(run.ending, PATIENCE_S)
        file.seek(0)
        return file.read().decode(), ending


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())
    assert execution.pids() == set()


def test_it_has_the_surroundings_of_the_app(tmp_path: Path) -> None:
    script = (
        "import os, resource, sys;"
        "print(os.getcwd(), os.getsid(0) == os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)[0],"
        "os.environ['TMPDIR'], os.environ['COLOUR'], os.environ['PATH'].split(':')[0], repr(sys.stdin.read()),"
        "open('/proc/self/status').read().split('NoNewPrivs:')[1].split()[0], sys.executable)"
    )
    (tmp_path / "python").write_text("#!/bin/sh\necho not this one\n")
    (tmp_path / "python").chmod(0o755)

    async def work() -> None:
        found = around(tmp_path, limits={"open_files": 77}, COLOUR="blue", PATH=f"{tmp_path}:{os.environ['PATH']}")
        text, ending = await output_of(found, "python", "-c", script)
        assert ending.is_good
        folder = os.path.dirname(sys.executable)
        here = str(tmp_path)
        assert text.split() == [here, "True", "77", here, "blue", folder, "''", "1", sys.executable]

    run(work)


@needs_root
def test_it_runs_as_the_apps_user_and_writes_for_nobody_else(public: Public, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PACKAGE", Path(public.site) / "caddysnake")

    async def work() -> None:
        found = around(Path("/"), str(ALICE), python=public.python)
        text, ending = await output_of(found, "sh", "-c", "id -u; id -g; umask")
        assert ending.is_good
        assert text.split() == [str(ALICE), str(ALICE), "0027"]
        with pytest.raises(NotExecuted, match=f"working_dir /root: Permission denied, for user {ALICE}"):
            await Execution.begin(found._replace(working_dir="/root"), ["true"], "test")

    run(work)


@needs_root
@pytest.mark.skipif(walls.why_not() != "", reason=walls.why_not() or "-")
def test_it_is_in_the_sandbox_of_the_app_and_is_not_executed_without_it(
    public: Public, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "PACKAGE", Path(public.site) / "caddysnake")
    monkeypatch.setattr(fence, "PACKAGE", Path(public.site) / "caddysnake")
    script = (
        "import os, tempfile; tempfile.TemporaryFile(); print(os.getcwd())\n"
        "for path in ('/etc/hosts', 'own', '/home', '/root'):\n"
        "    try: (os.listdir if os.path.isdir(path) else open)(path); print('done')\n"
        "    except OSError as exc: print(exc.errno)\n"
    )

    async def work(folder: Path, private: Path) -> None:
        (private / "own" / "tmp").mkdir(parents=True)
        (folder / "own").touch()
        give(folder, ALICE)
        give(private / "own", ALICE)
        settings = Settings("blog", "wsgi", "blog", "app", str(folder), {"PATH": os.environ["PATH"]})
        own = Fence((Wish(str(folder), "read", "working_dir"),), Walls(), owner="blog")
        account = accounts.resolve(str(ALICE), None)
        key = ForkServerKey(public.python, "wsgi", (), (), (), account, own)
        found = Surroundings.of(settings, key, str(private / "own" / "tmp"))
        text, ending = await output_of(found, "python", "-c", script)
        assert text.split() == [str(folder), "done", "done", "13", "13"]
        assert ending.is_good
        sink, theirs = socket.socketpair()
        extra = {"terminal": theirs.fileno(), "streams": [0, 1], "size": [24, 80]}
        show = "import os; print(os.isatty(0), os.get_terminal_size().columns, os.tcgetpgrp(0) == os.getpgrp())"
        begun = await Execution.begin(
            found, ["python", "-c", show], "test", extra=extra, pass_fds=[theirs.fileno()], streams=[None, None, None]
        )
        theirs.close()
        _, (terminal,), _, _ = socket.recv_fds(sink, 1, 1)
        sink.close()
        assert (await asyncio.wait_for(begun.ending, PATIENCE_S)).is_good
        assert os.read(terminal, 100).split() == [b"True", b"80", b"True"]
        os.close(terminal)
        common = key._replace(fence=own._replace(owner=""))
        for each in (common, key._replace(fence=own._replace(wishes=(Wish("/no/such", "read", "read[0]"),)))):
            with pytest.raises(NotExecuted):
                await Execution.begin(Surroundings.of(settings, each, str(private / "own" / "tmp")), ["true"], "test")

    with public_folder() as folder, public_folder() as private:
        run(lambda: work(folder, private))


def test_signals_that_python_ignores_are_not_ignored_by_it(tmp_path: Path) -> None:
    async def work() -> None:
        text, _ = await output_of(around(tmp_path), "sh", "-c", "grep SigIgn /proc/self/status")
        assert int(text.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0

    run(work)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["no-such-command"], "no-such-command: there is no such command for this user in "),
        (["/nowhere/at/all"], "/nowhere/at/all: No such file or directory"),
        (["/etc/passwd"], "/etc/passwd: Permission denied"),
    ],
)
def test_what_cannot_be_executed_is_told(tmp_path: Path, command: list[str], told: str) -> None:
    async def work() -> None:
        with pytest.raises(NotExecuted) as caught:
            await Execution.begin(around(tmp_path), command, "test")
        assert str(caught.value).startswith(told)

    run(work)


def test_how_it_ended_is_known(tmp_path: Path) -> None:
    async def work() -> None:
        _, failed = await output_of(around(tmp_path), "sh", "-c", "exit 3")
        _, killed = await output_of(around(tmp_path), "sh", "-c", "kill -SEGV $$")
        assert (failed.exit_code, failed.reason) == (3, "exit status 3")
        assert (killed.exit_code, killed.reason) == (139, "signal SIGSEGV")

    run(work)


def test_one_that_does_not_listen_is_ended_with_all_of_its_session(tmp_path: Path) -> None:
    script = "trap '' TERM; set -m; sleep 1000 & echo $! > child; while :; do sleep 0.01; done"

    async def work() -> None:
        run = await Execution.begin(around(tmp_path), ["bash", "-c", script], "test")
        child = tmp_path / "child"
        await until(lambda: child.exists() and bool(child.read_text()))
        ending = await run.stop(signal.SIGTERM, 0.2)
        assert ending.reason == "signal SIGKILL"

        def is_gone() -> bool:
            processes.reap_strays(set())
            return not os.path.exists(f"/proc/{child.read_text().strip()}")

        await until(is_gone)

    run(work)


def test_what_has_left_its_session_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        await output_of(around(tmp_path), "sh", "-c", "setsid -f sleep 1000 >/dev/null 2>&1; sleep 0.1")
        (told,) = [record for record in caplog.records if "left behind" in record.message]
        fields = told.__dict__["fields"]
        assert (fields["app"], fields["process"], fields["command"]) == ("blog", "test", "sleep")
        os.kill(fields["pid"], signal.SIGKILL)
        await until(lambda: os.waitid(os.P_PID, fields["pid"], os.WEXITED | os.WNOHANG) is not None)

    run(work)


def test_one_that_nobody_waits_for_any_more_is_ended(tmp_path: Path) -> None:
    async def work() -> None:
        task = asyncio.ensure_future(Execution.begin(around(tmp_path), ["sleep", "1000"], "test"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))

    run(work)


def test_another_image_of_the_daemon_goes_on_with_it(tmp_path: Path) -> None:
    async def work() -> None:
        first = await Execution.begin(around(tmp_path), ["sh", "-c", "read line < fifo; exit 7"], "test")
        asyncio.get_running_loop().remove_reader(first.snapshot().pidfd)
        second = Execution.restored("blog", first.snapshot())
        assert (second.pid, second.started_at) == (first.pid, first.started_at)
        os.kill(second.pid, signal.SIGKILL)
        assert (await asyncio.wait_for(second.ending, PATIENCE_S)).reason == "signal SIGKILL"
        first._process.wait()

    os.mkfifo(tmp_path / "fifo")
    run(work)


def test_another_image_of_the_daemon_knows_how_one_ended_that_is_just_being_reaped(tmp_path: Path) -> None:
    async def work() -> None:
        first = await Execution.begin(around(tmp_path), ["sh", "-c", "exit 7"], "test")
        ending = await asyncio.wait_for(first.ending, PATIENCE_S)  # whoever waits for it has its turn after the upgrade
        second = Execution.restored("blog", first.snapshot())
        assert await asyncio.wait_for(second.ending, PATIENCE_S) == ending
        assert second.is_settled

    run(work)


def test_the_private_folder_of_an_app_is_its_users_alone_and_goes_with_it() -> None:
    folder = PrivateFolder("blog")
    path = Path(folder.path(None))
    info = path.stat()
    assert (info.st_mode & 0o777, info.st_uid) == (0o700, os.geteuid())
    assert Path(folder.temporary(None)).is_dir()
    later = PrivateFolder("blog")
    later.restore(folder.snapshot())
    assert later.path(None) == str(path)
    later.end()
    asyncio.run(tempdirs.settle(PATIENCE_S))
    assert not path.exists()
