"""The doctor names what does not work, and the command that fixes it; a healthy machine gets a clean bill."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import PlannedListener, plan
from caddysnake.daemon.system import cgroups
from caddysnake.doctor import machine
from caddysnake.doctor.findings import Finding, Level
from caddysnake.doctor.front import Front, find_front
from caddysnake.doctor.machine import check_machine
from caddysnake.doctor.reach import Who
from caddysnake.doctor.sockets import check_sockets

STRANGER = Front(Who("caddy", 4321, frozenset({4321})), None)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Unlike pytest's folders one that others may enter, as /run is."""
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def listeners(text: str) -> tuple[PlannedListener, ...]:
    return plan(load(text.encode(), "Caddyfile", {}), cores=1).listeners


def findings(folder: Path, front: Front | None = STRANGER, more: str = "") -> list[Finding]:
    text = f"{{\n{more}\n}}\nunix/{folder}/run/s.sock {{\npython main:app\n}}\n"
    return list(check_sockets(listeners(text), front))


def test_a_folder_that_is_missing_is_made(folder: Path) -> None:
    (found,) = findings(folder)
    assert (found.level, found.fix) == (Level.BAD, f"install -d -m 0755 {folder}/run")


def test_a_folder_that_caddy_may_not_enter_is_named_with_what_opens_it(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    (found,) = findings(folder)
    assert found.level is Level.BAD
    assert f"may not enter {folder}/run" in found.text
    assert found.fix == f"chgrp 4321 {folder}/run && chmod g=x {folder}/run"
    subprocess.run(found.fix, shell=True, check=True)
    assert "may not enter" not in findings(folder)[0].text


@needs_root
def test_a_folder_of_a_group_that_caddy_is_not_in_says_how_to_join(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "run").mkdir()
    os.chown(folder / "run", 0, 54321)
    (folder / "run").chmod(0o750)
    monkeypatch.setattr(cgroups, "_SYSTEMD", str(folder))
    (found,) = findings(folder)
    assert found.fix == "usermod -aG 54321 caddy && systemctl restart caddy"
    monkeypatch.setattr(cgroups, "_SYSTEMD", str(folder / "nothing"))
    (found,) = findings(folder)
    assert found.fix == "usermod -aG 54321 caddy, and start Caddy anew"
    (fine,) = findings(folder, Front(Who("caddy", 4321, frozenset({54321})), None), "socket_group 54321")
    assert fine.level is Level.GOOD


def test_a_socket_to_come_that_caddy_will_not_get_to_is_told_before_it_is_there(folder: Path) -> None:
    (folder / "run").mkdir()
    (found,) = findings(folder)
    assert found.level is Level.BAD
    assert "will not get to" in found.text
    assert "socket_group" in found.fix
    assert findings(folder, more="socket_mode 0666")[0].level is Level.GOOD


def test_a_socket_that_is_there_tells_by_its_own_mode(folder: Path) -> None:
    (folder / "run").mkdir()
    path = folder / "run" / "s.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        (found,) = findings(folder)
        assert found.level is Level.BAD
        assert "may not write" in found.text
        path.chmod(0o666)
        (found,) = findings(folder)
        assert found.level is Level.GOOD
    stale = findings(folder)[0]  # nobody listens any more
    assert (stale.level, stale.fix) == (Level.DOUBT, f"rm {path}")


def test_without_a_caddy_nothing_is_promised(folder: Path) -> None:
    (folder / "run").mkdir()
    (found,) = findings(folder, None)
    assert (found.level, found.fix) == (Level.DOUBT, "caddysnake doctor --caddy-user USER")


def test_a_caddy_that_runs_tells_its_user_and_groups(tmp_path: Path) -> None:
    process = tmp_path / "77"
    process.mkdir()
    (process / "comm").write_text("caddy\n")
    (process / "status").write_text("Name:\tcaddy\nUid:\t5\t4321\t5\t5\nGid:\t6\t4322\t6\t6\nGroups:\t7 8 \n")
    front = find_front(None, str(tmp_path))
    assert front is not None
    assert (front.pid, front.who.uid, front.who.gids) == (77, 4321, frozenset({4322, 7, 8}))
    with pytest.raises(LookupError):
        find_front("nobody-has-this-name", str(tmp_path))


def test_limits_that_are_low_are_told_with_what_raises_them(tmp_path: Path) -> None:
    (tmp_path / "sys/net/core").mkdir(parents=True)
    (tmp_path / "sys/net/core/somaxconn").write_text("128\n")
    text = "unix//run/x.sock {\npython {\nmodule_wsgi main:app\nlimits {\nmemory 512MB\n}\n}\n}\n"
    planned = plan(load(text.encode(), "Caddyfile", {}), cores=1)
    found = {finding.text: finding for finding in check_machine(planned, str(tmp_path), str(tmp_path))}
    (queue,) = [finding for said, finding in found.items() if "queue holds 128" in said]
    assert (queue.level, queue.fix) == (Level.DOUBT, "sysctl -w net.core.somaxconn=4096")
    assert any("no memory controller" in said for said in found)


@pytest.mark.parametrize("is_booted", [True, False])
def test_a_limit_is_raised_in_a_unit_only_where_something_reads_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_booted: bool
) -> None:
    monkeypatch.setattr(cgroups, "_SYSTEMD", str(tmp_path if is_booted else tmp_path / "nothing"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(machine, "_DESCRIPTORS", before[1] + 1)
    (fix,) = [finding.fix for finding in check_machine(None) if "open files a process" in finding.text]
    assert ("in the unit: LimitNOFILE=" in fix) is is_booted
    assert ("ulimit -n " in fix) is not is_booted
    monkeypatch.setattr(machine, "in_container", lambda: True)
    (fix,) = [finding.fix for finding in check_machine(None) if "open files a process" in finding.text]
    assert ("start the container with --ulimit nofile=" in fix) is not is_booted


def test_a_user_that_is_only_guessed_is_told_as_a_guess(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    (found,) = findings(folder, STRANGER._replace(is_guess=True))
    assert "no Caddy runs" in found.text
    (found,) = findings(folder, STRANGER)
    assert "no Caddy runs" not in found.text


def doctor(*words: str, cwd: Path) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "caddysnake", "doctor", "--json", *words],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else [], done.stderr


def test_the_command_prints_what_is_wrong_and_its_status_says_so(folder: Path) -> None:
    (folder / "main.py").write_text("def app(environ, start_response): ...\n")
    text = f"unix/{folder}/s.sock|0666 {{\n\tpython main:app\n}}\n"
    (folder / "Caddyfile").write_text(text)
    status, found, _ = doctor("--caddy-user", "nobody", cwd=folder)
    assert [row for row in found if row["level"] == "bad"] == []
    assert status == 0
    assert {"file", "software", "machine", "sockets"} <= {row["topic"] for row in found}
    (folder / "Caddyfile").write_text(text.replace("main:app", "mian:app"))
    status, found, _ = doctor("--caddy-user", "nobody", cwd=folder)
    assert status == 1
    assert any("mian" in row["text"] for row in found if row["level"] == "bad")


def test_the_command_says_what_cannot_be_asked(folder: Path) -> None:
    status, found, said = doctor("--caddy-user", "nobody-has-this-name", cwd=folder)
    assert (status, found, said) == (1, [], "Error: there is no user nobody-has-this-name\n")
    status, found, _ = doctor(cwd=folder)  # no file: the machine alone
    assert any("only the machine" in row["text"] for row in found)
