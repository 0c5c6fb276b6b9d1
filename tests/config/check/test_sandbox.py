"""What a kernel holds of a sandbox, and what is refused: for any kernel, and with real files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.config.check.sandbox import admin_errors, held, overlaps, path_errors, refusals, sandboxes
from caddysnake.config.check.tenancy import NoSuchApp, tenant
from caddysnake.config.language.adapt import ConfigErrors, load
from caddysnake.config.language.models import Sandbox
from caddysnake.config.plan.fence import Fence, FenceError, Sites, Wish, walls_of
from caddysnake.config.plan.plan import AppSpec, Plan, plan
from caddysnake.sandbox.walls import Walls


@pytest.mark.parametrize(
    ("box", "abi", "is_root", "is_shared", "wanted"),
    [
        (Sandbox(), 7, False, True, []),
        (Sandbox(), 7, True, True, ["runs as root"]),
        (Sandbox(), 5, False, True, ["signalling each other"]),
        (Sandbox(), 5, False, False, []),
        (Sandbox(), 1, False, False, []),
        (Sandbox(connect=(443,)), 3, False, False, ["knows no ports"]),
        (Sandbox(connect=()), 3, False, False, ["knows no ports"]),
        (Sandbox(listen=(8000,)), 3, False, False, ["knows no ports"]),
        (Sandbox(connect=(443,), listen=(8000,)), 4, False, False, []),
    ],
)
def test_what_a_kernel_cannot_hold_is_refused(
    box: Sandbox, abi: int, is_root: bool, is_shared: bool, wanted: list[str]
) -> None:
    found = list(refusals(box, abi, is_root=is_root, is_shared=is_shared))
    assert len(found) == len(wanted)
    assert all(text in message for text, (_, message, _) in zip(wanted, found, strict=True))


@pytest.mark.parametrize(
    ("walls", "is_shared", "unwalled", "word", "has", "has_not"),
    [
        (None, True, [], "off", "", "wall"),
        (Walls(has_unix=False), True, [], "walled", "sees that files exist", "unix sockets"),
        (Walls(), True, [], "walled", "connects to unix sockets of its user", "second wall"),
        (Walls(), False, [], "walled", "a second wall", "sees that files exist"),
        (Walls(connect=(443,)), False, [], "walled", "sends UDP", "any port"),
        (Walls(), True, ["shop:app"], "walled", "open to shop:app of its user, in no sandbox", "second wall"),
    ],
)
def test_it_comes_to_a_word_and_a_sentence(
    walls: Walls | None, is_shared: bool, unwalled: list[str], word: str, has: str, has_not: str
) -> None:
    found = held(walls, 7, is_shared=is_shared, unwalled=unwalled)
    assert found.word == word
    assert has in found.sentence
    assert has_not not in found.sentence


def planned(folder: Path, *apps: str, options: str = "") -> Plan:
    """One app a text, each the lines of its ``sandbox``, in a folder of its own named ``app0`` …"""
    text = options
    for number, lines in enumerate(apps):
        own = folder / f"app{number}"
        own.mkdir(exist_ok=True)
        (own / "main.py").write_text("app = None\n")
        block = f"module_wsgi main:app\nworking_dir {own}\nsandbox on {{\n{lines}\n}}"
        text += f"unix/{folder}/run/{number}.sock {{\npython {{\n{block}\n}}\n}}\n"
    (folder / "run").mkdir(exist_ok=True)
    (folder / "Caddyfile").write_text(text)
    return plan(load(text.encode(), str(folder / "Caddyfile"), {}), cores=1, base_dir=str(folder))


def error_of(folder: Path, lines: str) -> CaddyfileError:
    ((_, error),) = path_errors(planned(folder, lines))
    assert error.line == 6 + lines.count("\n")  # its own, the last
    return error


def test_paths_that_are_there_and_nobodys_else_are_taken(tmp_path: Path) -> None:
    (tmp_path / "app0").mkdir()
    (tmp_path / "app0" / "media").mkdir()
    (tmp_path / "models").mkdir()
    lines = f"read {tmp_path}/models -/nowhere/at/all\nwrite media -missing"
    assert list(path_errors(planned(tmp_path, lines))) == []


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ("read /srv/no/such/folder", "/srv/no/such/folder does not exist", "-/srv/no/such/folder"),
        ("read /", "the whole file system", "name the folders"),
        ("read /proc/self", "/proc/self", "/proc can be read"),
        ("write {folder}", "{folder}/Caddyfile is there", "nothing but what the app writes"),
        ("write {folder}/run", "{folder}/run is there", "nothing but what the app writes"),
        ("read {folder}/fifo", "neither a file nor a folder", "the folder that it is in"),
        ("write {package}", "{package} is there", "nothing but what the app writes"),
        ("write {package}/daemon", "{package} is there", "nothing but what the app writes"),
        ("read {temporary}", "the private folders of all apps are in {temporary}", "TMPDIR is the app's own"),
        ("write {temporary}", "the private folders of all apps are in {temporary}", "TMPDIR is the app's own"),
    ],
)
def test_paths_that_must_not_be_had_are_refused(tmp_path: Path, lines: str, message: str, hint: str) -> None:
    import caddysnake

    os.mkfifo(tmp_path / "fifo")
    names = {
        "folder": str(tmp_path),
        "package": os.path.dirname(caddysnake.__file__),
        "temporary": os.path.realpath(tempfile.gettempdir()),
    }
    error = error_of(tmp_path, lines.format(**names))
    assert message.format(**names) in str(error)
    assert hint in (error.hint or "")


def test_a_link_in_what_the_app_writes_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "app0" / "media" / "inner").mkdir(parents=True)
    (tmp_path / "app0" / "media" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "app0" / "media" / "in").symlink_to("inner")
    (tmp_path / "app0" / "out").symlink_to(tmp_path / "secret")
    assert list(path_errors(planned(tmp_path, "write media\nread media/in out"))) == []
    error = error_of(tmp_path, "write media\nread media/out")
    assert f"leads to {tmp_path}/secret, by a link in {tmp_path}/app0/media" in str(error)


def a_python(root: Path) -> str:
    """What looks like a whole installation of one."""
    (root / "bin").mkdir(parents=True)
    (root / "lib" / "python3.11").mkdir(parents=True)
    (root / "lib" / "python3.11" / "os.py").touch()
    (root / "bin" / "python3.11").write_bytes(b"\x7fELF")
    return str(root / "bin" / "python3.11")


def test_no_tenants_interpreter_leads_to_a_neighbours_folders(tmp_path: Path) -> None:
    everybodys, bobs = a_python(tmp_path / "opt" / "python"), a_python(tmp_path / "srv" / "bob" / "python")
    (tmp_path / "srv" / "bob" / "v").mkdir()
    (tmp_path / "srv" / "bob" / "v" / "pyvenv.cfg").touch()
    alice = tmp_path / "srv" / "alice"
    own = a_python(alice / "python")
    forged = a_python(alice / "forged")
    (alice / "forged" / "share").symlink_to(tmp_path / "srv" / "bob")
    (alice / "linked").symlink_to(tmp_path / "srv" / "bob" / "v")

    def granted(link: str | None, venv: str = "v", *lines: str) -> list[str]:
        if link is not None:
            (alice / venv / "bin").mkdir(parents=True, exist_ok=True)
            (alice / venv / "pyvenv.cfg").touch()
            (alice / venv / "bin" / "python").unlink(missing_ok=True)
            (alice / venv / "bin" / "python").symlink_to(link)
        wishes = (Wish(str(alice), "read", "working_dir"), *(Wish(line, "read", "read[0]") for line in lines))
        fence = Fence(wishes, Walls(), loose=(str(alice),), owner="alice")
        return [each.path for each in walls_of(fence, Sites(str(alice / venv / "bin" / "python"), (), "")).grants]

    assert f"{tmp_path}/opt/python/lib" in granted(everybodys)
    assert f"{alice}/python/lib" in granted(own)
    assert f"{tmp_path}/srv/bob/python/lib" in granted(bobs, "v", f"{tmp_path}/srv/bob/python")
    for link, venv, leads_to in ((bobs, "v", bobs), (forged, "v", "srv/bob"), (None, "linked", "srv/bob/v")):
        with pytest.raises(FenceError, match=f"leads to .*{leads_to}, by a link in {alice}") as caught:
            granted(link, venv)
        assert caught.value.at == "venv"


def test_no_tenant_writes_what_the_fork_server_of_all_imports(tmp_path: Path) -> None:
    for number, (variable, below) in enumerate((("HOME", "/.local/lib"), ("PYTHONUSERBASE", "/lib"))):
        folder = tmp_path / f"{number}"
        (folder / "home" / "data").mkdir(parents=True)
        for written, value, is_refused in (
            ("home", "home", True),
            ("home/data", "home", False),
            ("home", "home/{host}", False),  # which has a fork server of its own
        ):
            lines = f"write {folder}/{written}\n}}\nenv_var {variable} {folder}/{value}\nenv_var HOST {{host}}"
            errors = list(path_errors(planned(folder, f"{lines}\nautoreload {{")))
            assert [f"{folder}/home{below} is there" in str(error) for _, error in errors] == [True] * is_refused


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("read", "1 or more arguments"),
        ("connect 70000", "70000 is too many"),
        ("connect any 443", "any stands alone"),
        ("listen any", "'any' is not a whole number"),
        ("connect 443\nconnect 80", "connect is written twice"),
        ("unix 5", "'5' is not one of any, none"),
        ("reed /srv", 'unknown line "reed"'),
        ("read " + " ".join(f"/srv/{n}" for n in range(10_000)), "more than 64 paths"),
        ("connect " + " ".join(map(str, range(1, 10_000))), "more than 64 ports"),
        ("read ../other", "../other leaves a folder"),
    ],
)
def test_lines_that_make_no_sense_are_refused(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        planned(tmp_path, f"{lines}\nread -/srv")
    assert message in str(caught.value.errors[0])
    assert caught.value.errors[0].line == 6 + lines.count("\n")


def test_no_file_that_was_read_can_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    (tmp_path / "sites").mkdir()
    app = f"module_wsgi main:app\nworking_dir {tmp_path}/sites\nsandbox on {{\nwrite {tmp_path}/main\n}}"
    (tmp_path / "sites" / "main.py").write_text("app = None\n")
    (tmp_path / "sites" / "blog.caddy").write_text(f"unix/{tmp_path}/run/a.sock {{\npython {{\n{app}\n}}\n}}\n")
    file = tmp_path / "main" / "Caddyfile"
    file.write_text(f"import {tmp_path}/sites/*.caddy\n")
    ((_, error),) = path_errors(plan(load(file.read_bytes(), str(file), {}), cores=1, base_dir=str(tmp_path)))
    assert f"{file} is there" in str(error)


def test_an_env_file_where_the_app_may_put_links_leads_nowhere_else(tmp_path: Path) -> None:
    media = tmp_path / "app0" / "media"
    (media / "inner").mkdir(parents=True)
    (media / "inner" / "own.env").write_text("WORD=own\n")
    (tmp_path / "secret.env").write_text("WORD=secret\n")

    def problems(target: str) -> list[str]:
        (media / "env").unlink(missing_ok=True)
        (media / "env").symlink_to(target)
        (app,) = planned(tmp_path, f"write media\n}}\nenv_file {tmp_path}/app0/media/env\nautoreload {{").apps
        return [*app.environ.values(), *map(str, app.problems)]

    assert problems("inner/own.env") == ["own"]
    (problem,) = problems(f"{tmp_path}/secret.env")
    assert f"leads out of {media}" in problem
    (media / "inner" / "own.env").unlink()
    (media / "inner").rmdir()
    (media / "inner").symlink_to(tmp_path)
    (problem,) = problems("inner/secret.env")
    assert f"leads out of {media}" in problem


def test_an_env_file_in_a_folder_that_a_request_chooses_is_of_that_folder(tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        (tmp_path / "tenants" / name).mkdir(parents=True)
        (tmp_path / "tenants" / name / "env").write_text(f"WORD={name}\n")
    who = "user nobody\n" if os.geteuid() == 0 else ""
    written = f"}}\n{who}env_file {tmp_path}/tenants/{{host}}/env\nautoreload {{"
    (template,) = planned(tmp_path, written).apps

    def alice() -> AppSpec:
        return tenant(template, "alice", {"env_file[0]": f"{tmp_path}/tenants/alice/env"}, {}, str(tmp_path))

    assert alice().environ == {"WORD": "alice"}
    (tmp_path / "tenants" / "alice" / "env").unlink()
    (tmp_path / "tenants" / "alice" / "env").symlink_to("../bob/env")
    with pytest.raises(NoSuchApp, match=f"leads out of {tmp_path}/tenants/alice"):
        alice()


def test_sandboxes_of_one_user_that_hold_each_others_folders_are_told(tmp_path: Path) -> None:
    assert overlaps(planned(tmp_path, "", "")) == []
    (tmp_path / "app1" / "data").mkdir()
    (tmp_path / "all" / "one").mkdir(parents=True)
    models = f"read {tmp_path}/all"
    assert overlaps(planned(tmp_path, models, models)) == []
    for lines, others, ending in [
        (f"read {tmp_path}/app1", "", f"may read {tmp_path}/app1, in which app1/main:app is"),
        (f"write {tmp_path}/app1/data", "", f"may read and write {tmp_path}/app1/data, which app1/main:app may read"),
        (models, f"write {tmp_path}/all/one", f"may read {tmp_path}/all, in which app1/main:app writes"),
    ]:
        told = [each for each in overlaps(planned(tmp_path, lines, others)) if "sandbox of app0/main:app" in each]
        assert [each.endswith(ending) for each in told] == [True], told
    assert len(overlaps(planned(tmp_path, f"write {tmp_path}/all", f"write {tmp_path}/all"))) == 2


def test_threads_in_a_sandbox_are_told_to_have_a_process_of_their_own(tmp_path: Path) -> None:
    told = sandboxes(planned(tmp_path, "unix any\n}\nworkers_runtime thread\nautoreload {"))
    assert [each for each in told if "a process of their own" in each] == [told[1]]


def test_a_store_or_a_database_by_a_unix_socket_needs_one(tmp_path: Path) -> None:
    store = "}\ncache unix:///run/valkey.sock\nautoreload {"
    (error,) = [error for _, error in path_errors(planned(tmp_path, f"unix none\n{store}"))]
    assert "the store of `cache` is reached by a unix socket" in str(error)
    assert list(path_errors(planned(tmp_path, f"unix any\n{store}"))) == []
    with pytest.raises(ConfigErrors, match="a store of its own is not offered to an app in a sandbox"):
        planned(tmp_path, "unix any\n}\ncache local {")
    plan_of = planned(tmp_path, "unix none\n}\nenv_var DATABASE_URL postgres:///shop?host=/run/pg\nautoreload {")
    (_, note) = sandboxes(plan_of)
    assert "DATABASE_URL names a unix socket" in note


@pytest.mark.parametrize(
    ("admin", "lines", "is_reached"),
    [
        ("localhost:2019", "", True),
        ("localhost:2019", "connect 443", False),
        ("localhost:2019", "connect 443 2019", True),
        ("unix//run/caddy/admin.sock|0600", "", False),
        ("unix//run/caddy/admin.sock|0600", "unix any", True),
        ("off", "unix any", False),
    ],
)
def test_no_app_in_a_sandbox_may_reach_the_admin_api_of_caddy(
    tmp_path: Path, admin: str, lines: str, is_reached: bool
) -> None:
    found = [*admin_errors(planned(tmp_path, lines, options=f"{{\n\tadmin {admin}\n}}\n"))]
    assert [error.line for error in found] == [2] * is_reached
    assert all("would reach Caddy's admin API" in str(error) for error in found)


def test_where_no_line_names_caddys_admin_api_it_is_told_at_the_sandbox(tmp_path: Path) -> None:
    (error,) = admin_errors(planned(tmp_path, ""), "localhost:2019")
    assert error.hint is not None
    assert error.hint.startswith("write the global options into this file")
    assert [*admin_errors(planned(tmp_path, "connect 443"), "localhost:2019")] == []
