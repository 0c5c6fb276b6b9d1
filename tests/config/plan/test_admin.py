"""Where the admin API listens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caddysnake.caddyfile.errors import CaddyfileError
from caddysnake.config.language.adapt import ConfigErrors, load
from caddysnake.config.language.values import InvalidValue
from caddysnake.config.plan.admin import (
    OFF,
    AdminEndpoint,
    admin_endpoint,
    make_private,
)
from caddysnake.config.plan.places import default_socket_dir, disregarded, runtime_folder
from caddysnake.config.plan.rendezvous import default_path, default_sockets, name_for


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def endpoint(line: str, override: str | None = None, *, for_caddy: bool = False) -> AdminEndpoint:
    config = load(f"{{\n{line}\n}}\n".encode(), "Caddyfile", {})
    return admin_endpoint(config.options, "/etc/c/Caddyfile", os.environ, for_caddy=for_caddy, override=override)


def test_the_default_follows_from_the_files_path_and_the_runtime_directory(tmp_path: Path) -> None:
    found = endpoint("")
    assert found.is_default
    assert found.listen is not None
    assert found.listen.path == default_path("/etc/c/Caddyfile", os.environ)
    assert found.listen.path.startswith(f"{tmp_path}/caddysnake/admin/")
    assert found.listen.mode == 0o600
    assert default_path("/etc/other", os.environ) != found.listen.path
    (tmp_path / "one").mkdir()
    of_a_service = {**os.environ, "RUNTIME_DIRECTORY": f"{tmp_path}/one:/run/two"}
    assert default_path("/x", of_a_service).startswith(f"{tmp_path}/one/admin/")


def test_a_runtime_directory_that_is_not_this_users_is_not_used(tmp_path: Path) -> None:
    """As ``su`` and ``sudo -E`` leave one behind."""
    for folder in (f"{tmp_path}/gone", "/proc/1"):
        environ = {"XDG_RUNTIME_DIR": folder, "RUNTIME_DIRECTORY": f"{tmp_path}/gone"}
        assert default_path("/x", environ).startswith(f"{default_socket_dir()}/admin/" if os.geteuid() == 0 else "/tmp")
        assert runtime_folder(environ) is None
        assert disregarded(environ) == f"XDG_RUNTIME_DIR={folder} is not a folder of this user's, and is not used"
    assert disregarded({}) is None
    assert disregarded({"XDG_RUNTIME_DIR": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("line", "listen"),
    [
        ("admin localhost:2020", "tcp/localhost:2020"),
        ("admin :2020", "tcp/:2020"),
        ("admin unix//run/a.sock", "unix//run/a.sock|0600"),
        ("admin unix//run/a.sock|0660|:caddy", "unix//run/a.sock|0660|:caddy"),
        ("admin fd/3", "fd/3"),
    ],
)
def test_an_address_is_taken_from_the_file(line: str, listen: str) -> None:
    found = endpoint(line)
    assert str(found.listen) == listen
    assert not found.is_default


def test_a_block_says_who_may_call() -> None:
    found = endpoint("admin {\n origins a.example b.example:444\n enforce_origin\n}")
    assert (found.origins, found.enforce_origin, found.is_default) == (("a.example", "b.example:444"), True, True)


def test_it_can_be_off_and_the_command_line_goes_before_the_file() -> None:
    assert endpoint("admin off") == OFF
    assert endpoint("admin localhost:2020", "off") == OFF
    assert str(endpoint("admin off", "localhost:2021").listen) == "tcp/localhost:2021"


@pytest.mark.parametrize("line", ["admin off", "admin localhost:2019", "admin {env.NOPE}", "admin udp/x:1"])
def test_with_a_supervised_caddy_the_option_is_caddys(line: str) -> None:
    assert endpoint(line, for_caddy=True).is_default


@pytest.mark.parametrize("text", ["localhost", "{env.ADDRESS}", "udp/localhost:2020", "unix/@abstract", "unix//x/"])
def test_what_cannot_be_listened_on_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(CaddyfileError) as caught:
        endpoint(f"admin {text}")
    assert caught.value.line == 2
    with pytest.raises(InvalidValue):
        endpoint("", text)


@pytest.mark.parametrize(
    "line", ["admin off {\n origins x\n}", "admin a b", "admin {\n origin x\n}", "admin {\n origins\n}"]
)
def test_what_means_nothing_is_an_error(line: str) -> None:
    with pytest.raises(ConfigErrors):
        endpoint(line)


def test_a_folder_of_others_is_not_used(tmp_path: Path) -> None:
    make_private(str(tmp_path / "a" / "admin"))
    assert (tmp_path / "a" / "admin").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a" / "admin").chmod(0o755)
    with pytest.raises(PermissionError):
        make_private(str(tmp_path / "a" / "admin"))


def test_daemons_are_looked_for_where_they_may_be(tmp_path: Path) -> None:
    folder = tmp_path / "caddysnake" / "admin"
    folder.mkdir(parents=True)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    path = Path(default_path("/etc/c/Caddyfile", environ))
    assert path.name == name_for("/etc/c/Caddyfile")
    assert str(path) not in default_sockets(environ)
    path.touch()
    assert str(path) in default_sockets(environ)
