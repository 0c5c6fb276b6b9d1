"""`caddysnake systemd`: what it prints is what systemd understands, and what it refuses is explained."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caddysnake.cli import units
from caddysnake.cli.units import UnitPlace


def systemd(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "caddysnake", "systemd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_everything_is_printed_with_the_paths_of_this_installation() -> None:
    done = systemd("--config", "/srv/site/Caddyfile", "--caddy-group", "web")
    assert done.returncode == 0, done.stderr
    program = Path(sys.executable).with_name("caddysnake")
    assert f"ExecStart={program} run --config /srv/site/Caddyfile --socket-dir /run/caddysnake\n" in done.stdout
    assert "WorkingDirectory=/srv/site\n" in done.stdout
    assert "-g web " in done.stdout
    assert "SocketGroup=web\n" in done.stdout
    for path in ("/etc/sysusers.d/caddysnake.conf", "/etc/systemd/system/caddysnake@.service"):
        assert f"# {path}\n" in done.stdout


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("apt-get install systemd")
    done = systemd("--install", "--users", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "etc/systemd/system"
    assert (folder / "caddysnake.service.d/users.conf").exists()
    written = [str(path) for path in folder.iterdir() if path.is_file()]
    assert len(written) == 3
    checked = subprocess.run(
        ["systemd-analyze", "verify", *written], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_what_is_installed_again_keeps_the_caddyfile(tmp_path: Path) -> None:
    assert systemd("--install", "--root", str(tmp_path)).returncode == 0
    file = tmp_path / "etc/caddysnake/Caddyfile"
    assert file.read_text().startswith("# What caddysnake serves.")
    file.write_text("mine")
    done = systemd("--install", "--root", str(tmp_path))
    assert done.returncode == 0
    assert "wrote" not in done.stderr
    assert file.read_text() == "mine"


@pytest.mark.parametrize("arguments", [[], ["--install"]])
def test_it_says_which_group_the_sockets_are_for_and_why(tmp_path: Path, arguments: list[str]) -> None:
    place = ["--root", str(tmp_path)] if arguments else []
    there = [name for name in ("caddy", "www-data", "http") if any(name == each.gr_name for each in grp.getgrall())]
    done = systemd(*arguments, *place)
    why = "there is a group of this name" if there else "there is none of caddy, www-data, http here"
    assert f"Caddy's group, for which the sockets are: {[*there, 'caddy'][0]} (" in done.stderr
    assert why in done.stderr
    done = systemd(*arguments, *place, "--caddy-group", "web")
    assert "Caddy's group, for which the sockets are: web (--caddy-group names it)" in done.stderr


def test_a_newer_systemd_waits_longer_before_each_new_start() -> None:
    assert "RestartSteps=" not in units.service(UnitPlace("x", systemd=252))
    assert "RestartSteps=" in units.service(UnitPlace("x", systemd=254))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "Caddyfile"], "write the whole path"),
        (["--config", "/a b"], "letters, digits"),
        (["--caddy-group", "x;y"], "letters, digits"),
        (["--now"], "go with --install"),
        (["--install", "--now", "--root", "/nowhere"], "not this system"),
        (["--install", "--root", "/proc"], "cannot write /proc/etc"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], message: str) -> None:
    done = systemd(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_systemd_or_root_it_says_what_else_to_do() -> None:
    if os.geteuid() == 0 and os.path.isdir("/run/systemd/system"):
        pytest.skip("it would install itself here")
    done = systemd("--install")
    assert done.returncode == 1
    assert "--root DIR" in done.stderr
