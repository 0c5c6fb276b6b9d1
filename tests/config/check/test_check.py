"""What the file system can refute, with real files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.config.check.check import check_apps, check_sockets
from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import Plan, plan
from caddysnake.config.plan.search import Verdict, find_module, installation


def errors_of(folder: Path, *lines: str, site: str = "") -> list[CaddyfileError]:
    """What is wrong with a block of *lines* whose base directory is *folder*."""
    block = "".join(f"\t\t{line}\n" for line in lines)
    source = f"{site or f'unix/{folder}/x.sock'} {{\n\tpython {{\n{block}\t}}\n}}\n"
    config = load(source.encode(), "Caddyfile", {})
    return check(plan(config, cores=1, base_dir=str(folder)))


def check(plan: Plan) -> list[CaddyfileError]:
    return [*plan.problems, *(error for errors in check_apps(plan).values() for error in errors), *check_sockets(plan)]


def error_of(folder: Path, *lines: str, site: str = "") -> CaddyfileError:
    (error,) = errors_of(folder, *lines, site=site)
    return error


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with an app in it."""
    (tmp_path / "main.py").write_text("app = None\n")
    return tmp_path


def make_venv(folder: Path, *, version: str = "3.12.1", modules: tuple[str, ...] = ()) -> Path:
    """Something that looks like a venv from outside."""
    base = folder.parent / f"{folder.name}-base"
    short = ".".join(version.split(".")[:2])
    for name in (f"lib/python{short}", "bin"):
        (base / name).mkdir(parents=True)
    (base / f"lib/python{short}/os.py").touch()
    (base / f"bin/python{short}").touch(mode=0o755)
    site = folder / f"lib/python{short}/site-packages"
    site.mkdir(parents=True)
    for module in modules:
        (site / f"{module}.py").touch()
    (folder / "bin").mkdir()
    (folder / "bin/python3").symlink_to(base / f"bin/python{short}")
    (folder / "pyvenv.cfg").write_text(f"home = {base}/bin\nversion = {version}\n")
    return folder


def test_nothing_is_wrong_with_an_app_that_is_there(app: Path) -> None:
    assert errors_of(app, "module_wsgi main:app") == []


def test_a_missing_working_dir_is_named_with_its_neighbour(app: Path) -> None:
    (app / "shop").mkdir()
    error = error_of(app, "module_wsgi main:app", f"working_dir {app}/shpo")
    assert (error.line, error.hint) == (4, 'did you mean "shop"?')
    assert "does not exist" in error.message
    for line in ("working_dir ~/shop", "venv ~/.venv"):
        assert "{$HOME}" in (error_of(app, "module_wsgi main:app", line).hint or "")
    error = error_of(app, "module_wsgi main:app", f"venv {app}/.venv/bin/python3")
    assert error.hint == f"name its folder: venv {app}/.venv"


def test_a_working_dir_must_be_a_directory(app: Path) -> None:
    assert "not a directory" in error_of(app, "module_wsgi main:app", "working_dir main.py").message


def test_a_missing_venv_says_how_to_make_it(app: Path) -> None:
    error = error_of(app, "module_wsgi main:app", "venv .venv")
    assert error.line == 4
    assert error.hint == f"make it with: python3 -m venv {app}/.venv"


def test_a_venv_without_python_is_refused(app: Path) -> None:
    (app / ".venv").mkdir()
    assert "has no Python" in error_of(app, "module_wsgi main:app", "venv .venv").message


def test_a_venv_whose_python_is_gone_is_told_apart(app: Path) -> None:
    (app / ".venv/bin").mkdir(parents=True)
    (app / ".venv/bin/python3").symlink_to("/nowhere/python3.12")
    error = error_of(app, "module_wsgi main:app", "venv .venv")
    assert "leads to /nowhere/python3.12" in error.message
    assert "--clear" in str(error.hint)


def test_a_venv_with_an_old_python_is_refused(app: Path) -> None:
    make_venv(app / ".venv", version="3.9.2")
    error = error_of(app, "module_wsgi main:app", "venv .venv")
    assert "Python 3.9.2" in error.message


def test_a_venv_of_another_python_is_fine(app: Path) -> None:
    make_venv(app / ".venv", modules=("installed",))
    assert errors_of(app, "module_wsgi main:app", "venv .venv") == []
    assert errors_of(app, "module_wsgi installed:app", "venv .venv") == []


def test_a_real_venv_is_understood(app: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", app / ".venv"], check=True, timeout=60)
    assert errors_of(app, "module_wsgi main:app", "venv .venv") == []
    assert "no module named missing" in error_of(app, "module_wsgi missing:app", "venv .venv").message
    found = installation(str(app / ".venv/bin/python3"))
    assert found.version[:2] == sys.version_info[:2]
    assert find_module("wsgiref.simple_server", found.folders) is Verdict.FOUND


@pytest.mark.parametrize("mode", [0o644, None])
def test_an_interpreter_must_be_a_program(app: Path, mode: int | None) -> None:
    if mode is not None:
        (app / "python").touch(mode=mode)
    error = error_of(app, "module_wsgi main:app", "python_path ./python")
    assert error.line == 4
    assert error.message.startswith(f"interpreter {app}/./python")


def test_a_missing_module_is_named_with_its_neighbour(app: Path) -> None:
    error = error_of(app, "module_wsgi mian:app")
    assert (error.line, error.hint) == (3, 'did you mean "main"?')
    assert str(app) in error.message


def test_a_file_name_instead_of_a_module_is_understood(app: Path) -> None:
    assert error_of(app, "module_wsgi main.py:app").hint == "write main:app, without .py"


def test_a_missing_module_of_a_package_is_found_out(app: Path) -> None:
    (app / "shop").mkdir()
    (app / "shop/__init__.py").touch()
    (app / "shop/wsgi.py").touch()
    assert errors_of(app, "module_wsgi shop.wsgi:app") == []
    assert error_of(app, "module_wsgi shop.wsgy:app").hint == 'did you mean "wsgi"?'


def test_a_package_without_init_is_found_too(app: Path) -> None:
    (app / "shop/inner").mkdir(parents=True)
    (app / "shop/inner/wsgi.py").touch()
    assert errors_of(app, "module_wsgi shop.inner.wsgi:app") == []


def test_a_compiled_module_is_found(app: Path) -> None:
    (app / "fast.cpython-312-x86_64-linux-gnu.so").touch()
    assert errors_of(app, "module_wsgi fast:app") == []


def test_modules_of_the_standard_library_are_found(app: Path) -> None:
    assert errors_of(app, "module_wsgi wsgiref.simple_server:demo_app") == []


def test_a_module_on_the_apps_own_path_is_found(app: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.py").touch()
    assert errors_of(app, "module_wsgi far:app", f"env_var PYTHONPATH {elsewhere}") == []


def test_what_is_in_an_archive_on_the_apps_own_path_is_left_to_its_interpreter(app: Path) -> None:
    with zipfile.ZipFile(app / "packed.pyz", "w") as archive:
        archive.writestr("inside.py", "def app(environ, start_response): ...")
        archive.writestr("lib/inside.py", "def app(environ, start_response): ...")
    for path in (f"{app}/packed.pyz", "packed.pyz", f"{app}/packed.pyz/lib"):
        assert errors_of(app, "module_wsgi inside:app", f"env_var PYTHONPATH {path}") == []


def test_where_an_import_hook_is_installed_nothing_is_called_missing(app: Path) -> None:
    venv = make_venv(app / ".venv")
    site = venv / "lib/python3.12/site-packages"
    (site / "__editable__.shop.pth").write_text("import __editable___shop_finder\n")
    assert errors_of(app, "module_wsgi shop:app", "venv .venv") == []


def test_folders_added_by_a_path_file_are_searched(app: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = tmp_path_factory.mktemp("source")
    (source / "shop.py").touch()
    venv = make_venv(app / ".venv")
    (venv / "lib/python3.12/site-packages/shop.pth").write_text(f"{source}\n")
    assert errors_of(app, "module_wsgi shop:app", "venv .venv") == []
    assert "no module named shp" in error_of(app, "module_wsgi shp:app", "venv .venv").message
    (app / "src/shp").mkdir(parents=True)
    (app / "src/shp/__init__.py").touch()
    assert (error_of(app, "module_wsgi shp:app", "venv .venv").hint or "").startswith("it is in src: ")


def test_a_missing_preload_is_named_at_its_line(app: Path) -> None:
    error = error_of(app, "module_wsgi main:app", "preload json nosuchthing")
    assert (error.line, "nosuchthing" in error.message) == (4, True)


def test_unknown_users_and_groups_are_named(app: Path) -> None:
    errors = errors_of(app, "module_wsgi main:app", "user nobody-of-this-name", "group no-such-group")
    assert [error.line for error in errors] == [4, 5]


# Sockets


def test_the_folder_of_a_socket_must_be_there(app: Path) -> None:
    error = error_of(app, "module_wsgi main:app", site=f"unix/{app}/run/x.sock")
    assert error.line == 1
    assert error.hint == f"create it: mkdir -p {app}/run"


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "fork"), reason="needs another user")
def test_the_folder_of_a_socket_must_be_writable(app: Path) -> None:
    folder = app / "run"
    folder.mkdir(mode=0o555)
    check_it = (
        "import os, sys\n"
        "if os.geteuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "from caddysnake.config.language.adapt import load\n"
        "from caddysnake.config.check.check import check_sockets\n"
        "from caddysnake.config.plan.plan import plan\n"
        "source = ('unix/' + sys.argv[1] + '/x.sock {\\n\\tpython wsgiref.simple_server:demo_app\\n}\\n').encode()\n"
        "print(*check_sockets(plan(load(source, 'Caddyfile', {}), cores=1, base_dir='/')), sep='\\n')\n"
    )
    for part in (app, *app.parents):
        if not os.access(part, os.X_OK) or part.stat().st_mode & 0o005 != 0o005:
            # Another user could not even get there.
            break
    else:
        command = [sys.executable, "-c", check_it, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "is not writable" in done.stdout, done.stderr


def test_what_is_no_socket_is_not_replaced(app: Path) -> None:
    (app / "x.sock").write_text("precious")
    assert "not a socket" in error_of(app, "module_wsgi main:app").message


def test_an_old_socket_is_no_error(app: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(app / "x.sock"))
    assert errors_of(app, "module_wsgi main:app") == []


def test_two_names_of_one_socket_are_found_out(app: Path) -> None:
    source = f"unix/{app}/x.sock {{\n\tpython main:app\n}}\nunix/x.sock {{\n\tpython main:app\n}}\n"
    config = load(source.encode(), "Caddyfile", {})
    (error,) = check(plan(config, cores=1, base_dir=str(app)))
    assert (error.line, "listened on twice" in error.message) == (4, True)


def test_the_owner_and_group_of_a_socket_must_exist(app: Path) -> None:
    errors = errors_of(app, "module_wsgi main:app", site=f"unix/{app}/x.sock|0660|no-such-user:no-such-group")
    assert [error.message.split(",")[0] for error in errors] == [
        "there is no user no-such-user",
        "there is no group no-such-group",
    ]


def test_the_folder_of_own_sockets_need_not_be_there_yet(app: Path) -> None:
    config = load(b"example.com {\n\tpython main:app\n}\n", "Caddyfile", {})
    assert check(plan(config, cores=1, base_dir=str(app), socket_dir=str(app / "not/yet"))) == []


def test_an_app_with_placeholders_is_left_to_its_requests(app: Path) -> None:
    assert errors_of(app, "module_wsgi {labels.2}:app", "working_dir /nowhere/{labels.2}") == []
