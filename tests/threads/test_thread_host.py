"""Workers that are threads: several apps in one process, each with its own code, directory and channel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.hosted import Hosted, pids, threads, write
from support.house import run, until
from support.probe import exchange


def test_apps_that_do_not_collide_share_one_process(tmp_path: Path) -> None:
    async def work() -> None:
        async with Hosted() as house:
            blog = await house.started(threads(write(tmp_path, "blog", "wsgi", "b'blog'"), "wsgi"))
            shop = await house.started(threads(write(tmp_path, "shop", "asgi", "b'shop'"), "asgi"))
            assert len(set(pids(blog, shop))) == 1
            assert await house.ask(blog) == (200, b"blog")
            assert await house.ask(shop) == (200, b"shop")

    run(work())


def test_two_apps_with_modules_of_one_name_each_get_their_own(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            for name in ("one", "two"):
                more = "import config\ndef later():\n    import late\n    return late.NAME\n"
                body = "(config.NAME + later()).encode()"
                write(tmp_path, name, interface, body, more, config=f"NAME = {name!r}", late=f"NAME = {name!r}")
            one = await house.started(threads(tmp_path / "one", interface))
            two = await house.started(threads(tmp_path / "two", interface))
            assert len(set(pids(one, two))) == 2
            assert await house.ask(one) == (200, b"oneone")
            assert await house.ask(two) == (200, b"twotwo")

    run(work())


def test_an_optional_module_that_only_another_app_has_is_not_found(tmp_path: Path, interface: str) -> None:
    optional = "try:\n    from local_settings import NAME\nexcept ImportError:\n    NAME = 'none'\n"

    async def work() -> None:
        async with Hosted() as house:
            has = write(tmp_path, "has", interface, "NAME.encode()", optional, local_settings="NAME = 'secret'")
            lacks = write(tmp_path, "lacks", interface, "NAME.encode()", optional)
            first = await house.started(threads(has, interface))
            second = await house.started(threads(lacks, interface))
            assert await house.ask(first) == (200, b"secret")
            assert await house.ask(second) == (200, b"none")

    run(work())


def test_each_app_has_a_working_directory_of_its_own_also_in_threads_that_it_starts(
    tmp_path: Path, interface: str
) -> None:
    more = """
def cwd():
    found = []
    thread = threading.Thread(target=lambda: found.append(os.getcwd()))
    thread.start()
    thread.join()
    return " ".join([*found, os.getcwd(), open("name").read()])
"""

    async def work() -> None:
        async with Hosted() as house:
            apps = []
            for name in ("one", "two"):
                home = write(tmp_path, name, interface, "cwd().encode()", more)
                (home / "name").write_text(name)
                apps.append(await house.started(threads(home, interface)))
            assert len(set(pids(*apps))) == 1
            for app, name in zip(apps, ("one", "two"), strict=True):
                assert (await house.ask(app))[1].decode() == f"{tmp_path / name} {tmp_path / name} {name}"

    run(work())


@pytest.mark.parametrize("what", ["environ", "limits", "folder"])
def test_apps_that_differ_in_what_a_process_has_once_are_in_different_ones(tmp_path: Path, what: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            body = "os.environ.get('NAME', 'none').encode()"
            one = await house.started(threads(write(tmp_path, "one", "wsgi", body), "wsgi"))
            home = tmp_path / "one" / "two" if what == "folder" else tmp_path / "two"
            write(home.parent, "two", "wsgi", body)
            differ: dict[str, Any] = {"environ": {"environ": {"NAME": "two"}}, "limits": {"limits": {"niceness": 1}}}
            two = await house.started(threads(home, "wsgi", **differ.get(what, {})))
            assert len(set(pids(one, two))) == 2
            assert await house.ask(one) == (200, b"none")
            assert await house.ask(two) == (200, b"two" if what == "environ" else b"none")

    run(work())


@pytest.mark.parametrize(
    "change", ["os.environ.setdefault('SETTINGS', __name__)", "import sys; sys.path.insert(0, '/nowhere')"]
)
def test_an_app_that_changes_the_process_when_it_is_imported_gets_one_of_its_own(tmp_path: Path, change: str) -> None:
    body = "(os.environ.get('SETTINGS', '-') + str('/nowhere' in __import__('sys').path)).encode()"

    async def work() -> None:
        async with Hosted() as house:
            one = await house.started(threads(write(tmp_path, "one", "wsgi", body), "wsgi"))
            two = await house.started(threads(write(tmp_path, "two", "wsgi", body, change), "wsgi"))
            three = await house.started(threads(write(tmp_path, "three", "wsgi", body), "wsgi"))
            assert len(set(pids(one, two, three))) == 2
            assert pids(one) == pids(three)
            assert await house.ask(one) == (200, b"-False")
            assert await house.ask(two) in [(200, b"twoFalse"), (200, b"-True")]

    run(work())


@pytest.mark.parametrize(
    "change", ["os.environ['SETTINGS'] = __name__", "import sys; sys.path.insert(0, HOME + '/lib')"]
)
def test_an_app_that_is_imported_meanwhile_is_not_taken_for_the_one_that_changed_the_process(
    tmp_path: Path, change: str
) -> None:
    body = "(os.environ.get('SETTINGS', '-') + str(HOME + '/lib' in __import__('sys').path)).encode()"
    home = "import time; HOME = os.path.dirname(__file__)"

    async def work() -> None:
        async with Hosted() as house:
            quick, slow = f"{home}; time.sleep(1)", f"{home}; {change}; time.sleep(2)"
            one = await house.started(threads(write(tmp_path, "one", "wsgi", body, home), "wsgi"))
            two, three = await asyncio.gather(
                house.started(threads(write(tmp_path, "two", "wsgi", body, slow), "wsgi")),
                house.started(threads(write(tmp_path, "three", "wsgi", body, quick), "wsgi")),
            )
            assert pids(one) == pids(three) != pids(two)
            assert await house.ask(two) in [(200, b"twoFalse"), (200, b"-True")]
            assert await house.ask(three) == (200, b"-False")

    run(work())


@pytest.mark.parametrize("workers", [1, 2])
def test_an_app_that_a_library_does_not_take_in_beside_another_gets_a_process_of_its_own(
    tmp_path: Path, workers: int
) -> None:
    """What prometheus-client has counted under a name stays, and nobody else may use that."""
    counts = "import prometheus_client; prometheus_client.Counter('orders', 'Orders.')"

    async def work() -> None:
        async with Hosted() as house:
            one, two = [
                await house.started(
                    threads(write(tmp_path, name, "wsgi", f"b'{name}'", counts), "wsgi", workers=workers)
                )
                for name in ("one", "two")
            ]
            assert len(set(pids(one, two))) == 2
            for _ in range(3):
                await one.prepare(one.spec)
                one.swap()
                await until(lambda: len(one.pools()) == 1, "the end of the old generation")
            assert await house.ask(one) == (200, b"one")
            assert await house.ask(two) == (200, b"two")

    run(work())


def test_groups_of_threads_share_one_import(tmp_path: Path, interface: str) -> None:
    count = "COUNT = globals().get('COUNT', 0) + 1\nopen('imports', 'a').write('x')\n"

    async def work() -> None:
        async with Hosted() as house:
            home = write(tmp_path, "one", interface, "b'%d' % id(app)", count)
            app = await house.started(threads(home, interface, workers=3))
            assert len(set(pids(app))) == 1
            assert len(app.pool.ready) == 3
            answers = {(await house.ask(app))[1] for _ in range(12)}
            assert len(answers) == 1
            await until(lambda: all(worker.gauges.requests() for worker in app.pool.ready), "work for each")
            assert (home / "imports").read_text() == "x"

    run(work())


def test_a_host_leaves_with_its_last_worker(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            one = await house.started(threads(write(tmp_path, "one", interface, "b'1'"), interface))
            two = await house.started(threads(write(tmp_path, "two", interface, "b'2'"), interface))
            (host,) = house.hosts
            one.stop()
            await one.ended()
            assert await house.ask(two) == (200, b"2")
            two.stop()
            await two.ended()
            await until(lambda: not house.hosts, "the end of the host")
            assert host.status == 0

    run(work())


def test_code_that_does_not_import_leaves_nothing_behind(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            body = "str([name for name in __import__('sys').modules if name in ('bad', 'part')]).encode()"
            good = await house.started(threads(write(tmp_path, "good", interface, body), interface))
            home = write(tmp_path, "bad", interface, "b'2'", "import part\n1/0\n", part="")
            bad = house.app(threads(home, interface))
            with pytest.raises(Exception, match="ZeroDivisionError") as raised:
                await bad.start()
            assert "thread_host" not in str(raised.value)
            await bad.ended()
            assert await house.ask(good) == (200, b"[]")
            write(tmp_path, "bad", interface, "part.NAME", "import part\n", part="NAME = b'mended'")
            mended = await house.started(threads(home, interface))
            assert pids(mended) == pids(good)
            assert await house.ask(mended) == (200, b"mended")

    run(work())


def test_a_host_that_is_killed_costs_idle_connections_nothing_and_comes_back(tmp_path: Path, interface: str) -> None:
    async def work() -> None:
        async with Hosted() as house:
            apps = [
                await house.started(threads(write(tmp_path, n, interface, "b'x'"), interface)) for n in ("a1", "b1")
            ]
            (host,) = house.hosts
            clients = [(app, house.connect(app)) for app in apps]
            for _, client in clients:
                assert (await asyncio.to_thread(exchange, client, "/"))[0] == 200
            await house.all_idle()
            host.kill()
            for _, client in clients:
                assert await asyncio.to_thread(exchange, client, "/") == (200, b"x")
            assert all(host.pid not in pids(app) for app in apps)
            assert len(set(pids(*apps))) == 1

    run(work())
