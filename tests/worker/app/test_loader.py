"""Finding the app, and saying what was searched when it is not there."""

from __future__ import annotations

import functools
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from caddysnake.channel.settings import Settings
from caddysnake.worker.app.interface import told_by_inspection
from caddysnake.worker.app.loader import AppError, foreign_traceback, load

_names = (f"loaded_{number}" for number in count())

SOURCE = """
class Site:
    def app(self, environ, start_response):
        return []

site = Site()
number = 7

def app(environ, start_response):
    return []

def make_app():
    return app

def make_number():
    return 7

def broken():
    raise LookupError("no database")

def create_app(config=None, *, debug=False, **more):
    return app

def lenient(environ=None, start_response=None):
    return []

def decorated(*args, **kwargs):
    return app(*args, **kwargs)

class Application:
    def __init__(self, settings="production"):
        pass

    def __call__(self, environ, start_response):
        return []

class PerRequest:
    def __init__(self, environ, start_response):
        pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported and has not been."""
    name = next(_names)
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def loading(module: str, variable: str) -> Any:
    return load(Settings("test", "wsgi", module, variable, "/srv/app", {}))


def refused(module: str, variable: str) -> AppError:
    with pytest.raises(AppError) as caught:
        loading(module, variable)
    return caught.value


@pytest.mark.parametrize("variable", ["app", "site.app", "make_app()", "Site.app"])
def test_a_variable_an_attribute_path_and_a_factory_are_found(module: str, variable: str) -> None:
    assert callable(loading(module, variable))


@pytest.mark.parametrize("variable", ["make_app", "create_app", "Application"])
def test_a_factory_that_is_not_called_is_refused_with_what_to_write(module: str, variable: str) -> None:
    error = refused(module, variable)
    assert error.code == "import-failed"
    assert f"write `{module}:{variable}()`" in str(error)
    assert callable(loading(module, f"{variable}()"))


@pytest.mark.parametrize("variable", ["lenient", "decorated", "PerRequest"])
def test_what_may_take_a_request_is_an_app(module: str, variable: str) -> None:
    assert callable(loading(module, variable))


def test_a_module_in_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(_names)
    (tmp_path / name).mkdir()
    (tmp_path / name / "wsgi.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    assert callable(loading(f"{name}.wsgi", "app"))


@pytest.mark.parametrize(
    "variable", ["", "1app", "app;import os", "make_app(1)", "a..b", "app ", "app()()", "a b", "app\n"]
)
def test_what_is_no_name_is_refused_before_anything_is_imported(variable: str) -> None:
    error = refused("never_imported", variable)
    assert error.code == "import-failed"
    assert repr(variable) in str(error)


def test_a_missing_attribute_is_told_with_the_nearest_name_and_the_file(module: str, tmp_path: Path) -> None:
    error = refused(module, "make_ap")
    assert error.code == "import-failed"
    assert f"{module} has no attribute 'make_ap'; did you mean 'make_app'?" in str(error)
    assert str(tmp_path) in str(error)


def test_a_missing_attribute_deep_in_a_path_is_told_with_its_holder(module: str) -> None:
    assert f"{module}.site has no attribute 'nothing'" in str(refused(module, "site.nothing"))


def test_a_missing_module_is_told_with_all_that_was_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    error = refused("no_such_module", "app")
    assert error.code == "no-such-app"
    text = str(error)
    assert "no module named 'no_such_module'" in text
    assert "Working directory: /srv/app" in text
    assert f"  {tmp_path}\n" in text
    assert "Interpreter: " in text


def test_a_module_missing_inside_a_package_is_told_by_the_part_that_is_missing(module: str) -> None:
    error = refused(f"{module}.wsgi", "app")
    assert error.code == "no-such-app"
    assert f"no module named '{module}.wsgi'" in str(error)


def test_a_module_that_the_app_itself_misses_is_the_apps_traceback(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text("import json\nimport a_library_not_installed\n")
    error = refused(module, "app")
    assert error.code == "import-failed"
    assert "No module named 'a_library_not_installed'" in str(error)
    assert f'{module}.py", line 2' in str(error)


RAISING = {
    "an_exception": ("raise ValueError('no luck')", "ValueError: no luck"),
    "an_interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "the_end_of_a_generator": ("raise GeneratorExit", "GeneratorExit"),
    "an_exit": ("import sys; sys.exit(3)", "called sys.exit(3)"),
    "a_syntax_error": ("def f(:\n", "SyntaxError"),
    "a_null_byte": ("x = '\0'", "null byte"),
    "a_recursion": ("def f(): f()\nf()", "RecursionError"),
    "an_exception_that_cannot_be_shown": (
        "class Bad(Exception):\n    def __str__(self): raise TypeError\nraise Bad",
        "Bad",
    ),
}


@pytest.mark.parametrize(("source", "expected"), RAISING.values(), ids=RAISING)
def test_whatever_an_import_raises_is_told(module: str, tmp_path: Path, source: str, expected: str) -> None:
    (tmp_path / f"{module}.py").write_text(source)
    error = refused(module, "app")
    assert error.code == "import-failed"
    assert expected in str(error)


def test_a_traceback_holds_the_apps_frames_only(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text("def inner():\n    raise ValueError('x')\ninner()\n")
    text = str(refused(module, "app"))
    files = [line for line in text.splitlines() if line.startswith("  File")]
    assert [line.split('"')[1] for line in files] == [str(tmp_path / f"{module}.py")] * 2
    assert "importlib" not in text


def test_a_factory_that_raises_is_told_with_its_traceback(module: str) -> None:
    error = refused(module, "broken()")
    assert error.code == "import-failed"
    assert "LookupError: no database" in str(error)
    assert "loader.py" not in str(error)


@pytest.mark.parametrize("variable", ["number", "make_number()", "number()"])
def test_what_cannot_be_called_is_told_with_its_type(module: str, variable: str) -> None:
    error = refused(module, variable)
    assert error.code == "import-failed"
    assert "'int'" in str(error)


def test_a_traceback_of_nothing_but_ours_is_still_told() -> None:
    assert "ValueError: x" in foreign_traceback(ValueError("x"))


# -- which interface ------------------------------------------------------------------------------------------


async def coroutine(scope: Any, receive: Any, send: Any) -> None: ...


def plain(environ: Any, start_response: Any) -> list[bytes]:
    return []


def with_defaults(environ: Any, start_response: Any, exc_info: Any = None) -> list[bytes]:
    return []


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class WsgiClass:
    """PEP 3333 shows this form: the instance is the iterable."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...


def asgi_without_async(scope: Any, receive: Any, send: Any) -> Any:
    return coroutine(scope, receive, send)


@pytest.mark.parametrize(
    "app",
    [coroutine, Asgi(), Asgi().method, asgi_without_async, functools.partial(coroutine),
     functools.partial(asgi_without_async)],
)  # fmt: skip
def test_an_asgi_app_is_told_by_inspection(app: Any) -> None:
    assert told_by_inspection(app) == "asgi"


@pytest.mark.parametrize(
    "app", [plain, with_defaults, Wsgi(), Wsgi().method, WsgiClass, functools.partial(plain), dict]
)
def test_a_wsgi_app_is_told_by_inspection(app: Any) -> None:
    assert told_by_inspection(app) == "wsgi"
