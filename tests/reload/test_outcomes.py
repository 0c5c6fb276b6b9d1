"""Several apps in one file: what becomes of each in a reload is its own affair."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.daemon import Process, daemon, eventually, get, python_site
from support.house import run, until
from support.load import Load, app
from support.serving import composition, serving

from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.supervisor.app_changes import Manner

OPTIONS = "{\n\tadmin unix/admin.sock\n}\n"
SICK = "raise LookupError('no database')\n"
LOCKED = """
import fcntl
LOCK = open(__file__ + ".lock", "w")
fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def site(name: str, *lines: str) -> str:
    return python_site(f"unix/{name}.sock", "module_wsgi main:wsgi", f"working_dir {name}", "workers 1", *lines)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path, name, "1")
    return tmp_path


def write(folder: Path, name: str, version: str, first: str = "") -> None:
    (folder / name / "main.py").write_text(app(version, first))


def version(folder: Path, name: str) -> str:
    status, body = get("/", path=folder / f"{name}.sock")
    return body.split()[0].decode() if status == 200 else str(status)


def command(process: Process, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "caddysnake", *arguments]
    environ = {"HOME": str(folder), "XDG_RUNTIME_DIR": process.runtime_dir, "PATH": ""}
    return subprocess.run(asked, check=False, cwd=folder, capture_output=True, text=True, env=environ, timeout=60)


def test_a_site_that_is_taken_away_is_told_since_caddys_file_may_still_name_it(folder: Path) -> None:
    with daemon(folder, OPTIONS + site("one") + site("two")) as process:
        (folder / "Caddyfile").write_text(OPTIONS + site("one"))
        done = command(process, folder, "reload")
        assert done.returncode == 0, done.stderr
        assert f"Warning: unix/{folder}/two.sock is closed. Where Caddy's file still names it" in done.stderr
        assert "one.sock is closed" not in done.stderr
        assert "is closed" in process.log
        assert "is closed" not in command(process, folder, "reload").stderr


def test_one_refused_app_keeps_its_build_and_refuses_nobody_elses(folder: Path) -> None:
    with daemon(folder, OPTIONS + site("one") + site("two")) as process:
        write(folder, "one", "2")
        write(folder, "two", "2", SICK)
        whole = command(process, folder, "reload", "--all-or-nothing")
        assert whole.returncode == 1
        assert "app two/main:wsgi does not start (import-failed)" in whole.stderr
        assert (version(folder, "one"), version(folder, "two")) == ("1", "1")
        done = command(process, folder, "reload")
        assert done.returncode == 1
        assert "Error: app two/main:wsgi does not start (import-failed); its old build keeps serving:" in done.stderr
        assert "LookupError: no database" in done.stderr
        assert "(2 apps) reloaded in" in done.stderr
        assert "but for two/main:wsgi" in done.stderr
        assert (version(folder, "one"), version(folder, "two")) == ("2", "1")
        apps = json.loads(command(process, folder, "status", "--json").stdout)["apps"]
        assert [(each["build"]["number"], each["refused"] is None) for each in apps] == [(2, True), (1, False)]
        write(folder, "two", "3")
        assert command(process, folder, "reload").returncode == 0
        assert (version(folder, "one"), version(folder, "two")) == ("2", "3")


def test_an_app_that_is_new_and_does_not_start_is_tried_again(folder: Path) -> None:
    write(folder, "two", "1", SICK)
    with daemon(folder, OPTIONS + site("one")) as process:
        (folder / "Caddyfile").write_text(OPTIONS + site("one") + site("two"))
        done = command(process, folder, "reload")
        assert done.returncode == 1
        assert "two/main:wsgi does not start (import-failed); nothing serves, and it is tried again:" in done.stderr
        assert version(folder, "two") == "503"
        write(folder, "two", "2")
        eventually(lambda: version(folder, "two") == "2", "another try")


def test_one_slow_app_holds_up_nobody_elses_new_build(folder: Path) -> None:
    async def work() -> None:
        wanted = composition(folder, site("one") + site("two"))
        async with serving(wanted) as served:
            write(folder, "one", "2")
            write(folder, "two", "2", "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n")
            change = asyncio.create_task(served.change(wanted, Manner(swaps_early=True)))
            await until(lambda: served.running.apps["one/main:wsgi"].builds.times_accepted == 2, "the quick one")
            assert not change.done()
            assert await asyncio.to_thread(version, folder, "one") == "2"
            assert await asyncio.to_thread(version, folder, "two") == "1"
            (folder / "two" / "go").touch()
            assert {each.result for each in await change} == {"reloaded"}

    run(work())


def test_a_reload_by_name_waits_for_nobody_elses(folder: Path) -> None:
    async def work() -> None:
        wanted = composition(folder, site("one") + site("two"))
        slow = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
        early = Manner(swaps_early=True)
        async with serving(wanted) as served:
            quick = served.running.apps["one/main:wsgi"].builds
            write(folder, "two", "2", slow)
            change = asyncio.create_task(served.change(wanted, early))
            await until(lambda: quick.times_accepted == 2, "the quick one")
            await served.reload_app("one/main:wsgi")
            assert (quick.times_accepted, change.done()) == (3, False)
            (folder / "two" / "go").touch()
            await change
            (folder / "two" / "go").unlink()

            write(folder, "two", "3", slow)
            alone = asyncio.create_task(served.reload_app("two/main:wsgi"))
            await until(lambda: served.running.apps["two/main:wsgi"].takeover.coming, "its start")
            await served.reload_app("one/main:wsgi")
            change = asyncio.create_task(served.change(wanted, early))
            await until(lambda: quick.times_accepted == 5, "the quick one of the file")
            assert [each.done() for each in (alone, change)] == [False, False]
            held = asyncio.create_task(served.hold_changes())
            (folder / "two" / "go").touch()
            await alone
            assert {each.result for each in await change} == {"reloaded"}
            await held
            after = asyncio.create_task(served.reload_app("one/main:wsgi"))
            await asyncio.sleep(0)
            assert quick.times_accepted == 5
            served.release_changes()
            await after
            assert await asyncio.to_thread(version, folder, "two") == "3"

    run(work())


def test_a_refused_app_that_loses_its_listener_refuses_the_file(folder: Path) -> None:
    """Its workers have connections on which requests for another app will come."""

    async def work() -> None:
        async with serving(composition(folder, site("one") + site("two"))) as served:
            write(folder, "one", "2", SICK)
            write(folder, "two", "2")
            swapped = site("one").replace("one.sock", "X.sock") + site("two").replace("two.sock", "one.sock")
            with pytest.raises(StartFailed, match="no database"):
                await served.change(composition(folder, swapped.replace("X.sock", "two.sock")))
            assert await asyncio.to_thread(version, folder, "one") == "1"
            assert await asyncio.to_thread(version, folder, "two") == "1"

    run(work())


def test_a_second_reload_of_the_same_file_waits_for_no_app_but_those_that_are_starting(folder: Path) -> None:
    with daemon(folder, OPTIONS + site("one") + site("two")) as process:
        write(folder, "one", "2", "import os, time\nwhile not os.path.exists('../go'): time.sleep(0.01)\n")
        with ThreadPoolExecutor() as pool:
            both = [pool.submit(command, process, folder, "reload")]
            eventually(lambda: process.log.count('"app ready"') == 3, "the other app")
            write(folder, "two", "2")
            both.append(pool.submit(command, process, folder, "reload"))
            eventually(lambda: version(folder, "two") == "2", "the other app's newest code")
            (folder / "Caddyfile").write_text(OPTIONS + site("one") + site("two", "threads 3"))
            write(folder, "two", "3")
            both.append(pool.submit(command, process, folder, "reload"))
            process.wait_for_log('"reloading, beside another reload"')
            assert not any(each.done() for each in both)
            assert (version(folder, "one"), version(folder, "two")) == ("1", "2")
            (folder / "go").touch()
            assert [each.result().returncode for each in both] == [0, 0, 0]
        assert (version(folder, "one"), version(folder, "two")) == ("2", "3")


# -- stop_first ------------------------------------------------------------------------------------------------


def test_what_only_one_build_can_hold_is_handed_on_and_requests_wait(folder: Path) -> None:
    async def work() -> None:
        write(folder, "one", "1", LOCKED)
        wanted = composition(folder, site("one", "reload_strategy stop_first"))
        async with serving(wanted) as served, Load(folder / "one.sock", 6) as load:
            await load.more(50)
            write(folder, "one", "2", LOCKED)
            (outcome,) = await served.change(wanted)
            assert outcome.result == "reloaded"
            assert await asyncio.to_thread(version, folder, "one") == "2"
            write(folder, "one", "3", LOCKED)
            await served.reload_app("main:wsgi")
            await load.more(50)
            assert await asyncio.to_thread(version, folder, "one") == "3"
            assert load.failures == []

    run(work())


def test_a_build_that_ended_first_comes_back_when_the_new_one_does_not_start(folder: Path) -> None:
    """By its own code, where it is still there: what ``current`` led to."""

    async def work() -> None:
        releases = folder / "one"
        for number, first in (("1", LOCKED.replace("__file__", "'../all'")), ("2", SICK)):
            (releases / number).mkdir()
            (releases / number / "main.py").write_text(app(number, first))
        (releases / "current").symlink_to("1")
        wanted = composition(folder, site("one", "reload_strategy stop_first").replace("dir one", "dir one/current"))
        async with serving(wanted) as served, Load(folder / "one.sock", 6) as load:
            (releases / "current").unlink()
            (releases / "current").symlink_to("2")
            with pytest.raises(StartFailed, match="no database"):
                await served.change(wanted)
            await load.more(50)
            assert await asyncio.to_thread(version, folder, "one") == "1"
            assert load.failures == []
            builds = served.running.apps["main:wsgi"].builds
            assert builds.running is not None
            assert builds.running.number == 1
            assert builds.refused is not None

    run(work())


def test_one_that_cannot_come_back_is_told_as_not_serving_and_tried_again(folder: Path) -> None:
    """Its code was overwritten in place."""
    with daemon(folder, OPTIONS + site("one", "reload_strategy stop_first")) as process:
        for arguments in ((), ("--all-or-nothing",), ("--app", "main:wsgi")):
            write(folder, "one", "2", SICK)
            done = command(process, folder, "reload", *arguments)
            assert done.returncode == 1
            assert "nothing of it serves, and it is" in done.stderr or "; nothing serves, and it is" in done.stderr
            assert "keeps serving" not in done.stderr
            assert version(folder, "one") == "503"
            write(folder, "one", "3", LOCKED)
            eventually(lambda: version(folder, "one") == "3", "another try")
