from __future__ import annotations

import pytest

from caddysnake.daemon.workers.forking.ahead import for_interpreter
from caddysnake.daemon.workers.forking.interpreter import not_passed

APP = {
    "PATH": "/bin",
    "HOME": "/srv",
    "LANG": "C.UTF-8",
    "LC_ALL": "C",
    "TZ": "UTC",
    "TMPDIR": "/tmp",
    "PYTHONPATH": "/srv/secret-folder",
    "PYTHONSTARTUP": "/srv/x.py",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "MALLOC_ARENA_MAX": "2",
    "DATABASE_URL": "postgres://user:password@db/app",
    "SECRET_KEY": "hush",
    "LD_PRELOAD": "/srv/evil.so",
    "http_proxy": "http://user:password@proxy",
}


def test_an_interpreter_starts_with_what_it_only_reads_then_and_no_secret() -> None:
    assert for_interpreter(APP) == {
        "PATH": "/bin",
        "HOME": "/srv",
        "LANG": "C.UTF-8",
        "LC_ALL": "C",
        "TZ": "UTC",
        "TMPDIR": "/tmp",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "2",
    }


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONSTARTUP", "DATABASE_URL", "path", "NOTIFY_SOCKET", "XPYTHON"])
def test_what_is_the_apps_alone_does_not_reach_the_interpreter(name: str) -> None:
    assert name not in for_interpreter({**APP, name: "x"})


def test_a_traceback_tells_which_variable_was_not_passed() -> None:
    text = "Traceback …\nKeyError: 'DATABASE_URL'"
    assert not_passed({"DATABASE_URL": "x", "HOME": "/"}, {"HOME": "/"}, text) == ["DATABASE_URL"]


def test_a_variable_that_the_app_has_is_not_named() -> None:
    text = "KeyError: 'DATABASE_URL'"
    assert not_passed({"DATABASE_URL": "x"}, {"DATABASE_URL": "y"}, text) == []


def test_a_variable_that_is_only_part_of_a_word_is_not_named() -> None:
    assert not_passed({"URL": "x"}, {}, "KeyError: 'DATABASE_URL'") == []
