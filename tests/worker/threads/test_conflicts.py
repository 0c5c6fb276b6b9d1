"""What is found out about an app's modules without importing any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caddysnake.worker.threads import conflicts as survey_module
from caddysnake.worker.threads.conflicts import Survey, interpreter_names, survey


def folder(root: Path, **files: str) -> str:
    root.mkdir(exist_ok=True)
    for name, source in files.items():
        (root / f"{name}.py").write_text(source)
    return str(root)


def look(root: str, **more: int) -> Survey:
    return survey(root, interpreter_names([]), **more)


def test_modules_packages_and_folders_with_modules_have_names_and_others_do_not(tmp_path: Path) -> None:
    root = folder(tmp_path, main="", **{"not-a-name": ""})
    for path in ("package/__init__.py", "namespace/inner/module.py", "static/style.css", "__pycache__/main.pyc"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    (tmp_path / "fast.cpython-311-x86_64-linux-gnu.so").touch()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    (tmp_path / "venv" / "bin" / "activate_this.py").touch()
    assert look(root).has - {"fast"} == {"main", "package", "namespace"}


def test_what_sources_ask_for_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        main="import one, two.part as t\nfrom three.part import (\n    x)\ndef f():\n    import four; import five\n"
        "try: import six\nexcept ImportError: from seven import x\nfrom . import relative\nimport main\n"
        'import_module("eight.part")\n# import nine\ntext = "import ten"\n',
    )
    assert look(root).asks == {"one", "two", "three", "four", "five", "six", "seven", "eight"}


def test_one_collides_with_what_it_shares_a_name_with_or_asks_for(tmp_path: Path) -> None:
    one = look(folder(tmp_path / "one", one="import helper"))
    assert not one.collides(look(folder(tmp_path / "two", two="")))
    assert one.collides(look(folder(tmp_path / "helper", helper="")))
    assert look(folder(tmp_path / "helper")).collides(one)
    assert one.collides(look(folder(tmp_path / "same", one="")))
    assert one.collides(one)
    assert one.collides(look(folder(tmp_path / "one" / "inner", other="")))


@pytest.mark.parametrize("name", ["types", "email", "sys"])
def test_who_hides_a_module_of_the_interpreter_is_alone(tmp_path: Path, name: str) -> None:
    assert look(folder(tmp_path, **{name: ""})).is_private


def test_too_many_files_or_a_very_large_one_are_not_looked_through(tmp_path: Path) -> None:
    root = folder(tmp_path / "large", main="#" * (survey_module._FILE_MAX + 1))
    assert look(root).is_private
    assert not look(folder(tmp_path / "few", a="", b="", c=""), files_max=3).is_private
    assert look(folder(tmp_path / "few", d=""), files_max=3).is_private


def test_what_is_no_file_and_links_in_circles_hold_nothing_up(tmp_path: Path) -> None:
    root = folder(tmp_path, main="import one")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "circle").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "nowhere.py").symlink_to(tmp_path / "absent.py")
    assert look(root).asks == {"one"}
