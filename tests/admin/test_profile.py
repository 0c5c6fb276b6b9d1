"""A profile of workers that run, ordered as an operator does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support.admin import Answer, call, command, socket_of
from support.daemon import Process, UnixHTTPConnection, daemon, eventually, get, workers
from support.pythons import another_version, install_runtime, make_venv

pytestmark = pytest.mark.system

APP = """
import asyncio, ctypes, os, time
from urllib.parse import parse_qsl

def burn(seconds):
    open("burns", "w").close()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not os.path.exists("over"):
        looks = min(end, time.monotonic() + 0.2)  # seldom: it gives way to others
        while time.monotonic() < looks:
            sum(range(50))

def doze(seconds):
    time.sleep(seconds)

def hold(seconds):
    open("held", "w").close()
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # and keeps the GIL

async def wait_for_others(seconds):
    await asyncio.sleep(seconds)

def wsgi(environ, start_response):
    for name, seconds in parse_qsl(environ["QUERY_STRING"]):
        globals()[name](float(seconds))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    for name, seconds in parse_qsl(scope["query_string"].decode()):
        done = globals()[name](float(seconds))
        if done is not None:
            await done
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
BLOCK = "unix/{name}.sock {{\n\tpython {{\n\t\tmodule_{kind} {name}:{kind}\n\t\tworking_dir {name}\n{more}\t}}\n}}\n"


def block(folder: Path, name: str, kind: str, *more: str) -> str:
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(APP)
    return BLOCK.format(name=name, kind=kind, more="".join(f"\t\t{line}\n" for line in more))


@contextlib.contextmanager
def busy(path: Path, target: str) -> Iterator[None]:
    """Somebody asks for ``target`` again and again. What burns ends at the end: one request can last all the time, so
    that no time of it is counted for what came before, or after.
    """
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            with contextlib.suppress(OSError):
                get(target, path=path)

    asking = threading.Thread(target=ask)
    asking.start()
    folder = path.with_suffix("")
    try:
        if "burn" in target:
            eventually((folder / "burns").exists, "what burns")
        yield
    finally:
        is_over.set()
        (folder / "over").touch()
        asking.join()


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def share(collapsed: str, function: str) -> float:
    """How much of all was spent in, or below, ``function``."""
    counts = [(stack, int(took)) for stack, _, took in (line.rpartition(" ") for line in collapsed.splitlines())]
    return sum(took for stack, took in counts if f"{function} (" in stack) / sum(took for _, took in counts)


@pytest.mark.parametrize("kind", ["wsgi", "asgi", "asgi native", "wsgi threads", "asgi threads"])
def test_a_profile_names_the_function_that_burns(tmp_path: Path, kind: str) -> None:
    interface = kind.split(maxsplit=1)[0]
    more = ["workers 2"]
    if kind == "asgi native":
        more.append("runtime native")
    if "threads" in kind:
        more.append("workers_runtime thread")
    text = block(tmp_path, "hot", interface, *more) + block(tmp_path, "cold", interface, *more)
    with daemon(tmp_path, text) as process:
        process.wait_for_log("admin API ready")
        with busy(tmp_path / "hot.sock", "/?burn=60"), busy(tmp_path / "cold.sock", "/?doze=0.05"):
            done = command(process, tmp_path, "profile", f"hot:{interface}", "--seconds", "1", "-o", "hot.txt")
        assert done.returncode == 0, done.stderr
        assert f"hot.txt: hot:{interface}, 2 workers" in done.stderr
        assert share((tmp_path / "hot.txt").read_text(), "burn") > 0.9
        assert "doze" not in (tmp_path / "hot.txt").read_text(), "threads of another app"


def test_each_form_has_the_functions_names_in_it(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "shop", "asgi", "workers 1")) as process:
        process.wait_for_log("admin API ready")
        (pid,) = workers(process.pid)
        with busy(tmp_path / "shop.sock", "/?burn=0.05&wait_for_others=0.3"):
            for name in ("out.html", "out.json"):
                done = command(process, tmp_path, "profile", str(pid), "--seconds", "0.8", "-o", name)
                assert done.returncode == 0, done.stderr
            shown = command(process, tmp_path, "profile", "shop:asgi", "--seconds", "0.5")
        page = (tmp_path / "out.html").read_text()
        assert re.search(r"<button title=[^>]*>burn</button>", page)
        assert "<!--" not in page
        told = json.loads((tmp_path / "out.json").read_text())
        names = [frame["name"] for frame in told["shared"]["frames"]]
        processor, wall = told["profiles"]
        assert sum(processor["weights"]) == processor["endValue"] > 0
        waited = sum(
            weight
            for sample, weight in zip(wall["samples"], wall["weights"], strict=True)
            if "wait_for_others" in [names[number] for number in sample]
        )
        assert waited > 100_000
        assert shown.stdout.startswith("shop:asgi, 1 worker, 0.5 s: 0."), shown.stdout
        assert re.search(r"^ +\d+\.\d %  burn \(shop/shop\.py:\d+\)$", shown.stdout, re.M), shown.stdout


@pytest.mark.timeout(120)
def test_a_worker_that_cannot_tell_is_told_of_and_costs_the_others_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "shop", "wsgi", "workers 2", "threads 2")) as process:
        process.wait_for_log("admin API ready")
        with ThreadPoolExecutor(1) as pool:

            def begun(seconds: float) -> Future[Answer]:
                """A profile that is under way in both workers."""
                eventually(lambda: call(process, "GET", "/apps/shop:wsgi").json["workers_ready"] == 2, "both")
                before = {pid: threads(pid) for pid in workers(process.pid)}
                target = f"/apps/shop:wsgi/profile?seconds={seconds}&format=txt"
                profile = pool.submit(call, process, "POST", target)
                eventually(lambda: all(threads(pid) > before[pid] for pid in before), "the threads that look")
                return profile

            profile = begun(1.5)
            first = min(workers(process.pid))
            os.kill(first, signal.SIGKILL)
            seen = profile.result().json
            assert seen["workers"] == 1
            assert [f"pid {first}" in each and "ended" in each for each in seen["warnings"]] == [True]

            profile = begun(60)
            call(process, "POST", "/apps/shop:wsgi/reload")
            seen = profile.result().json
            assert seen["workers"] == 2
            assert len([each for each in seen["warnings"] if "it was replaced, or left, after " in each]) == 2

        # One whose C code keeps the GIL.
        asking = threading.Thread(target=get, args=("/?hold=7",), kwargs={"path": tmp_path / "shop.sock"})
        asking.start()
        eventually((tmp_path / "shop" / "held").exists, "the call of C")
        answer = call(process, "POST", "/apps/shop:wsgi/profile?seconds=0.5&format=txt").json
        asking.join()
        told = " ".join(answer.get("warnings", [])) + answer.get("error", "")
        assert "its stacks are in the log" in told
        process.wait_for_log("in hold")
        eventually(
            lambda: call(process, "POST", "/apps/shop:wsgi/profile?seconds=0.2").json.get("workers") == 2, "a profile"
        )


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/apps/sho:wsgi/profile", 404, "no-such-app"),
        ("/workers/1/profile", 404, "no-such-worker"),
        ("/workers/x/profile", 400, "bad-request"),
        ("/apps/shop:wsgi/profile?seconds=0", 400, "bad-request"),
        ("/apps/shop:wsgi/profile?seconds=nan", 400, "bad-request"),
        ("/apps/shop:wsgi/profile?seconds=1e9", 400, "bad-request"),
        ("/apps/shop:wsgi/profile?format=pdf", 400, "bad-request"),
    ],
)
def test_what_cannot_be_profiled_is_refused(one: Process, target: str, status: int, code: str) -> None:
    answer = call(one, "POST", target)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["hint"]


def test_the_command_says_what_to_write_instead(one: Process, tmp_path: Path) -> None:
    for words, said in (
        (["sho:wsgi"], "Did you mean 'shop:wsgi'?"),
        (["shop:wsgi", "-o", "x.pdf"], "end it in .html, .json, .txt"),
        (["shop:wsgi", "-o", "none/x.txt"], "no such folder"),
        (["shop:wsgi", "--seconds", "-1"], "no time to look"),
    ):
        done = command(one, tmp_path, "profile", "--config", str(one.log_path.parent / "Caddyfile"), *words)
        assert done.returncode == 1
        assert said in done.stderr


def test_who_does_not_wait_for_a_profile_holds_up_no_other(one: Process) -> None:
    path = "/apps/shop:wsgi/profile?seconds=300"
    connection = UnixHTTPConnection(socket_of(one))
    connection.request("POST", path)
    again = path.replace("300", "1")
    eventually(lambda: call(one, "POST", again).json.get("code") == "busy", "one that is under way")
    connection.close()
    eventually(lambda: call(one, "POST", "/apps/shop:wsgi/profile?seconds=0.2").status == 200, "another")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("one")
    with daemon(folder, block(folder, "shop", "wsgi", "workers 1")) as process:
        process.wait_for_log("admin API ready")
        yield process


def test_a_tenant_may_be_called_by_its_host(tmp_path: Path) -> None:
    (tmp_path / "ann.test").mkdir()
    (tmp_path / "ann.test" / "shop.py").write_text(APP)
    text = BLOCK.format(name="shop", kind="wsgi", more="").replace("working_dir shop", "working_dir {host}")
    with daemon(tmp_path, text) as process:
        process.wait_for_log("admin API ready")
        assert get("/", path=tmp_path / "shop.sock", Host="ann.test")[0] == 200
        seen = call(process, "POST", "/apps/ann.test/profile?seconds=0.2&format=wall").json
        assert (seen["name"], seen["warnings"]) == ("ann.test shop:wsgi", [])
        waited_us = sum(int(line.rpartition(" ")[2]) for line in seen["content"].splitlines())
        assert waited_us < 100_000, "threads that wait for requests"
        assert call(process, "POST", "/apps/ben.test/profile?seconds=0.2").json["code"] == "no-such-app"


def test_an_app_of_another_python_is_profiled_too(tmp_path: Path) -> None:
    python = another_version()
    make_venv(python, tmp_path / "venv")
    install_runtime(python, tmp_path / "runtime")
    text = block(tmp_path, "shop", "wsgi", "workers 1", f"venv {tmp_path}/venv")
    with daemon(tmp_path, text, environ={"CADDYSNAKE_RUNTIME_DIR": str(tmp_path / "runtime")}) as process:
        process.wait_for_log("admin API ready")
        with busy(tmp_path / "shop.sock", "/?burn=60"):
            seen = call(process, "POST", "/apps/shop:wsgi/profile?seconds=0.5&format=txt").json
        assert share(seen["content"], "burn") > 0.9
