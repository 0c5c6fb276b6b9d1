"""A new build gets its share of the requests beside the old one, is judged, and takes over or is returned."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from support.house import run, until
from support.load import Load, app
from support.serving import composition, serving

from caddysnake.daemon.apps.spec import StartFailed
from caddysnake.daemon.supervisor.app_changes import AS_USUAL, Manner, Outcome
from caddysnake.daemon.supervisor.desired import Desired
from caddysnake.daemon.supervisor.supervisor import Supervisor

SITE = """
unix/a.sock {
	python {
		module_KIND main:KIND
		working_dir code
		workers 2
		grace_period 2s
		canary {
			share 20%
			for 1s
			min_requests 20
		}
		MORE
	}
}
"""
NAME = "main:wsgi"
SICK = """
import itertools, threading
COUNT = itertools.count()

def sick():
    if next(COUNT) % 4 == 3:
        raise LookupError("no such table: shop")
"""


def site(kind: str = "wsgi", *more: str) -> str:
    return SITE.replace("KIND", kind).replace("MORE", "\n\t\t".join(more))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    write(tmp_path, "1")
    return tmp_path


def write(folder: Path, version: str, first: str = "", inside: str = "") -> None:
    begin = "def answer(method, body):\n"
    source = app(version, first).replace(begin, f"{begin}    {inside or 'pass'}\n")
    (folder / "code" / "main.py").write_text(source)


async def changed(served: Supervisor, folder: Path, text: str, manner: Manner = AS_USUAL) -> Outcome:
    (outcome,) = await served.change(composition(folder, text), manner)
    return await outcome.judged()


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_good_build_has_its_share_and_then_all(folder: Path, kind: str) -> None:
    async def work() -> None:
        async with serving(composition(folder, site(kind))) as served, Load(folder / "a.sock", 8) as load:
            await load.more(50)
            load.versions.clear()
            write(folder, "2")
            outcome = await changed(served, folder, site(kind))
            assert (outcome.result, outcome.failure) == ("reloaded", None)
            share = load.versions["2"] / sum(load.versions.values())
            assert 0.1 < share < 0.35, load.versions
            await load.until("2")
            assert load.failures == []
            builds = served.running.apps[f"main:{kind}"].builds
            assert builds.verdicts == {"promoted": 1}
            assert builds.running is not None
            assert builds.running.number == 2

    run(work())


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_sick_build_is_returned_and_no_more_than_its_share_has_seen_it(folder: Path, kind: str) -> None:
    async def work() -> None:
        async with serving(composition(folder, site(kind))) as served, Load(folder / "a.sock", 6) as load:
            await load.more(50)
            load.versions.clear()
            load.done = 0
            write(folder, "2", SICK, "sick()")
            outcome = await changed(served, folder, site(kind))
            assert outcome.result == "refused"
            told = str(outcome.failure)
            assert "of its requests failed" in told
            assert "new build: " in told
            sick = [each for each in load.failures if "500" in each]
            assert len(sick) == len(load.failures), "none but those that it answered"
            seen = load.versions["2"] + len(sick)
            assert seen <= 0.2 * (load.done + len(sick)) + 6 + 1
            await load.until("1")
            count = len(load.failures)
            await load.more(100)
            assert len(load.failures) == count
            each = served.running.apps[f"main:{kind}"]
            assert each.builds.verdicts == {"returned": 1}
            await until(lambda: len(each.pools()) == 1, "the end of the new workers")

    run(work())


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_build_that_uses_up_its_descriptors_is_returned_and_loses_nothing_that_it_was_given(
    folder: Path, kind: str
) -> None:
    async def work() -> None:
        text = site(kind, "limits {", "open_files 100", "}")
        async with serving(composition(folder, text)) as served, Load(folder / "a.sock", 6) as load:
            await load.more(50)
            write(folder, "2", "LEAK = []\n", "LEAK.extend(open('/dev/null') for _ in range(8))")
            assert (await changed(served, folder, text)).result == "refused"
            assert all("500" in each for each in load.failures), load.failures
            await load.until("1")

    run(work())


def test_a_build_that_does_not_answer_is_returned(folder: Path) -> None:
    async def work() -> None:
        text = site().replace("for 1s", "for 20s")
        async with serving(composition(folder, text)) as served, Load(folder / "a.sock", 6) as load:
            await load.more(50)
            write(folder, "2", "", "time.sleep(100)")
            outcome = await changed(served, folder, text)
            assert "of its requests got no answer" in str(outcome.failure)
            await load.until("1")

    run(work())


@pytest.mark.parametrize(
    "line", ["workers_runtime thread", "reload_strategy rolling", "max_requests 40 10", "log", "workers 1 3"]
)
def test_it_gets_along_with_what_else_moves_workers(folder: Path, line: str) -> None:
    text = site("asgi", line)
    text = text.replace("workers 2\n", "") if line.startswith("workers ") else text

    async def work() -> None:
        async with serving(composition(folder, text)) as served, Load(folder / "a.sock", 6) as load:
            await load.more(50)
            write(folder, "2")
            outcome = await changed(served, folder, text)
            assert (outcome.result, outcome.failure) == ("reloaded", None)
            await load.until("2")
            if line.startswith("max_requests"):
                return  # a worker that is replaced later runs what is on disk by then
            write(folder, "3", SICK, "sick()")
            assert (await changed(served, folder, text)).result == "refused"
            await load.until("2")  # the new build's last answers may still be on their way
            count = len(load.failures)
            assert all("500" in each for each in load.failures), load.failures
            await load.more(100)
            assert len(load.failures) == count

    run(work())


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_one_connection_changes_sides_between_its_requests(folder: Path, kind: str) -> None:
    """Also one that asks again as soon as it is answered, and so is hardly ever idle."""
    text = site(kind).replace("for 1s", "for 2s")
    seen: Counter[bytes] = Counter()

    def ask(over: threading.Event) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "a.sock"))
            client.settimeout(30)
            while not over.is_set():
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                data = client.recv(4096)
                while b"\r\n\r\n" not in data or data.endswith(b"\r\n\r\n"):
                    data += client.recv(4096)
                assert data.startswith(b"HTTP/1.1 200")
                seen[data.partition(b"\r\n\r\n")[2].split()[0]] += 1

    async def work() -> None:
        write(folder, "1", "import time", "time.sleep(0.005)")
        over = threading.Event()
        async with serving(composition(folder, text)) as served:
            asking = asyncio.create_task(asyncio.to_thread(ask, over))
            try:
                await until(lambda: seen[b"1"] > 20, "requests")
                write(folder, "2", "import time", "time.sleep(0.005)")
                seen.clear()
                await changed(served, folder, text)
                total = sum(seen.values())
                assert 0.1 * total < seen[b"2"] < 0.3 * total + 2, seen
            finally:
                over.set()
                await asking

    run(work())


def relayed(folder: Path) -> Desired:
    block = site().split("{", 1)[1].rsplit("}", 1)[0]
    other = "python {\n module_wsgi other:wsgi\n working_dir code\n workers 1\n }\n"
    (folder / "code" / "other.py").write_text(app("9"))
    return composition(folder, f"unix/r.sock {{\n handle /p {{\n {block} }}\n handle /q {{\n {other} }}\n }}\n")


def test_behind_a_relay_the_share_is_of_requests(folder: Path) -> None:
    async def work() -> None:
        wanted = relayed(folder)
        async with serving(wanted) as served, Load(folder / "r.sock", 6) as load:
            await load.more(50)
            write(folder, "2")
            begun = await served.change(wanted)
            load.versions.clear()
            outcomes = [await each.judged() for each in begun]
            assert {each.result for each in outcomes} == {"reloaded"}
            share = load.versions["2"] / sum(load.versions.values())
            assert 0.1 < share < 0.35, load.versions
            await load.until("2")
            assert load.failures == []

    run(work())


def test_what_a_worker_takes_with_it_behind_a_relay_is_its_builds(folder: Path) -> None:
    async def work() -> None:
        wanted = relayed(folder)
        async with serving(wanted) as served, Load(folder / "r.sock", 6) as load:
            await load.more(50)
            write(folder, "2", "import itertools, os\nCOUNT = itertools.count()\n", "next(COUNT) < 9 or os._exit(3)")
            begun = await served.change(wanted)
            outcomes = {each.app: await each.judged() for each in begun}
            (told,) = [str(each.failure) for each in outcomes.values() if each.failure is not None]
            _, _, new = told.partition("new build: ")
            assert int(new.split()[2]) > 0, told
            await load.until("1")

    run(work())


@pytest.mark.parametrize("is_by_name", [True, False])
def test_an_app_of_a_template_is_tried_by_itself(folder: Path, is_by_name: bool) -> None:
    async def work() -> None:
        wanted = site().replace("working_dir code", "working_dir {host}")
        path = folder / "a.sock"
        async with serving(composition(folder, wanted)) as served, Load(path, 6, host="code") as load:
            await load.more(50)

            async def again() -> None:
                if is_by_name:
                    await served.reload_app("code main:wsgi")
                    return
                await served.change(composition(folder, wanted))
                builds = served.running.templates["main:wsgi"].apps["code"].builds
                before = builds.verdicts.total()
                await until(lambda: builds.verdicts.total() > before, "the verdict")
                if builds.refused is not None:
                    raise StartFailed("code", builds.refused.code, builds.refused.text)

            load.versions.clear()
            write(folder, "2")
            await again()
            assert 20 <= load.versions["2"] < 0.35 * sum(load.versions.values()), load.versions
            await load.until("2")
            assert load.failures == []
            write(folder, "3", SICK, "sick()")
            with pytest.raises(StartFailed, match="of its requests failed"):
                await again()
            assert all("500" in each for each in load.failures), load.failures
            await load.until("2")

    run(work())


def test_too_little_traffic_says_so_and_the_warm_up_decides(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with serving(composition(folder, site())) as served:
            write(folder, "2")
            assert (await changed(served, folder, site())).result == "reloaded"

    caplog.set_level("INFO")
    run(work())
    told = [str(getattr(record, "fields", {})) for record in caplog.records if "promoted" in record.message]
    assert "only 0 of 20 requests came in 1s: its warm-up has decided" in told[0]


def test_a_second_reload_ends_the_trial_of_the_first_and_a_promotion_does_not_wait(folder: Path) -> None:
    async def work() -> None:
        long = site().replace("for 1s", "for 10m")
        async with serving(composition(folder, long)) as served, Load(folder / "a.sock", 4) as load:
            write(folder, "2")
            (first,) = await served.change(composition(folder, long))
            write(folder, "3")
            (second,) = await served.change(composition(folder, long))
            returned = await first.judged()
            assert (returned.result, "another build is to run" in str(returned.failure)) == ("refused", True)
            assert await served.promote(NAME)
            assert (await second.judged()).result == "reloaded"
            await load.until("3")
            assert load.failures == []
            assert not await served.promote(NAME)

    run(work())


def test_a_worker_that_is_killed_meanwhile_ends_no_trial_and_one_by_hand_does(folder: Path) -> None:
    async def work() -> None:
        long = site().replace("for 1s", "for 10m")
        async with serving(composition(folder, long)) as served:
            write(folder, "2")
            (outcome,) = await served.change(composition(folder, long))
            each = served.running.apps[NAME]
            trial = each.deploys.trial
            assert trial is not None
            os.kill(trial.pool.ready[0].pid, signal.SIGKILL)
            await until(lambda: trial.pool.core.restarts == 1 and trial.pool.ready, "another in its place")
            assert each.deploys.trial is trial
            assert served.roll_back(NAME) == 1
            assert "rolled back" in str((await outcome.judged()).failure)
            assert each.deploys.trial is None

    run(work())


def test_who_cancels_has_it_returned(folder: Path) -> None:
    async def work() -> None:
        long = site().replace("for 1s", "for 10m")
        async with serving(composition(folder, long)) as served:
            (outcome,) = await served.change(composition(folder, long))
            assert served.cancel_change()
            assert "cancelled" in str((await outcome.judged()).failure)
            asked = asyncio.create_task(served.reload_app(NAME))
            await until(lambda: served.running.apps[NAME].deploys.trial, "the trial")
            assert served.cancel_change(NAME)
            with pytest.raises(StartFailed, match="cancelled"):
                await asked
            assert not served.cancel_change()

    run(work())


def test_whether_it_is_tried_may_be_said_with_the_reload_and_autoreload_is_not(folder: Path) -> None:
    async def work() -> None:
        async with serving(composition(folder, site("wsgi", "autoreload"))) as served:
            write(folder, "2")
            outcome = await changed(served, folder, site("wsgi", "autoreload"), Manner(canary=False))
            assert outcome.trial is None
            write(folder, "3")
            await until(lambda: served.running.apps[NAME].builds.times_accepted == 3, "the change")
            assert served.running.apps[NAME].builds.verdicts == {}

    run(work())


# -- the build before ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_the_build_before_takes_over_again_within_a_moment(folder: Path, kind: str) -> None:
    async def work() -> None:
        before_canary, _, rest = site(kind, "keep_previous 1m").partition("canary {")
        kept = before_canary + rest.partition("}")[2]
        name = f"main:{kind}"
        async with serving(composition(folder, kept)) as served, Load(folder / "a.sock", 8) as load:
            await load.more(50)
            each = served.running.apps[name]
            before = {worker.pid for worker in each.pool.ready}
            write(folder, "2")
            await served.change(composition(folder, kept))
            await load.until("2")
            shelf = each.deploys.shelf
            assert shelf.pool is not None
            assert {worker.pid for worker in shelf.pool.ready} == before
            pool = shelf.pool
            await until(lambda: not any(worker.slots.connections for worker in pool.ready), "no connection left")
            began = time.monotonic()
            load.versions.clear()
            assert served.roll_back(name) == 1
            await until(lambda: load.versions["1"], "the first old answer")
            print(f"{kind}: the first old answer after {(time.monotonic() - began) * 1000:.0f} ms")
            await load.until("1")
            assert load.failures == []
            assert {worker.pid for worker in each.pool.ready} == before
            assert each.builds.running is not None
            assert (each.builds.running.number, each.builds.refused is not None) == (1, True)
            assert served.roll_back(name) is None
            write(folder, "3")
            await served.change(composition(folder, kept))
            await load.until("3")

    run(work())


def test_a_kept_build_goes_when_its_time_is_over_and_a_refused_one_never_becomes_it(folder: Path) -> None:
    async def work() -> None:
        text = site("wsgi", "keep_previous 1s")
        async with serving(composition(folder, text)) as served:
            write(folder, "2")
            await served.change(composition(folder, text), Manner(canary=False))
            each = served.running.apps[NAME]
            assert each.deploys.shelf.build == 1
            write(folder, "3", "raise LookupError('no')\n")
            with pytest.raises(StartFailed):
                await served.change(composition(folder, text), Manner(canary=False))
            assert each.deploys.shelf.build == 1
            await until(lambda: each.deploys.shelf.pool is None, "the end of its time")
            await until(lambda: len(each.pools()) == 1, "the end of its workers")

    run(work())


def test_of_the_build_before_a_worker_that_fails_is_told_and_the_last_one_is_replaced(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        text = site("wsgi", "keep_previous 1m")
        async with serving(composition(folder, text)) as served:
            write(folder, "2")
            await served.change(composition(folder, text), Manner(canary=False))
            each = served.running.apps[NAME]
            assert served.roll_back(NAME) == 1
            os.kill(each.pool.ready[0].pid, signal.SIGKILL)
            await until(lambda: len(each.pool.ready) == 1, "the first to be gone")
            await until(lambda: "none takes its place" in caplog.text, "that it is told")
            os.kill(each.pool.ready[0].pid, signal.SIGKILL)
            await until(lambda: "it is started again" in caplog.text, "another")

    run(work())
