"""What all workers of an app share: the store that the daemon keeps up, and what finds it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, below, daemon, eventually, get
from support.rawhttp import RawClient

pytestmark = pytest.mark.system

APP = """
import json, os
from urllib.parse import parse_qs
from caddysnake import CacheError, cache, worker_id

def app(environ, start_response):
    asked = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    call, words = asked["call"][0], asked.get("word", [])
    try:
        if call == "environ":
            found = {name: value for name, value in os.environ.items() if "STORE" in name or name in ("REDIS_URL",)}
        elif call == "worker_id":
            found = [worker_id(), os.getpid()]
        elif call == "redis":
            import redis
            client = redis.Redis.from_url(os.environ["CADDYSNAKE_STORE_URL"])
            client.incr("by-redis")
            found = [client.get("by-redis"), cache.get("by-redis"), client.config_get("maxmemory")["maxmemory"]]
        elif call == "django":
            from django.conf import settings
            if not settings.configured:
                backend = "django.core.cache.backends.redis.RedisCache"
                place = os.environ["REDIS_URL"]
                settings.configure(CACHES={"default": {"BACKEND": backend, "LOCATION": place}})
            from django.core.cache import cache as djangos
            djangos.set("x", [1, 2])
            found = djangos.get("x")
        elif call == "flask_caching":
            import flask, flask_caching
            kept = flask_caching.Cache(config={"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": os.environ["REDIS_URL"]})
            with flask.Flask("x").app_context() as context:
                kept.init_app(context.app)
                kept.set("y", {"a": 1})
                found = kept.get("y")
        elif call == "channels":
            import asyncio
            from channels_redis.core import RedisChannelLayer
            async def talk():
                layers = [RedisChannelLayer(hosts=[os.environ["REDIS_URL"]]) for _ in range(2)]
                await layers[0].group_add("all", "one")
                await layers[1].group_send("all", {"type": "hello"})
                heard = await layers[0].receive("one")
                for each in layers:
                    await each.close_pools()
                return heard
            found = asyncio.run(talk())
        elif call == "celery":
            import tasks
            found = tasks.double.delay(21).get(timeout=60)
        else:
            found = getattr(cache, call)(*words)
    except CacheError as exc:
        found = {"error": str(exc)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(found, default=lambda raw: raw.decode("latin-1")).encode()]
"""


@contextlib.contextmanager
def running(folder: Path, *lines: str, environ: dict[str, str] | None = None) -> Iterator[tuple[Process, Path]]:
    (folder / "main.py").write_text(APP)
    text = "\n".join(lines)
    text = f"unix/{folder}/s.sock {{\npython {{\nmodule_wsgi main:app\nworkers 2\nthreads 1\n{text}\n}}\n}}\n"
    with daemon(folder, text, environ={"STATE_DIRECTORY": str(folder / "state"), **(environ or {})}) as process:
        yield process, folder / "s.sock"


def asked(path: Path, call: str, *words: str) -> object:
    status, body = get(f"/?call={call}" + "".join(f"&word={word}" for word in words), path=path)
    assert status == 200, body
    return json.loads(body)


def stores(process: Process) -> list[int]:
    """The processes that are stores."""
    return sorted(below(process.pid, b"valkey-server") | below(process.pid, b"redis-server"))


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_workers_share_it_and_it_outlives_reloads_and_a_kill(runtime: str, tmp_path: Path) -> None:
    lines = (f"workers_runtime {runtime}", "cache local {\nmax_size 32MB\nenv REDIS_URL\n}")
    with running(tmp_path, *lines) as (process, path):
        assert asked(path, "set", "key", "value") is None
        assert {json.dumps(asked(path, "get", "key")) for _ in range(8)} == {'"value"'}
        found = asked(path, "environ")
        assert isinstance(found, dict)
        url = found["CADDYSNAKE_STORE_URL"]
        assert found["REDIS_URL"] == url
        assert found["CADDYSNAKE_STORE_CELERY_URL"] == url.replace("unix://", "redis+socket://")
        socket_path = url.removeprefix("unix://")
        assert len(socket_path) < 100
        assert os.stat(socket_path).st_mode & 0o777 == 0o600
        assert asked(path, "redis") == ["1", "1", "32000000"]
        assert asked(path, "django") == [1, 2]
        (store,) = stores(process)
        command(process, tmp_path, "reload", check=True)
        assert stores(process) == [store]
        assert asked(path, "get", "key") == "value"
        os.kill(store, signal.SIGKILL)
        eventually(lambda: stores(process) not in ([], [store]), "another")
        assert asked(path, "get", "key") is None, "what was not kept is gone"
        assert asked(path, "set", "key", "again") is None
    assert not os.path.exists(socket_path)


TASKS = """
import os
from celery import Celery
from caddysnake import cache

url = os.environ["CADDYSNAKE_STORE_CELERY_URL"]
app = Celery("tasks", broker=url, backend=url)

@app.task
def double(number):
    cache.append("done", number)
    return number * 2
"""


def test_celery_flask_caching_and_channels_work_on_it(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    process = "process celery python -m celery -A tasks worker --pool solo --without-mingle --without-gossip"
    with running(tmp_path, "cache {\nenv REDIS_URL\n}", process) as (_, path):
        assert asked(path, "celery") == 42
        assert asked(path, "get", "done") == ["21"]
        assert asked(path, "flask_caching") == {"a": 1}
        assert asked(path, "channels") == {"type": "hello"}


def test_a_store_that_is_missing_or_too_old_is_said_at_once_and_the_app_serves(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    server = tmp_path / "bin" / "redis-server"
    server.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64'\n")
    server.chmod(0o755)
    environ = {"PATH": f"{tmp_path}/bin:/nonexistent"}
    for lines in (("cache",), ()):
        with running(tmp_path, *lines, environ=environ) as (process, path):
            said = asked(path, "set", "key", "value")
            assert isinstance(said, dict)
            assert said["error"].startswith(f"there is no store: {server} is of version 5.0.7, and 6.0 or later")
            assert asked(path, "worker_id")
            if lines:
                process.wait_for_log("is of version 5.0.7")
                server.write_text("#!/bin/sh\nif [ -n \"$2\" ]; then exit 3; fi\necho 'Valkey server v=9.0.0 sha='\n")
                eventually(lambda: "does not start: exit status 3" in str(asked(path, "get", "key")), "what it is")
                server.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=00000000:0'\n")


def test_it_goes_on_over_an_upgrade_in_place(tmp_path: Path) -> None:
    with running(tmp_path, "cache") as (process, path):
        asked(path, "set", "key", "value")
        before = stores(process)
        command(process, tmp_path, "upgrade", check=True)
        assert asked(path, "get", "key") == "value"
        assert stores(process) == before


def test_what_persists_is_there_after_a_restart(tmp_path: Path) -> None:
    for round_, expected in (("first", None), ("second", "kept")):
        with running(tmp_path, "cache {\npersist on\n}") as (_, path):
            assert asked(path, "get", "key") == expected, round_
            asked(path, "set", "key", "kept")


def test_what_is_full_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path, "cache {\nmax_size 2MB\n}") as (process, path):
        said: list[object] = []
        for number in range(60):
            said.append(asked(path, "set", f"key{number}", "x" * 60_000))
        assert said[0] is None
        assert said[-1] == {"error": "the store is full: raise `max_size` of `cache`, or give values a time to live"}
        assert asked(path, "get", "key0") == "x" * 60_000

        def state() -> object:
            asked(path, "set", "more", "x" * 60_000)
            return call(process, "GET", "/apps").json["apps"][0]["processes"][0]["state"]

        eventually(lambda: state() == "full", "that it is shown")
        assert "the store is full, and refuses writes" in process.log
        assert " full " in command(process, tmp_path, "status").stdout
        assert b'caddysnake_processes{app="main:app",process="store",state="full"} 1.0' in call(
            process, "GET", "/metrics"
        ).body
        asked(path, "delete", "key1")
        eventually(lambda: " running " in command(process, tmp_path, "status").stdout, "that it is over")


def test_without_a_line_the_first_call_starts_one_that_stays(tmp_path: Path) -> None:
    with running(tmp_path) as (process, path):
        assert stores(process) == []
        assert asked(path, "set", "key", "value") is None
        assert {json.dumps(asked(path, "get", "key")) for _ in range(8)} == {'"value"'}
        before = stores(process)
        command(process, tmp_path, "reload", check=True)
        assert asked(path, "get", "key") == "value"
        command(process, tmp_path, "upgrade", check=True)
        command(process, tmp_path, "reload", check=True)
        assert asked(path, "get", "key") == "value"
        assert stores(process) == before


def test_without_a_store_an_app_serves_and_each_call_says_what_to_write(tmp_path: Path) -> None:
    with running(tmp_path, "workers_runtime thread") as (_, path):
        said = asked(path, "get", "key")
        assert isinstance(said, dict)
        assert "write `cache` into the app's python block" in said["error"]


def test_workers_have_numbers(tmp_path: Path) -> None:
    with running(tmp_path) as (_, path):
        found = [asked(path, "worker_id") for _ in range(20)]
        assert {each[0] for each in found if isinstance(each, list)} <= {0, 1}


ROUND = """
from caddysnake import cache, worker_id

def said():
    cache.setnx("called", "once")
    return str(worker_id()).encode()

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Length", "1")])
    return [said()]

async def asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
    await send({"type": "http.response.body", "body": said()})
"""


@pytest.mark.parametrize("lines", ["module_wsgi round:wsgi", "module_asgi round:asgi\nlifespan off\nlog\ncache"])
def test_one_kept_alive_connection_comes_round_to_all_workers(lines: str, tmp_path: Path) -> None:
    (tmp_path / "round.py").write_text(ROUND)
    text = f"unix/{tmp_path}/s.sock {{\npython {{\n{lines}\nworkers 3\n}}\n}}\n"
    with daemon(tmp_path, text, environ={"STATE_DIRECTORY": str(tmp_path / "state")}):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE_S)
        sock.connect(str(tmp_path / "s.sock"))
        with RawClient(sock) as client:
            found = set()
            deadline = time.monotonic() + PATIENCE_S
            while len(found) < 3:  # without a line `cache` from about a second after the first call
                assert time.monotonic() < deadline
                found.add(client.get("/").body)
        assert found == {b"0", b"1", b"2"}


def test_one_elsewhere_is_found_under_the_same_names(tmp_path: Path) -> None:
    with running(tmp_path, "cache redis://127.0.0.1:1/0 {\nenv REDIS_URL\n}") as (process, path):
        found = asked(path, "environ")
        assert found == dict.fromkeys(
            ("CADDYSNAKE_STORE_URL", "CADDYSNAKE_STORE_CELERY_URL", "REDIS_URL"), "redis://127.0.0.1:1/0"
        )
        assert stores(process) == []
