"""Limits of memory by cgroups, on a Debian with a kernel of its own; each check of memory.py is a test here.

A container has its host's controllers, so an emulated machine is booted: it needs neither KVM nor a disk, and about six
minutes. Therefore only when asked for:

    apt-get install qemu-system-x86 cpio; apt-get download linux-image-cloud-amd64; dpkg -x linux-image-*.deb x
    CADDYSNAKE_KERNEL=$(echo x/boot/vmlinuz-*) pytest tests/machine/test_memory.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import machine

HERE = Path(__file__).parent
KERNEL = os.environ.get("CADDYSNAKE_KERNEL")
NAMES = re.findall(r"^def (check_\w+)", (HERE / "memory.py").read_text(), re.MULTILINE)
MACHINE_S = 1500
LAUNCHER = "#!/opt/caddysnake/bin/python3\nimport sys\nfrom caddysnake.cli.main import main\nsys.exit(main())\n"
UNHURRIED = "[Service]\nTimeoutStartSec=infinity\n"
"""What it starts is slower by a factor of thirty than on the machine that emulates it, rehearsals of upgrades too."""

pytestmark = [pytest.mark.machine, pytest.mark.timeout(MACHINE_S + 300), pytest.mark.xdist_group("machine")]


def environment(folder: Path, wheels: Path, ours: Path) -> None:
    """A virtual environment for the guest: pip would take it a quarter of an hour."""
    place = folder / "lib/python3.11/site-packages"
    needed = [str(each) for each in wheels.glob("*.whl") if not each.name.startswith(("hatchling", "trove"))]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(place)]
    # For the guest's Python, whatever this one is.
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
    command += [word for name in machine.PLATFORMS for word in ("--platform", f"{name}_{os.uname().machine}")]
    machine.run([*command, *needed, str(ours)], timeout=300)
    upgrade = place / "caddysnake/daemon/upgrade/upgrade.py"
    upgrade.write_text(upgrade.read_text().replace("_REHEARSAL_S = 60.0", "_REHEARSAL_S = 600.0"))
    machine.run([sys.executable, "-m", "compileall", "-q", str(place)], timeout=300)
    (folder / "bin").mkdir()
    for name, target in (("python3", "/usr/bin/python3"), ("python", "python3")):
        (folder / "bin" / name).symlink_to(target)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "bin/caddysnake").write_text(LAUNCHER)
    (folder / "bin/caddysnake").chmod(0o755)


def archive(root: Path, to: Path, *left_out: str) -> None:
    """Append ``root`` to the initial file system ``to``."""
    named = [str(path.relative_to(root)) for path in [root, *root.rglob("*")]]
    wanted = "\0".join(name for name in named if not name.startswith(left_out or "\0"))
    with to.open("ab") as file:
        command = ["cpio", "--null", "--create", "--format=newc", "--quiet"]
        subprocess.run(command, cwd=root, input=wanted.encode(), stdout=file, check=True, timeout=300)


def boot(kernel: str, initial: Path, folder: Path) -> tuple[dict[str, str], str]:
    """The outcome, and all that was said."""
    command = [
        *("qemu-system-x86_64", "-accel", "tcg", "-m", "2048", "-smp", "2", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-serial", f"file:{folder}/console", "-serial", f"file:{folder}/said"),
        *("-kernel", kernel, "-initrd", str(initial), "-append", "console=ttyS0 rdinit=/lib/systemd/systemd panic=-1"),
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            process.wait(MACHINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    said = (folder / "said").read_text(errors="replace")
    last = said.strip().splitlines()[-1:] or [""]
    return (json.loads(last[0]) if last[0].startswith("{") else {}), said + (folder / "console").read_text()[-2000:]


if KERNEL:  # a test that is skipped for ever would say nothing

    @pytest.fixture(scope="module")
    def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
        machine.require({"debootstrap": "debootstrap", "qemu-system-x86_64": "qemu-system-x86", "cpio": "cpio"})
        root, folder = machine.debian(), tmp_path_factory.mktemp("machine")
        guest, initial = folder / "guest", folder / "initial"
        (guest / "check").mkdir(parents=True)
        for name in ("checks.py", "memory.py"):
            shutil.copy(HERE / name, guest / "check")
        (guest / "check/run").write_text("exec >/dev/ttyS1 2>&1\nexec python3 /check/memory.py\n")
        unhurried = guest / "etc/systemd/system/check.service.d/unhurried.conf"
        unhurried.parent.mkdir(parents=True)
        unhurried.write_text(UNHURRIED)
        environment(guest / "opt/caddysnake", root / "opt/wheels", machine.wheel(folder))
        archive(root, initial, "opt/wheels", "usr/bin/caddy")
        archive(guest, initial)
        checks, log = boot(str(KERNEL), initial, folder)
        initial.unlink()
        print(log)
        return checks, log

    @pytest.mark.parametrize("name", NAMES)
    def test_with_the_memory_controller(outcome: tuple[dict[str, str], str], name: str) -> None:
        checks, log = outcome
        assert name in checks, log
        assert not checks[name], checks[name]
