"""A Debian of its own, with systemd, Caddy and Python, made once and booted in a container of systemd's.

It is kept between runs, and each boot writes into memory. It has a network of its own, with nothing but loopback.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
_RECIPE = "1"
"""To be counted up when ``_build`` makes something else."""
_GUEST_PYTHON = "3.11"
_PACKAGES = "python3,python3-venv,systemd,dbus,caddy"
_NEEDED = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container"}
_BUILD_S = 600
_BOOT_S = 300
_FROM_SOURCE = ("argparse-manpage",)
"""Those of which there are no wheels. They hold nothing compiled."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")

CHECKER = """\
[Unit]
Description=Checks
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /check/run
StandardOutput=append:/check/log
StandardError=append:/check/log
ExecStopPost=/bin/systemctl --force --force poweroff
TimeoutStartSec=280
[Install]
WantedBy=default.target
"""


def require(programs: dict[str, str] | None = None) -> None:
    """Skip where this cannot be done, and say what is missing."""
    needed = _NEEDED if programs is None else programs
    missing = sorted({package for program, package in needed.items() if shutil.which(program) is None})
    if missing:
        pytest.skip(f"apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine")


def dependencies() -> list[str]:
    """What the package itself depends on, and what builds it; in the versions that the container image has."""
    pinned = [line for line in (ROOT / "docker/requirements.txt").read_text().splitlines() if not line.startswith("#")]
    return [*pinned, *tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]]


def debian() -> Path:
    """The root folder, made if need be: ``/opt/wheels`` in it holds everything that the package depends on."""
    recipe = "\n".join((_RECIPE, SUITE, _PACKAGES, CHECKER, *dependencies()))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    with cache() as folder:
        root = folder / f"debian-{digest}"
        if not root.exists():
            for stale in folder.glob("debian-*"):
                shutil.rmtree(stale)
            building = folder / "building"
            shutil.rmtree(building, ignore_errors=True)
            _build(building)
            building.rename(root)
    return root


@contextmanager
def cache() -> Iterator[Path]:
    """The folder of what is kept between runs, for one process at a time."""
    folder = Path(os.environ.get("CADDYSNAKE_MACHINES", "/var/cache/caddysnake-tests"))
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _build(root: Path) -> None:
    run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", SUITE, str(root)], timeout=_BUILD_S)
    shutil.rmtree(root / "var/cache/apt")
    for unneeded in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(root / unneeded)
    wheels = f"{root}/opt/wheels"
    plain = [each for each in dependencies() if each.startswith(_FROM_SOURCE)]
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, *plain], timeout=_BUILD_S)
    others = [each for each in dependencies() if each not in plain]
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{os.uname().machine}")]
    run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", wheels),
            *("--python-version", _GUEST_PYTHON, "--implementation", "cp", *platforms, *others),
        ],
        timeout=_BUILD_S,
    )
    # Every user may read what is installed from them.
    run(["chmod", "-R", "a+rX", wheels])
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/systemd/system/check.service").write_text(CHECKER)
    wants = root / "etc/systemd/system/default.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "check.service").symlink_to("../check.service")
    # The check is what the machine is for; a console would wait for a terminal.
    for unit in ("console-getty.service", "getty.target"):
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")


def wheel(folder: Path) -> Path:
    """This package as a wheel, in ``folder``."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    run(command, timeout=_BUILD_S)
    (found,) = folder.glob("*.whl")
    return found


@contextmanager
def booted(root: Path, shared: Path) -> Iterator[str]:
    """Boot it with ``shared`` as ``/check``, where ``run`` is carried out, until it has powered off; the log."""
    with tempfile.TemporaryFile() as console:
        command = [
            *("systemd-nspawn", "--quiet", "--directory", str(root), "--volatile=overlay", "--private-network"),
            *("--register=no", "--keep-unit", f"--bind={shared}:/check", "--machine=caddysnake-test", "--boot"),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
        try:
            process.wait(_BOOT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        console.seek(0)
        told = console.read().decode(errors="replace")[-4000:]
    log = shared / "log"
    yield (log.read_text(errors="replace") if log.exists() else "it did not come to the checks\n") + told


def run(command: list[str], timeout: float = 120.0, **more: str) -> str:
    """What ``command`` prints. Fails with what it printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **more}
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
