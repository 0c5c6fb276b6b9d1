"""Keys of the kernel: an app has those that it makes, and no others."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest
from support.daemon import daemon, get

from caddysnake import keyring

pytestmark = pytest.mark.system

NUMBER = keyring._NUMBERS.get(os.uname().machine, 0)
APP = f"""
import ctypes
libc = ctypes.CDLL(None)

def search(name):
    return libc.syscall({NUMBER}, 10, -3, b"user", name, 0) >= 0

def wsgi(environ, start_response):
    start_response("200 OK", [])
    word, name = environ["PATH_INFO"][1:].encode().split(b"-")
    if word == b"add":
        return [b"%d" % (libc.syscall({NUMBER - 2}, b"user", name, b"x", 1, -3) >= 0)]
    return [b"%d" % search(name)]
"""
SITES = """unix/a.sock {
	python {
		module_wsgi ann:wsgi
		workers 1
		threads 1
		RUNTIME
	}
}
unix/b.sock {
	python {
		module_wsgi ben:wsgi
		workers 1
		threads 1
		RUNTIME
	}
}
"""


def own_keys(name: bytes) -> bool:
    """The calling thread gets a session keyring with one key."""
    return keyring.join_own() and ctypes.CDLL(None).syscall(NUMBER - 2, b"user", name, b"x", 1, -3) >= 0


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_an_app_has_neither_the_keys_of_another_nor_those_of_the_daemon(tmp_path: Path, runtime: str) -> None:
    for name in ("ann", "ben"):
        (tmp_path / f"{name}.py").write_text(APP)
    found: list[object] = []

    def work() -> None:
        if not own_keys(b"daemons"):
            found.append("none")
            return
        with daemon(tmp_path, SITES.replace("RUNTIME", f"workers_runtime {runtime}")) as process:
            for target, name, told in (
                ("/search-daemons", "a", b"0"),
                ("/add-anns", "a", b"1"),
                ("/search-anns", "a", b"1"),
                ("/search-anns", "b", b"0"),
                ("/search-daemons", "b", b"0"),
            ):
                found.append((target, name, get(target, path=tmp_path / f"{name}.sock")[1], told))
            found.append(process.log)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if found == ["none"]:
        pytest.skip("no keyrings here")
    assert len(found) == 6, found
    for each in found[:5]:
        assert isinstance(each, tuple)
        assert each[2] == each[3], each


def test_where_there_are_no_keyrings_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "_NUMBERS", {})
    assert not keyring.join_own()
    monkeypatch.setattr(keyring, "_NUMBERS", {os.uname().machine: 100_000})  # which no kernel knows: ENOSYS
    assert not keyring.join_own()
