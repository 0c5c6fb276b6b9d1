"""The image is built and the compose files are brought up, as docker/ has them, with podman."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import containers, machine
from support.containers import Podman
from support.daemon import PATIENCE_S, eventually, free_port, get

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]

ORPHAN = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.3)
    os._exit(0)
os.wait()
"""
ZOMBIES = """
import glob
told = [open(name).read() for name in glob.glob("/proc/[0-9]*/stat")]
print([line for line in told if line.rpartition(")")[2].split()[0] == "Z"])
"""
KNOCK = """
import socket
socket.socket(socket.AF_UNIX).connect("/run/caddysnake/app.sock")
"""
BLOG = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"blog"})
"""
# Caddy may still be starting when it is asked the first time.
ASKING = """
import http.client, sys, time
found, until = {}, time.monotonic() + 40
while sum(found.values()) < int(sys.argv[1]) and time.monotonic() < until:
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except ConnectionRefusedError:
        time.sleep(0.2)
        continue
    found[status] = found.get(status, 0) + 1
    connection.close()
    time.sleep(0.1)
print(found)
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    with containers.podman(tmp_path_factory.mktemp("containers")) as found:
        yield found


def wait_for(port: int, host: str = "localhost") -> bytes:
    """What Caddy answers once it does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            status, body = get("/", port=port, host=host)
            if status == 200:
                return body
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_image_holds_no_more_than_it_must(podman: Podman) -> None:
    image = podman.inspect("caddysnake")
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Entrypoint"] == ["caddysnake"]
    assert image["HealthCheck" if "HealthCheck" in image else "Healthcheck"]["Test"][0] == "CMD"
    assert image["Size"] - podman.inspect(containers.PYTHON)["Size"] < 80e6
    assert podman("run", "--rm", "--network=none", "caddysnake", "version").startswith("0.")
    assert "No module named pip" in podman.fails(
        "run", "--rm", "--network=none", "--entrypoint=/opt/caddysnake/bin/python", "caddysnake", "-m", "pip"
    )


def test_an_app_behind_caddys_image(podman: Podman) -> None:
    port = free_port()
    with podman.up("compose.yaml", port) as project:
        sidecar = f"{project}_sidecar_1"
        first = wait_for(port)
        assert first.endswith(b" of user 10001\n")
        # What the app prints is in the container's log, and so is the daemon's own.
        eventually(lambda: '"msg":"asked for /"' in podman.log(sidecar), "what the app printed")
        assert '"msg":"app ready"' in podman.log(sidecar)
        podman("healthcheck", "run", sidecar)
        assert "Read-only file system" in podman.fails("exec", sidecar, "touch", "/x")
        assert "Permission denied" in podman.fails("exec", "--user=12345:12345", sidecar, "python3", "-c", KNOCK)
        podman("exec", "--user=12345:10001", sidecar, "python3", "-c", KNOCK)
        # It is process 1, and buries whatever nobody else does.
        podman("exec", sidecar, "python3", "-c", ORPHAN)
        time.sleep(2.5)
        assert podman("exec", sidecar, "python3", "-c", ZOMBIES) == "[]"
        podman("kill", "--signal=HUP", sidecar)
        deadline = time.monotonic() + PATIENCE_S
        while wait_for(port) == first:
            assert time.monotonic() < deadline
        # Told to stop, it finishes what it was asked.
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(get("/", port=port, **{"X-Sleep": "2"})[0]))
        asking.start()
        time.sleep(0.7)
        begun = time.monotonic()
        podman("stop", "--time=30", sidecar)
        assert time.monotonic() - begun < 15
        asking.join(PATIENCE_S)
        assert answers == [200]
        assert podman.inspect(sidecar)["State"]["ExitCode"] == 0


def test_many_tenants_behind_caddys_image(podman: Podman) -> None:
    port = free_port()
    with podman.up("compose.tenants.yaml", port):
        assert wait_for(port, "red.localhost") == b"This is red\n"
        assert wait_for(port, "blue.localhost") == b"This is blue\n"
        assert get("/", port=port, host="green.localhost")[0] == 404


def test_a_caddy_that_is_not_root_needs_the_group(podman: Podman, tmp_path: Path) -> None:
    volume = f"caddysnake-test-{free_port()}"
    docker = machine.ROOT / "docker"
    names = []
    try:
        names.append(
            podman(
                *("run", "--detach", "--network=none", f"--volume={volume}:/run/caddysnake"),
                f"--volume={docker}/app:/srv/app:ro",
                f"--volume={docker}/sidecar.caddyfile:/etc/caddysnake/Caddyfile:ro",
                "caddysnake",
            )
        )
        told = podman("exec", names[0], "caddysnake", "doctor", "--config", "/etc/caddysnake/Caddyfile")
        assert "fix: let its container be in the socket's group: --group-add 10001" in told
        assert not any(word in told for word in ("systemctl", "usermod", "in the unit"))
        for groups, expected in ((["--group-add=10001"], 200), ([], 502)):
            port = free_port()
            names.append(
                podman(
                    *("run", "--detach", "--network=host", "--user=20000:20000", *groups),
                    *(f"--env=SITE=http://:{port}", f"--env=CADDY_ADMIN=localhost:{free_port()}"),
                    *(f"--volume={volume}:/run/caddysnake:ro", f"--volume={docker}/Caddyfile:/etc/caddy/Caddyfile:ro"),
                    containers.CADDY,
                )
            )
            deadline = time.monotonic() + PATIENCE_S
            status = 0
            while status != expected and time.monotonic() < deadline:
                time.sleep(0.1)
                try:
                    status = get("/", port=port)[0]
                except OSError:
                    continue
            assert status == expected, podman.log(names[-1])
    finally:
        for name in names:
            podman("rm", "--force", "--time=5", name)
        podman("volume", "rm", "--force", volume)


def test_the_pod_of_the_page_answers_and_waits_for_a_sidecar_that_is_started_again(podman: Podman) -> None:
    page = (machine.ROOT / "docs/guides/kubernetes.md").read_text()
    pod, sidecar, front = re.findall(r"```(?:yaml|caddyfile)\n(.*?)```", page, re.DOTALL)[:3]
    probes = [each["exec"]["command"] for each in _probes(yaml.safe_load(pod))]
    assert len(probes) == 2
    # No registry, no load balancer: an image of here, one pod, whose ports are asked inside.
    for written, here in (("image: caddy:2", f"image: {containers.CADDY}"), ("replicas: 2", "replicas: 1"),
                          ("image: registry.example.com/", "image: localhost/"),
                          ("ports: [{containerPort: 8080}]", "imagePullPolicy: Never")):  # fmt: skip
        assert written in pod
        pod = pod.replace(written, here)
    for name, text in (("blog-caddy", front), ("blog-sidecar", sidecar)):
        lines = "".join(f"    {line}\n" for line in text.splitlines())
        pod += f"---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  Caddyfile: |\n{lines}"
    (podman.folder / "main.py").write_text(BLOG)
    podman.make("localhost/blog:1.4", "FROM caddysnake\nCOPY main.py /srv/blog/\n")
    with podman.play(pod) as inside:
        assert podman("exec", inside, "python3", "-c", ASKING, "1") == "{200: 1}"
        for probe in probes:
            podman("exec", "blog-pod-0-app", *probe)
        asking = podman.begin("exec", inside, "python3", "-c", ASKING, "40")
        podman("restart", "--time=10", "blog-pod-0-app")
        assert asking() == "{200: 40}"
        for probe in probes:
            podman("exec", "blog-pod-0-app", *probe)


def _probes(deployment: dict) -> list[dict]:  # type: ignore[type-arg]
    (app,) = (each for each in deployment["spec"]["template"]["spec"]["containers"] if each["name"] == "app")
    return [app[name] for name in ("readinessProbe", "livenessProbe")]


@pytest.mark.parametrize("file", ["compose.yaml", "compose.tenants.yaml"])
def test_the_sidecar_of_a_compose_file_has_no_more_rights_than_it_needs(file: str) -> None:
    sidecar = yaml.safe_load((machine.ROOT / "docker" / file).read_text())["services"]["sidecar"]
    assert sidecar["read_only"] is True
    assert sidecar["cap_drop"] == ["ALL"]
    assert sidecar["security_opt"] == ["no-new-privileges"]
    assert all(volume.endswith(":ro") for volume in sidecar["volumes"] if not volume.startswith("sockets:"))
