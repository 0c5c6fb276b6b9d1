"""One app gets new workers, or goes, by its name; or those alone whose definition has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.daemon import get
from support.house import run, until
from support.load import app
from support.serving import composition, serving

from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.supervisor.app_changes import Manner
from caddysnake.daemon.supervisor.supervisor import Supervisor
from caddysnake.daemon.tenants.lookup import UnknownApp

TWO = """
unix/a.sock {
	python {
		module_wsgi main:wsgi
		working_dir one
		workers 1
		autoreload
	}
}
unix/b.sock {
	python {
		module_wsgi main:wsgi
		working_dir two
		workers 1
	}
}
"""
ONE, OTHER = "one/main:wsgi", "two/main:wsgi"

TENANTS = """
unix/a.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
		env_file env
	}
}
"""
TEMPLATE = "main:wsgi"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "ann.test", "ben.test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(app("1"))
        (tmp_path / name / "env").write_text("A=1\n")
    return tmp_path


async def ask(path: str, host: str = "x") -> str:
    """The version that answers."""
    status, body = await asyncio.to_thread(get, "/", path=path, Host=host)
    assert status == 200, body
    return body.split()[0].decode()


def pids(served: Supervisor) -> dict[str, set[int]]:
    return {each.name: {worker.pid for worker in each.pool.ready} for each in served.running.served_apps()}


def test_an_app_is_reloaded_alone(folder: Path) -> None:
    async def work() -> None:
        async with serving(composition(folder, TWO)) as served:
            before = pids(served)
            (folder / "two" / "main.py").write_text(app("2"))
            assert await served.reload_app(OTHER) > 0
            assert (await ask("a.sock"), await ask("b.sock")) == ("1", "2")
            after = pids(served)
            assert after[ONE] == before[ONE]
            assert after[OTHER] != before[OTHER]
            builds = served.running.apps[OTHER].builds
            assert builds.running is not None
            assert builds.running.number == 2
            assert builds.refused is None

    run(work())


def test_an_app_that_does_not_start_goes_on_and_says_which_build_was_refused(folder: Path) -> None:
    async def work() -> None:
        async with serving(composition(folder, TWO)) as served:
            before = pids(served)
            (folder / "two" / "main.py").write_text(app("2", "raise LookupError('no database')\n"))
            for _ in range(2):
                with pytest.raises(StartFailed, match="no database"):
                    await served.reload_app(OTHER)
            assert await ask("b.sock") == "1"
            assert pids(served) == before
            builds = served.running.apps[OTHER].builds
            assert builds.running is not None
            assert builds.running.number == 1
            assert builds.refused is not None
            assert (builds.refused.number, builds.refused.tries, builds.refused.code) == (3, 2, "import-failed")
            assert "LookupError: no database" in builds.refused.text
            assert builds.running.since < builds.refused.since < builds.refused.at
            (folder / "two" / "main.py").write_text(app("3"))
            await served.reload_app(OTHER)
            assert builds.refused is None
            assert await ask("b.sock") == "3"

    run(work())


def test_only_what_has_changed_gets_new_workers_when_that_is_wanted(folder: Path) -> None:
    async def work() -> None:
        async with serving(composition(folder, TWO)) as served:
            before = pids(served)
            await served.change(composition(folder, TWO), Manner(changed_only=True))
            assert pids(served) == before
            await served.change(
                composition(folder, TWO.replace("two", "two\n\t\tthreads 3")), Manner(changed_only=True)
            )
            after = pids(served)
            assert after[ONE] == before[ONE]
            assert after[OTHER] != before[OTHER]
            await served.change(composition(folder, TWO))
            assert pids(served)[ONE] != before[ONE]

    run(work())


def test_relays_stay_when_their_routes_do(folder: Path) -> None:
    routed = "unix/a.sock {\n" + "".join(
        f"\tpython /{name}* {{\n\t\tmodule_wsgi main:wsgi\n\t\tworking_dir {name}\n\t\tworkers 1\n\t}}\n"
        for name in ("one", "two")
    )

    async def work() -> None:
        async with serving(composition(folder, routed + "}\n")) as served:
            relays = served.running.relays.pool
            changed = routed.replace("/one\n", "/one\n\t\tthreads 3\n") + "}\n"
            await served.change(composition(folder, changed), Manner(changed_only=True))
            assert served.running.relays.pool is relays
            swapped = routed.replace("working_dir one", "working_dir X").replace("dir two", "dir one")
            await served.change(
                composition(folder, swapped.replace("dir X", "dir two") + "}\n"), Manner(changed_only=True)
            )
            assert served.running.relays.pool is not relays
            (folder / "two" / "main.py").write_text(app("2"))
            await served.reload_app(OTHER)
            status, body = await asyncio.to_thread(get, "/one", path="a.sock")
            assert (status, body.split()[0]) == (200, b"2")

    run(work())


def test_a_dynamic_app_is_reloaded_and_evicted_by_its_key(folder: Path) -> None:
    async def work() -> None:
        async with serving(composition(folder, TENANTS)) as served:
            assert (await ask("a.sock", "ann.test"), await ask("a.sock", "ben.test")) == ("1", "1")
            before = pids(served)
            ann, ben = "ann.test main:wsgi", "ben.test main:wsgi"
            (folder / "ann.test" / "main.py").write_text(app("2"))
            await served.reload_app(TEMPLATE, "ann.test")
            assert (await ask("a.sock", "ann.test"), await ask("a.sock", "ben.test")) == ("2", "1")
            after = pids(served)
            assert after[ben] == before[ben]
            (folder / "ann.test" / "main.py").write_text(app("3", "raise LookupError('no database')\n"))
            with pytest.raises(StartFailed, match="no database"):
                await served.reload_app(ann)
            assert await ask("a.sock", "ann.test") == "2"
            refused = served.running.templates[TEMPLATE].apps["ann.test"].builds.refused
            assert refused is not None
            assert "no database" in refused.text
            await served.evict(TEMPLATE, "ben.test")
            assert not pids(served).get(ben)
            assert await ask("a.sock", "ben.test") == "1"
            with pytest.raises(UnknownApp, match="does not run"):
                await served.reload_app(TEMPLATE, "zoe.test")

    run(work())


def test_tenants_that_run_what_they_should_stay_when_only_changes_are_wanted(folder: Path) -> None:
    async def work() -> None:
        async with serving(composition(folder, TENANTS)) as served:
            assert (await ask("a.sock", "ann.test"), await ask("a.sock", "ben.test")) == ("1", "1")
            before = pids(served)
            (folder / "ben.test" / "env").write_text("A=2\n")
            await served.change(composition(folder, TENANTS), Manner(changed_only=True))
            ben = "ben.test main:wsgi"
            await until(lambda: pids(served).get(ben) not in (before[ben], None), "the renewal")
            ann = "ann.test main:wsgi"
            assert pids(served)[ann] == before[ann]

    run(work())


@pytest.mark.parametrize(
    ("name", "key", "why"),
    [
        ("one/main:wsg", None, "Did you mean 'one/main:wsgi'"),
        ("blog", None, "There is: one/main:wsgi, two/main:wsgi"),
        ("blog", "ann.test", "There is: none"),
    ],
)
def test_an_app_that_is_not_there_is_told(folder: Path, name: str, key: str | None, why: str) -> None:
    async def work() -> None:
        async with serving(composition(folder, TWO)) as served:
            with pytest.raises(UnknownApp, match=why):
                await served.reload_app(name, key)
            with pytest.raises(UnknownApp, match=why):
                await served.evict(name, key)
            with pytest.raises(UnknownApp, match="not a dynamic app"):
                await served.evict(ONE)

    run(work())


def test_a_reload_may_bring_the_first_template_where_no_relay_ran(folder: Path) -> None:
    async def work() -> None:
        async with serving(composition(folder, TWO)) as served:
            assert not served.running.relays.is_wanted
            await served.change(composition(folder, TWO + TENANTS.replace("a.sock", "c.sock")))
            assert (await ask("a.sock"), await ask("c.sock", "ann.test")) == ("1", "1")

    run(work())
