"""``from caddysnake import cache``: the Go plugin's calls, to the letter, on a real server."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.daemon import eventually

from caddysnake.daemon.commands.store import find_server

FILE = Path(__file__).parents[2] / "caddysnake" / "public" / "caddysnake.py"


def module() -> ModuleType:
    """The module as a worker has it."""
    spec = importlib.util.spec_from_file_location("public_caddysnake", FILE)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class Server:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.sock"
        server = find_server({"PATH": "/nonexistent"})
        assert server is not None, "the extra `store` is installed"
        words = ["--port", "0", "--unixsocket", str(self.path), "--save", "", "--dir", str(folder)]
        self.process = subprocess.Popen([server, *words], stdout=subprocess.DEVNULL)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server(tmp_path)
    monkeypatch.setenv("CADDYSNAKE_STORE_URL", f"unix://{found.path}")
    yield found
    found.close()


@pytest.fixture
def ours(server: Server) -> Iterator[Any]:
    made = module()
    yield made
    link = getattr(made.cache._local, "link", None)
    if link is not None:
        link.close()


def test_values_are_what_the_plugin_has_them_to_be(ours: Any) -> None:
    cache = ours.cache
    assert cache.get("a") is None
    assert cache.set("a", "ä") is None
    assert cache.get(b"a") == "ä".encode()
    assert cache.set("a", b"\x00\xff", ttl=0) is None
    assert cache.get("a") == b"\x00\xff"
    assert cache.setnx("a", "no") is False
    assert cache.setnx("b", "yes", 60) is True
    assert cache.delete("b") == 1
    assert cache.delete("b") == 0
    assert cache.set("soon", "gone", ttl=1) is None
    assert cache.keys("s") == [b"soon"]
    for name in ("p*1", "p*2", "px", r"p\*"):
        cache.set(name, "")
    assert cache.keys("p*") == [b"p*1", b"p*2"], "a prefix, no pattern"
    assert cache.keys("p", limit=2) == [b"p*1", b"p*2"]
    eventually(lambda: cache.get("soon") is None)


def test_lists_are_what_the_plugin_has_them_to_be(ours: Any) -> None:
    cache = ours.cache
    cache.set("l", "first", ttl=60)
    assert cache.append("l", "second") is None
    cache.append("l", b"third")
    assert cache.get("l") == [b"first", b"second", b"third"]
    assert [cache.pop("l") for _ in range(4)] == [b"first", b"second", b"third", None]
    assert cache.get("l") == [], "an emptied list is one"
    assert cache.setnx("l", "x") is False
    assert (cache.delete("l"), cache.delete("l"), cache.get("l")) == (1, 0, None)
    cache.set("scalar", "x")
    cache.sadd("set", "x")
    assert (cache.pop("scalar"), cache.pop("set"), cache.pop("missing")) == (None, None, None)
    began = time.monotonic()
    assert cache.pop("missing", timeout=0.2) is None
    assert time.monotonic() - began >= 0.2
    later = threading.Timer(0.1, lambda: module().cache.append("late", "came"))
    later.start()
    assert cache.pop("late", timeout=60) == b"came"
    later.join()
    assert cache.get("late") == []
    cache.append(key="late", value="again")
    assert cache.get("late") == [b"again"]


def test_sets_are_what_the_plugin_has_them_to_be(ours: Any) -> None:
    cache = ours.cache
    assert cache.smembers("s") == []
    assert [cache.sadd("s", each) for each in ("b", "a", "b")] == [1, 1, 0]
    assert cache.smembers("s") == [b"a", b"b"]
    assert [cache.srem("s", each) for each in ("a", "a", "b")] == [1, 0, 1]
    assert cache.delete("s") == 0, "an empty one is none"


def test_messages_reach_who_waits_now(ours: Any) -> None:
    cache = ours.cache
    assert cache.publish("c", "nobody") == 0
    assert cache.subscribe("c", 0.1) is None
    got: list[Any] = []
    waiting = [threading.Thread(target=lambda: got.append(module().cache.subscribe("c", 60))) for _ in range(2)]
    for each in waiting:
        each.start()
    eventually(lambda: cache._call("PUBSUB", "NUMSUB", "c")[1] >= 2)
    assert cache.publish("c", "hello") == 2
    for each in waiting:
        each.join()
    assert got == [b"hello", b"hello"]


def test_every_call_has_a_twin_for_asyncio(ours: Any) -> None:
    async def use() -> list[Any]:
        cache = ours.cache
        await cache.aset("a", "1")
        await cache.aappend("l", "1")
        many = await asyncio.gather(*(cache.asetnx(f"n{number}", "1") for number in range(50)))
        return [await cache.aget("a"), await cache.apop("l"), await cache.asadd("s", "1"), await cache.asmembers("s"),
                await cache.asrem("s", "1"), await cache.akeys("a"), await cache.adelete("a"), all(many),
                await cache.apublish("c", "x"), await cache.asubscribe("c", 0.05)]  # fmt: skip

    assert asyncio.run(use()) == [b"1", b"1", 1, [b"1"], 1, [b"a"], 1, True, 0, None]


REFUSED: dict[str, Callable[[Any], Any]] = {
    "wrong type": lambda cache: cache.get("set"),
    "wrong type ": lambda cache: cache.append("set", "x"),
    "wrong type  ": lambda cache: cache.sadd("value", "x"),
    "a key has 1 to 8192 bytes, not 0": lambda cache: cache.get(""),
    "a key has 1 to 8192 bytes, not 8193": lambda cache: cache.get("x" * 8193),
    "a value has at most 1048576 bytes, not 1048577": lambda cache: cache.set("x", b"x" * 1048577),
    "pop: timeout must be from 0 to 300 seconds": lambda cache: cache.pop("x", 301),
    "subscribe: timeout must be more than 0 and up to 300 seconds": lambda cache: cache.subscribe("x", 0),
    "keys: limit must be 0, for all that there can be, or more": lambda cache: cache.keys("x", -1),
}


def test_what_cannot_be_done_is_a_cache_error_with_a_sentence(ours: Any) -> None:
    ours.cache.sadd("set", "x")
    ours.cache.set("value", "x")
    for text, call in REFUSED.items():
        with pytest.raises(ours.CacheError) as caught:
            call(ours.cache)
        assert str(caught.value) == text.strip()
    for call in (lambda: ours.cache.subscribe("x", 0), lambda: ours.cache.keys("")):
        with pytest.raises(ValueError, match=r"must be|1 to 8192"):  # as the plugin's client has it
            call()
    ours.cache.set("number", 1)
    assert ours.cache.get("number") == b"1"
    assert ours.cache.keys("value", 0) == [b"value"]
    assert ours.cache.get("value") == b"x", "the connection is as good as before"
    ours.cache._call("CONFIG", "SET", "maxmemory", "1")
    for call in (lambda: ours.cache.setnx("new", "x"), lambda: ours.cache.append("new", "x")):
        with pytest.raises(ours.CacheError, match="the store is full"):
            call()
    assert issubclass(ours.CacheConfigurationError, ours.CacheError)
    assert issubclass(ours.CacheError, RuntimeError)


def test_many_sets_in_a_row_are_confirmed_together_and_none_is_lost(ours: Any, server: Server) -> None:
    def fill(cache: Any) -> None:
        for number in range(1000):
            cache.set(f"key{number}", "x" * 100)

    thread = threading.Thread(target=lambda: fill(ours.cache))  # its connection ends with it
    thread.start()
    thread.join()
    eventually(lambda: len(ours.cache.keys("key")) >= 1000)
    ours.cache._call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(ours.CacheError, match="the store is full"):
        fill(ours.cache)
    ours.cache._call("CONFIG", "SET", "maxmemory", "0")
    fill(ours.cache)
    assert ours.cache.get("key7") == b"x" * 100
    fill(ours.cache)
    if ours.cache._local.link.unread:
        server.process.kill()
        with pytest.raises(ours.CacheError, match="cannot be reached"):
            ours.cache.get("key7")


def test_a_child_that_is_forked_has_a_connection_of_its_own(ours: Any) -> None:
    ours.cache.set("whose", "parent")
    child = os.fork()
    if child == 0:
        os._exit(0 if all(ours.cache.get("whose") == b"parent" for _ in range(500)) else 1)
    for number in range(500):
        ours.cache.set("number", str(number))
        assert ours.cache.get("number") == str(number).encode()
    assert os.waitpid(child, 0)[1] == 0


def test_a_store_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours: Any = module()
    monkeypatch.delenv("CADDYSNAKE_STORE_URL", raising=False)
    with pytest.raises(ours.CacheConfigurationError, match="write `cache` into"):
        ours.cache.get("x")
    ours._START_S = 0.2
    monkeypatch.setenv("CADDYSNAKE_STORE_URL", f"unix://{tmp_path}/absent.sock")
    for patience_s in (0.2, 0.0):
        began = time.monotonic()
        with pytest.raises(ours.CacheError, match="the store cannot be reached"):
            ours.cache.get("x")
        assert time.monotonic() - began >= patience_s
    monkeypatch.setenv("CADDYSNAKE_STORE_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(ours.CacheError, match="cannot be reached"):
        ours.cache.get("x")


def test_one_that_hangs_is_given_up(ours: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    ours.cache.set("x", "1")
    monkeypatch.setenv("CADDYSNAKE_CACHE_TIMEOUT", "0.2")
    ours.cache._local.link.close()
    ours.cache._local.link = None
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(ours.CacheError, match=r"did not answer within 0\.2 s"):
            ours.cache.get("x")
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert ours.cache.get("x") == b"1"


def test_workers_have_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    ours: Any = module()
    for text, number in (("3", 3), ("", None), ("x", None)):
        monkeypatch.setenv("CADDYSNAKE_WORKER_ID", text)
        assert ours.worker_id() == number
