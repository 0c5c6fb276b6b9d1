"""A configuration that is read again: listeners and apps come, go and stay, and a wrong one changes nothing."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from support.daemon import Process, below, daemon, eventually, get, python_site, workers
from support.load import Load, app

pytestmark = pytest.mark.system


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(app("1" if name == "one" else "2"))
    return tmp_path


def site(socket: str, where: str, *lines: str) -> str:
    return python_site(f"unix/{socket}", "module_wsgi main:wsgi", f"working_dir {where}", "workers 1", *lines)


def version(socket: Path) -> str:
    status, body = get("/", path=socket)
    assert status == 200, body
    return body.split()[0].decode()


def reload(process: Process, folder: Path, text: str, times: int = 1) -> None:
    (folder / "Caddyfile").write_text(text)
    process.popen.send_signal(signal.SIGHUP)
    process.wait_for_log('"reloaded"', times)


def settle(process: Process, count: int) -> None:
    eventually(lambda: len(workers(process.pid)) == count, process)


def test_listeners_come_and_go_with_their_apps(folder: Path) -> None:
    a, b = folder / "a.sock", folder / "b.sock"
    with daemon(folder, site("a.sock", "one")) as process:
        reload(process, folder, site("a.sock", "one") + site("b.sock", "two"))
        assert (version(a), version(b)) == ("1", "2")
        settle(process, 2)
        reload(process, folder, site("b.sock", "two"), 2)
        assert version(b) == "2"
        assert not a.exists()
        settle(process, 1)
        reload(process, folder, site("a.sock", "one"), 3)
        assert version(a) == "1"
        assert not b.exists()
        settle(process, 1)


def test_a_listener_that_stays_is_the_same_socket_and_loses_nothing(folder: Path) -> None:
    a = folder / "a.sock"
    with daemon(folder, site("a.sock", "one")) as process:
        inode = a.stat().st_ino

        async def work() -> None:
            async with Load(a, 10) as load:
                for turn, text in enumerate(
                    (
                        site("a.sock", "one") + site("b.sock", "two"),
                        site("b.sock", "two") + site("a.sock", "one", "threads 2"),
                        site("a.sock", "one", "env_var A 1"),
                    ),
                    1,
                ):
                    await asyncio.to_thread(reload, process, folder, text, turn)
                    await load.more(100)
            assert load.failures == []

        asyncio.run(work())
        assert a.stat().st_ino == inode


def test_a_listener_may_get_another_app(folder: Path) -> None:
    a = folder / "a.sock"
    with daemon(folder, site("a.sock", "one")) as process:
        assert version(a) == "1"
        reload(process, folder, site("a.sock", "two"))
        assert version(a) == "2"
        settle(process, 1)


def test_a_listener_that_was_direct_may_get_routes(folder: Path) -> None:
    a = folder / "a.sock"
    routed = "unix/a.sock {\n" + "".join(
        f"\tpython /{name}/* {{\n\t\tmodule_wsgi main:wsgi\n\t\tworking_dir {name}\n\t\tworkers 1\n\t}}\n"
        for name in ("one", "two")
    )
    with daemon(folder, site("a.sock", "one")) as process:
        assert version(a) == "1"
        reload(process, folder, routed + "}\n")
        assert get("/one/x", path=a)[1].startswith(b"1 ")
        assert get("/two/x", path=a)[1].startswith(b"2 ")
        assert get("/three", path=a)[0] == 404
        reload(process, folder, site("a.sock", "two"), 2)
        assert version(a) == "2"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (site("a.sock", "one", "wrokers 2"), "wrokers"),
        (site("a.sock", "nowhere"), "nowhere"),
        (site("a.sock", "one") + site("/proc/b.sock", "two"), "/proc/b.sock"),
        (site("a.sock", "two", "env_var BREAK 1"), "no database"),
    ],
    ids=["a wrong word", "no such folder", "a socket that cannot be", "the only app does not start"],
)
def test_what_is_wrong_changes_nothing(folder: Path, text: str, why: str) -> None:
    broken = 'import os\nif "BREAK" in os.environ: raise LookupError("no database")\n'
    (folder / "two" / "main.py").write_text(app("2", broken))
    with daemon(folder, site("a.sock", "one")) as process:
        before = workers(process.pid)

        async def work() -> None:
            async with Load(folder / "a.sock", 10) as load:
                (folder / "Caddyfile").write_text(text)
                process.popen.send_signal(signal.SIGHUP)
                await asyncio.to_thread(process.wait_for_log, "reload refused")
                await load.more(100)
            assert load.failures == []

        asyncio.run(work())
        assert why in process.log
        assert not (folder / "b.sock").exists()
        settle(process, 1)
        assert workers(process.pid) == before


def test_what_is_preloaded_is_imported_again(folder: Path) -> None:
    one = folder / "one"
    (one / "common.py").write_text("VERSION = '1'\n")
    (one / "main.py").write_text(app("1").replace("VERSION = '1'", "from common import VERSION"))
    with daemon(folder, site("a.sock", "one", "preload common", "autoreload")) as process:
        assert version(folder / "a.sock") == "1"
        (one / "common.py").write_text("VERSION = '22'\n")
        process.wait_for_log("app reloaded")
        assert version(folder / "a.sock") == "22"
        (one / "common.py").write_text("VERSION = '333'\n")
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log('"reloaded"')
        assert version(folder / "a.sock") == "333"
        settle(process, 1)
        eventually(lambda: len(below(process.pid, b"worker/bootstrap.py")) <= 1, process)
