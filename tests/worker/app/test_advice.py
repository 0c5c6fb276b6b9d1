"""What follows the traceback of an app that cannot be imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from caddysnake.worker.app.advice import advice

PYTHON = sys.executable


def raised(source: str) -> BaseException:
    try:
        exec(compile(source, "app.py", "exec"), {"os": os})
    except BaseException as exc:
        return exc
    raise AssertionError("it raises nothing")


def test_a_missing_library_names_the_interpreter_and_the_venv_that_has_it(tmp_path: Path) -> None:
    exc = raised("import nothing_of_this_name.inner")
    assert advice(exc, str(tmp_path / "sub")) == (
        f"\n(nothing_of_this_name is not installed for {PYTHON}: "
        "install it there, or name the Python that has it with `venv`.)"
    )
    venv = tmp_path / ".venv"
    (venv / "lib" / "python3.12" / "site-packages" / "nothing_of_this_name").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    for folder in (tmp_path, tmp_path / "sub"):
        assert f"{venv} has it: write `venv {venv}` in the python block, or `--venv {venv}`" in advice(exc, str(folder))
    wrapped = raised("try:\n    import nothing_else\nexcept ImportError as exc:\n    raise RuntimeError('no') from exc")
    assert f"{venv} is a virtual environment: write" in advice(wrapped, str(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        "os.environ['DATABASE_URL']",
        "raise Exception('DATABASE_URL not found. Declare it as envvar or define a default value.')",
        "raise Exception('Set the DATABASE_URL environment variable')",
        "raise Exception('Environment variable \"DATABASE_URL\" not set')",
        "try:\n    os.environ['DATABASE_URL']\nexcept KeyError:\n    raise SystemExit(1)",
    ],
)
def test_a_missing_variable_names_what_sets_it(tmp_path: Path, source: str) -> None:
    assert advice(raised(source), str(tmp_path)) == (
        "\n(DATABASE_URL is not set for the app: "
        "write `env_var DATABASE_URL VALUE` or `env_file PATH` in its python block, or `--env-file PATH`.)"
    )
    (tmp_path / ".env").touch()
    assert "`env_file .env`" in advice(raised(source), str(tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        "{}['x']",
        "1 / 0",
        "class Bad(Exception):\n    def __str__(self): raise TypeError\nraise Bad",
        "raise Exception('x' * 1_000_000)",  # a key, a picture, what a request was answered with
    ],
)
def test_of_others_nothing_is_said(tmp_path: Path, source: str) -> None:
    assert advice(raised(source), str(tmp_path)) == ""
