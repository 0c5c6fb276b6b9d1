"""The app that somebody names on a command line, as far as files tell: where it is, its Python, its variable.

Nothing of it is executed. Where a file does not say what it defines, the worker, which imports it, finds out.
"""

from __future__ import annotations

import ast
import glob
import os
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..channel.settings import APPS, FACTORIES

_SOURCE_MAX_BYTES = 4 * 1024 * 1024
_MODULES = ("main", "app", "wsgi", "asgi", "api", "server")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_FRAMEWORKS = {
    "asgi": (
        *("fastapi", "starlette", "quart", "litestar", "sanic", "falcon.asgi", "django.core.asgi", "channels"),
        *("nicegui", "blacksheep"),
    ),
    "wsgi": (
        *("flask", "bottle", "django.core.wsgi", "falcon", "pyramid", "werkzeug", "dash", "cherrypy", "webob"),
        "wsgiref",
    ),
}


class UnservableValue(ValueError):
    """Words that name no app, or cannot be written into a Caddyfile."""


class NamedApp(NamedTuple):
    """``name``: ``module:variable``. ``is_found``: the variable is a guess, which the worker may know better."""

    name: str
    is_found: bool
    working_dir: str | None
    interface: str | None
    """``wsgi`` or ``asgi``, as far as the file tells."""


class Venv(NamedTuple):
    """A virtual environment that nobody named, and what speaks for it."""

    path: str
    why: str


def found_in(folder: str) -> str:
    """The module that is called as an app's is, first a Django project's. Raises ``UnservableValue``."""
    django = sorted(glob.glob("*/[aw]sgi.py", root_dir=folder)) if os.path.exists(f"{folder}/manage.py") else []
    for file in (*reversed(django), *(f"{name}.py" for name in _MODULES)):
        if os.path.isfile(os.path.join(folder, file)):
            return file.removesuffix(".py").replace("/", ".")
    known = ", ".join(f"{name}.py" for name in _MODULES)
    raise UnservableValue(f"there is none of {known} in {os.path.abspath(folder)}: name the app, such as blog:app")


def named(word: str, working_dir: str | None) -> NamedApp:
    """The app that ``word`` names: ``module:variable``, ``module``, or its file. Raises ``UnservableValue``."""
    module, _, variable = word.partition(":")
    if module.endswith(".py"):
        folder, name = os.path.split(module)
        if folder and working_dir is not None:
            raise UnservableValue(f"{word}: with --working-dir name the module, such as {name.removesuffix('.py')}")
        parts = [] if name == "__init__.py" else [name.removesuffix(".py")]
        while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.basename(folder):
            folder, package = os.path.split(folder)  # what is in a package is imported as that
            parts.insert(0, package)
        module, working_dir = ".".join(parts), folder or working_dir
    if not module:
        raise UnservableValue(f"{word}: write MODULE or MODULE:VARIABLE, such as main:app")
    folder = working_dir or "."
    head, _, last = module.rpartition(".")
    if not variable and head and _file_of(module, folder) is None and _file_of(head, folder) is not None:
        raise UnservableValue(f"{word}: there is no such module; write {head}:{last}")
    body = _body(module, folder)
    found = variable or _variable(body) or APPS[0]
    return NamedApp(f"{module}:{found}", not variable, working_dir, _interface(body, found.partition("(")[0]))


def _body(module: str, folder: str) -> list[ast.stmt]:
    """What is in the file of ``module``; nothing where there is none, or it is not whole."""
    file = _file_of(module, folder)
    try:
        with open(file or os.devnull, "rb") as opened:
            return list(_flat(ast.parse(opened.read(_SOURCE_MAX_BYTES)).body))
    except (OSError, SyntaxError, ValueError):
        return []


def _file_of(module: str, folder: str) -> str | None:
    path = os.path.join(folder, *module.split("."))
    return next((file for file in (os.path.join(path, "__init__.py"), f"{path}.py") if os.path.isfile(file)), None)


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """With what stands in ``if``, ``try`` and ``with``."""
    for each in body:
        yield each
        if isinstance(each, ast.If | ast.Try | ast.With):
            yield from _flat(each.body)


def _variable(body: list[ast.stmt]) -> str | None:
    """The variable that is the app, or the call of a factory."""
    names = {name: each for each in body for name in _names(each)}
    for name in APPS:
        if name in names:
            each = names[name]
            is_factory = isinstance(each, ast.FunctionDef) and not _arguments(each)
            return f"{name}()" if is_factory else name
    return next((f"{name}()" for name in FACTORIES if name in names), None)


def _interface(body: list[ast.stmt], name: str) -> str | None:
    """Told by what it takes, else by the frameworks that its file imports."""
    for each in body:
        if name in _names(each):
            if isinstance(each, ast.AsyncFunctionDef | ast.ClassDef):
                return "asgi"
            if isinstance(each, ast.FunctionDef):
                inner = [inside for inside in ast.walk(each) if isinstance(inside, _FUNCTIONS)]
                taken = [_arguments(inside) for inside in inner]
                if any(names[:1] in (["environ"], ["env"]) for names in taken):
                    return "wsgi"
                if any(names[:1] == ["scope"] for names in taken):
                    return "asgi"
    for interface, frameworks in _FRAMEWORKS.items():
        if any(module == known or module.startswith(f"{known}.") for module in _imports(body) for known in frameworks):
            return interface
    return None


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Those without a default."""
    found = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    return found[: len(found) - len(function.args.defaults)]


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    for each in body:
        if isinstance(each, ast.Import):
            yield from (found.name for found in each.names)
        elif isinstance(each, ast.ImportFrom) and each.module and not each.level:
            yield each.module


def _names(each: ast.stmt) -> list[str]:
    """Those that a statement defines."""
    if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [each.name]
    if isinstance(each, ast.Assign | ast.AnnAssign):
        targets = each.targets if isinstance(each, ast.Assign) else [each.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    if isinstance(each, ast.Import | ast.ImportFrom):
        return [found.asname or found.name.partition(".")[0] for found in each.names]
    return []


def venv_of(working_dir: str | None, environ: Mapping[str, str]) -> Venv | None:
    """The virtual environment that is active, else the one beside the app, or above it up to the current folder; None:
    there is none, or it is ours.
    """
    here, folder = os.getcwd(), os.path.abspath(working_dir or ".")
    folders = [folder]
    while folder.startswith(f"{here}/"):
        folder = os.path.dirname(folder)
        folders.append(folder)
    beside = [(os.path.join(each, ".venv"), "which is beside the app") for each in folders]
    for path, why in ((environ.get("VIRTUAL_ENV"), "which is active"), *beside):
        if path and os.path.isfile(f"{path}/pyvenv.cfg") and os.path.realpath(path) != os.path.realpath(sys.prefix):
            return Venv(path, why)
    return None
