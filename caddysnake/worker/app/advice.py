"""What may help an app that cannot be imported, beside its traceback: what its author cannot see from there."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator

_VENVS = (".venv", "venv", "env")
_CHAIN_MAX = 8
_SAID_OF_VARIABLES = re.compile(
    r"Set the (?P<a>\w+) environment variable"  # django-environ
    r"|\b(?P<b>\w+) not found\. Declare it as envvar"  # python-decouple
    r'|Environment variable "(?P<c>\w+)" not set'  # environs
)


def advice(exc: BaseException, working_dir: str) -> str:
    """Lines that follow the traceback of ``exc``; empty when nothing is known."""
    for each in _chain(exc):
        if isinstance(each, ModuleNotFoundError):
            found = _of_module(each, working_dir)
        else:
            found = _of_variable(each, working_dir)
        if found:
            return f"\n{found}"
    return ""


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_CHAIN_MAX):
        if exc is None:
            return
        yield exc
        exc = exc.__cause__ or exc.__context__


def _of_module(exc: ModuleNotFoundError, working_dir: str) -> str:
    name = (exc.name or "").partition(".")[0]
    if not name:
        return ""
    if closed := next(filter(_is_closed, sys.path), None):
        return f"(it may be in {closed}, which may not be read here: in a sandbox, `read {closed}` would allow it)"
    missing = f"{name} is not installed for {sys.executable}"
    for folder in (working_dir, os.path.dirname(working_dir)):
        for venv in (os.path.join(folder, each) for each in _VENVS):
            is_one = os.path.isfile(os.path.join(venv, "pyvenv.cfg"))
            if is_one and os.path.realpath(venv) != os.path.realpath(sys.prefix):
                has = "has it" if _holds(venv, name) else "is a virtual environment"
                return f"({missing}. {venv} {has}: write `venv {venv}` in the python block, or `--venv {venv}`.)"
    return f"({missing}: install it there, or name the Python that has it with `venv`.)"


def _is_closed(folder: str) -> bool:
    """Python passes over it as if it were empty: a ``.pth`` file names it, and the sandbox does not."""
    try:
        os.scandir(folder).close()
    except OSError as exc:
        return isinstance(exc, PermissionError)
    return False


def _holds(venv: str, name: str) -> bool:
    site = os.path.join(glob.escape(venv), "lib", "python3*", "site-packages", glob.escape(name))
    return bool(glob.glob(site) or glob.glob(f"{site}.py"))


def _of_variable(exc: BaseException, working_dir: str) -> str:
    try:
        said = _SAID_OF_VARIABLES.search(str(exc))
    except Exception:  # its own
        return ""
    if said is not None:
        name = said[said.lastgroup or 0]
    elif isinstance(exc, KeyError) and _is_of_environ(exc) and exc.args and isinstance(exc.args[0], str):
        name = exc.args[0]
    else:
        return ""
    file = os.path.join(working_dir, ".env")
    path = ".env" if os.path.isfile(file) else "PATH"
    written = f"write `env_var {name} VALUE` or `env_file {path}` in its python block, or `--env-file {path}`"
    return f"({name} is not set for the app: {written}.)"


def _is_of_environ(exc: BaseException) -> bool:
    """Whether ``os.environ`` has raised it."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    return code.co_name == "__getitem__" and trace.tb_frame.f_globals.get("__name__") == "os"
