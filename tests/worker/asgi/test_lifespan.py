"""Lifespan: the state machine with apps of every temper, and a real worker around it."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import eventually
from support.rawhttp import RawClient
from support.worker import Failed, ForkServer, Worker, running, settings
from worker.asgi import lifespan_apps as apps

from caddysnake.channel import vitals
from caddysnake.channel.endpoint import ChannelClosed
from caddysnake.channel.messages import PROTOCOL_VERSION, Configure, Drained
from caddysnake.channel.settings import seal
from caddysnake.worker.asgi.lifespan import TRANSITIONS, Lifespan, LifespanError, LifespanPhase

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def started(app: Any, mode: str = "auto") -> Lifespan:
    """The lifespan of ``app`` after its startup, with the loop over: nothing of it goes on."""

    async def run() -> Lifespan:
        lifespan = Lifespan(app, mode)
        try:
            await lifespan.startup()
        finally:
            await lifespan._end(0)
        return lifespan

    return asyncio.run(run())


def stopped(app: Any, timeout_s: float = 20) -> Lifespan:
    async def run() -> Lifespan:
        lifespan = Lifespan(app, "auto")
        await lifespan.startup()
        try:
            await lifespan.shutdown(timeout_s)
        finally:
            assert len(asyncio.all_tasks()) == 1
        return lifespan

    return asyncio.run(run())


def test_an_app_that_knows_the_protocol_is_started_and_stopped() -> None:
    lifespan = stopped(apps.stateful)
    assert lifespan.phase is LifespanPhase.STOPPED
    assert lifespan.state == {"pool": "open"}
    assert Path("shut_down").exists()


@pytest.mark.parametrize("app", [apps.unaware, apps.returns_at_once])
def test_an_app_that_does_not_know_it_runs_without_one(app: Any) -> None:
    assert not started(app).is_supported
    assert stopped(app).phase is LifespanPhase.UNSUPPORTED


@pytest.mark.parametrize("app", [apps.unaware, apps.returns_at_once, apps.raises_in_startup])
def test_with_lifespan_on_such_an_app_does_not_start(app: Any) -> None:
    with pytest.raises(LifespanError, match="did not answer"):
        started(app, "on")


def test_with_lifespan_off_the_app_is_not_even_asked() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    assert not started(app, "off").is_supported


def test_the_apps_own_words_are_the_reason() -> None:
    with pytest.raises(LifespanError, match=r"no database at db\.example"):
        started(apps.says_failed)


def test_a_traceback_is_the_reason_when_there_are_no_words() -> None:
    with pytest.raises(LifespanError, match="ConnectionError: no database") as caught:
        started(apps.raises_in_startup, "on")
    assert "lifespan_apps.py" in str(caught.value)
    assert "asgi/lifespan.py" not in str(caught.value)


def test_an_app_that_raises_in_its_startup_is_told_about_but_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert not started(apps.raises_in_startup).is_supported
    told = capsys.readouterr().err
    assert "runs without one" in told
    assert "ConnectionError" in told


def test_an_app_cannot_end_the_process_from_its_lifespan() -> None:
    assert not started(apps.exits_in_startup).is_supported


def test_a_message_out_of_turn_is_the_apps_error() -> None:
    with pytest.raises(LifespanError, match="cannot be sent while the lifespan is starting"):
        started(apps.sends_nonsense, "on")


def test_a_shutdown_that_hangs_is_given_up() -> None:
    before = time.monotonic()
    with pytest.raises(LifespanError, match=r"did not end within 0\.05s"):
        stopped(apps.hangs_in_shutdown, 0.05)
    assert time.monotonic() - before < 10


def test_a_shutdown_that_raises_is_reported() -> None:
    with pytest.raises(LifespanError, match="the pool was gone"):
        stopped(apps.raises_in_shutdown)


def test_an_app_may_leave_after_its_startup() -> None:
    assert stopped(apps.leaves_after_startup).phase is LifespanPhase.STOPPING


def test_each_phase_in_which_the_app_is_asked_has_a_yes_and_a_no() -> None:
    for phase in (LifespanPhase.STARTING, LifespanPhase.STOPPING):
        assert len([1 for asked, _ in TRANSITIONS if asked is phase]) == 2


# In a worker


@pytest.fixture
def fork_server() -> Iterator[ForkServer]:
    fork_server = ForkServer()
    yield fork_server
    fork_server.close()


def test_a_request_sees_a_copy_of_the_state(tmp_path: Path) -> None:
    wanted = settings("lifespan_apps:stateful", "asgi", tmp_path, environ={"PYTHONPATH": str(HERE)})
    with running(wanted) as worker:
        with RawClient(worker.connect()) as client:
            for _ in range(2):
                assert client.get("/").body == b"{'pool': 'open', 'mine': 'not seen by the next request'}"
        worker.drop_duplicates()
        worker.drain()
        while worker.message() != Drained():
            pass
        assert (tmp_path / "shut_down").exists()


def test_without_a_lifespan_there_is_no_state() -> None:
    with running(settings("lifespan_apps:unaware", "asgi", HERE)) as worker:
        with RawClient(worker.connect()) as client:
            assert client.get("/").body == b"'none'"
        worker.drop_duplicates()


@pytest.mark.parametrize(
    ("app", "mode", "reason"),
    [("says_failed", "auto", "no database at db.example"), ("raises_in_startup", "on", "ConnectionError: no database")],
)
def test_a_worker_whose_app_does_not_start_says_why_and_leaves(
    fork_server: ForkServer, app: str, mode: str, reason: str
) -> None:
    worker = Worker(fork_server, settings(f"lifespan_apps:{app}", "asgi", HERE, lifespan=mode))
    assert isinstance(worker.ready, Failed)
    assert worker.ready.code == "lifespan-failed"
    assert reason in worker.ready.text
    with pytest.raises(ChannelClosed):
        worker.message()
    worker.close()


def test_a_worker_that_hangs_in_its_startup_leaves_with_the_daemon(fork_server: ForkServer, tmp_path: Path) -> None:
    endpoint, pid = fork_server.fork()
    page, sealed = vitals.create("test"), seal(
        settings("lifespan_apps:hangs_in_startup", "asgi", tmp_path, environ={"PYTHONPATH": str(HERE)})
    )
    assert endpoint.hand_over(Configure(PROTOCOL_VERSION), [sealed, page])
    os.close(page)
    os.close(sealed)
    eventually((tmp_path / "hanging").exists)
    process = os.pidfd_open(pid)
    endpoint.close()
    assert select.select([process], [], [], 20)[0]
    os.close(process)
