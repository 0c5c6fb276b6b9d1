"""Containers for real, without a registry: base images made of a Debian folder and of the stock Caddy's binary."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support import machine
from support.caddies import caddy

ROOT = machine.ROOT
PYTHON = "docker.io/library/python:3.13-slim"
CADDY = "docker.io/library/caddy:2"
NEEDED = {"podman": "podman", "buildah": "buildah", "runc": "runc", "debootstrap": "debootstrap"}
# crun, higher limits and control groups of systemd's are not to be had everywhere.
_CONFIGURATION = """\
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
infra_image="localhost/pause"
[containers]
default_ulimits=["nofile=1024:1024","nproc=1000:1000"]
"""
_BUILD_S = 300.0
_PAUSE = f'FROM {PYTHON}\nENTRYPOINT ["sleep", "infinity"]\n'
_NOT_IN_IMAGES = ("./usr/lib/systemd", "./var/lib/apt", "./var/lib/dpkg/info")


class Podman:
    """podman with a store of its own, which is kept between runs."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        (folder / "containers.conf").write_text(_CONFIGURATION)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver="overlay"\ngraphroot="{store}"\nrunroot="/run/caddysnake-tests"\n'
        )
        self.environ = {
            "CONTAINERS_CONF": f"{folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
        }

    def __call__(self, *arguments: str, timeout: float = 60.0) -> str:
        """What ``podman`` prints; fails when it does."""
        return machine.run(["podman", *arguments], timeout, **self.environ).strip()

    def begin(self, *arguments: str) -> Callable[[], str]:
        """Begin ``podman`` with these; calling what is returned waits for what it prints."""
        environ = {**os.environ, **self.environ}
        process = subprocess.Popen(["podman", *arguments], stdout=subprocess.PIPE, text=True, env=environ)

        def finish() -> str:
            try:
                return process.communicate(timeout=60)[0].strip()
            finally:
                process.kill()
                process.wait()

        return finish

    def fails(self, *arguments: str) -> str:
        """What ``podman`` complains of."""
        environ = {**os.environ, **self.environ}
        done = subprocess.run(
            ["podman", *arguments], capture_output=True, text=True, timeout=60, check=False, env=environ
        )
        assert done.returncode != 0, done.stdout
        return done.stderr

    def log(self, container: str) -> str:
        """What a container has said."""
        environ = {**os.environ, **self.environ}
        command = ["podman", "logs", container]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True, env=environ
        ).stdout

    def has(self, image: str) -> bool:
        """It is in the store."""
        return bool(self("images", "--quiet", image))

    def inspect(self, what: str) -> dict:  # type: ignore[type-arg]
        """What podman knows of an image or a container."""
        found: dict = json.loads(self("inspect", what))[0]  # type: ignore[type-arg]
        return found

    def take_in(self, image: str, root: Path, *changes: str) -> None:
        """Make ``image`` of the folder ``root``."""
        options = [word for change in changes for word in ("--change", change)]
        exclude = [f"--exclude={path}" for path in _NOT_IN_IMAGES]
        packing = subprocess.Popen(["tar", "-C", str(root), *exclude, "-c", "."], stdout=subprocess.PIPE)
        with packing:
            environ = {**os.environ, **self.environ}
            command = ["podman", "import", "--quiet", *options, "-", image]
            subprocess.run(
                command, stdin=packing.stdout, check=True, timeout=_BUILD_S, env=environ, capture_output=True
            )

    def build(self) -> None:
        """The image ``caddysnake``, as docker/Dockerfile says, from wheels that the base image brings."""
        self(
            *("build", "--quiet", "--isolation", "chroot", "--network", "host", "--format", "docker"),
            *("--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/opt/wheels"),
            *("--file", f"{ROOT}/docker/Dockerfile", "--tag", "caddysnake", str(ROOT)),
            timeout=_BUILD_S,
        )

    def make(self, image: str, dockerfile: str) -> None:
        """``image``, of what stands in the folder."""
        (self.folder / "Dockerfile").write_text(dockerfile)
        self("build", "--quiet", "--isolation", "chroot", "--format", "docker", "--tag", image, str(self.folder))

    @contextmanager
    def play(self, pod: str) -> Iterator[str]:
        """``podman kube play``, with a network of nothing but loopback; the container that has it, and Python."""
        self.make("localhost/pause", _PAUSE)
        file = self.folder / "pod.yaml"
        file.write_text(pod)
        try:
            self("kube", "play", "--network=none", str(file))
            found = [name for name in self("ps", "--format={{.Names}}").split() if name.endswith("-infra")]
            yield found[0]
        finally:
            self("kube", "down", str(file))
            for name in re.findall(r"^kind: ConfigMap\nmetadata:\n  name: (\S+)", pod, re.MULTILINE):
                self("volume", "rm", "--force", name)

    @contextmanager
    def up(self, file: str, port: int) -> Iterator[str]:
        """``podman-compose up`` of a file in docker/, with Caddy on ``port`` of loopback; the project's name."""
        project = f"caddysnake-test-{os.getpid()}"
        override = self.folder / "override.yaml"
        override.write_text(
            "services:\n  caddy:\n    network_mode: host\n    environment:\n"
            f"      SITE: http://:{port}\n      CADDY_ADMIN: unix//config/admin.sock\n"
            "  sidecar:\n    network_mode: none\n"
        )
        compose = [str(Path(sys.executable).with_name("podman-compose")), "--in-pod", "false", "-p", project]
        compose += ["-f", f"{ROOT}/docker/{file}", "-f", str(override)]
        try:
            machine.run([*compose, "up", "--detach", "--no-build"], **self.environ)
            yield project
        finally:
            machine.run([*compose, "down", "--volumes", "--timeout", "20"], **self.environ)


@contextmanager
def podman(folder: Path) -> Iterator[Podman]:
    """One that has the base images and the sidecar's; for one process at a time. Skips where that cannot be done."""
    machine.require(NEEDED)
    debian = machine.debian()
    with machine.cache() as cache:
        store = cache / "containers"
    with (store.parent / "containers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_of = store.parent / "containers.made-of"
        if store.exists() and (not made_of.exists() or made_of.read_text() != debian.name):
            shutil.rmtree(store)
        found = Podman(folder, store)
        if not found.has(PYTHON):
            found.take_in(PYTHON, debian)
        if not found.has(CADDY):
            root = folder / "caddy"
            for name in ("usr/bin", "etc", "config", "data", "tmp"):
                (root / name).mkdir(parents=True, mode=0o755)
            shutil.copy(caddy("current"), root / "usr/bin/caddy")
            (root / "etc/passwd").write_text("root:x:0:0:root:/:/\n")
            (root / "etc/group").write_text("root:x:0:\n")
            command = '["caddy","run","--config","/etc/caddy/Caddyfile","--adapter","caddyfile"]'
            environ = ("ENV PATH=/usr/bin", "ENV XDG_CONFIG_HOME=/config", "ENV XDG_DATA_HOME=/data")
            found.take_in(CADDY, root, f"CMD {command}", *environ)
        made_of.write_text(debian.name)
        found.build()
        try:
            yield found
        finally:
            found("image", "prune", "--force")
