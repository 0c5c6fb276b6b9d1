"""Tenants in sandboxes that mean harm, against a real daemon: with one user, and with one for each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, eventually, free_port, get
from support.estate import Estate, block
from support.pythons import make_venv, site_of
from support.siege import APP
from support.tenants import ALICE, BOB, Public, give, needs_root, public_folder

from caddysnake.sandbox import landlock, seccomp, syscalls, walls

pytestmark = [
    needs_root,
    pytest.mark.skipif(walls.why_not() != "", reason=walls.why_not() or "-"),
    pytest.mark.skipif(landlock.abi() < landlock.SCOPES_ABI, reason="Landlock's scopes need Linux 6.12"),
]

NUMBERS = {call.name: call.numbers[syscalls.MACHINES.index(seccomp.machine() or "x86_64")] for call in syscalls.CALLS}
REFUSED = {"EPERM", "EACCES", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ENOTSUP", "EXDEV"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as found:
        for name in ("alice", "bob"):
            (found / name).mkdir()
            (found / name / "main.py").write_text(APP)
            (found / name / "secret.txt").write_text(f"of {name}")
            (found / name / "program").write_text("#!/bin/sh\n")
            (found / name / "program").chmod(0o755)
        yield found


def text_of(folder: Path, public: Public, *lines: str, users: bool = False) -> str:
    """Each app on a socket of its own, and both behind one that is a relay's."""
    text = f"{{\n\tgrace_period 2s\n\tdefault_bind unix/{folder}/shared.sock|0600\n}}\n"
    for name, uid in (("alice", ALICE), ("bob", BOB)):
        own = [f"user {uid}"] if users else []
        app = block(folder, name, public, *own, *lines)
        text += f"unix/{folder}/{name}.sock|0600 {{\n{app}}}\nhttp://{name}.test {{\n{app}}}\n"
    return text


def template(folder: Path, public: Public, below: str = "") -> str:
    label = "{http.request.host.labels.1}"
    return f"""{{
	grace_period 2s
	socket_mode 0600
}}
unix/{folder}/all.sock {{
	python {{
		module_wsgi main:app
		working_dir {folder}/{label}{below}
		python_path {public.python}
		sandbox on {{
			write {folder}/data/{label}
			read -{folder}/more/{label}
		}}
	}}
}}
"""


def run(folder: Path, public: Public, text: str, user: int | None) -> Process:
    """A daemon of ``user``, who has all the folders; None: of root."""
    for name, uid in (("alice", ALICE), ("bob", BOB if user is None else ALICE)):
        give(folder / name, uid)
    if user is not None:
        os.chown(folder, user, user)
    (folder / "Caddyfile").write_text(text)
    environ = {"PYTHONPATH": public.site, "PYTHONDONTWRITEBYTECODE": "1"}
    process = Process([public.python, "-m", "caddysnake", "run"], folder, "daemon", environ, user=user)
    try:
        process.wait_for_log(" ready in ")
    except BaseException:
        process.close()
        raise
    return process


def besieged(estate: Estate, folder: Path) -> Any:
    bob, alice = estate.ask("bob", "who"), estate.ask("alice", "who")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        name = f"caddysnake-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        return estate.ask(
            "alice",
            "besiege",
            processes={
                "daemon": estate.process.pid,
                "relay": estate.relay(),
                "bob's worker": bob["pid"],
                "bob's fork server": bob["parent"],
                "own fork server": alice["parent"],
            },
            numbers=NUMBERS,
            folder=str(folder / "bob"),
            tmp=bob["tmp"],
            port=server.getsockname()[1],
            abstract=name,
            socket=str(folder / "bob.sock"),
        )


def failures(found: dict[str, dict[str, str]]) -> list[tuple[str, str, str]]:
    return [
        (whom, act, result) for whom, acts in found.items() for act, result in acts.items() if result not in REFUSED
    ]


STRICT = "sandbox on {\n\t\t\tconnect none\n\t\t}"


@pytest.mark.parametrize("runtime", ["process", "thread"])
def test_a_tenant_of_one_user_gets_at_nothing_of_its_neighbours(folder: Path, public: Public, runtime: str) -> None:
    process = run(folder, public, text_of(folder, public, STRICT, f"workers_runtime {runtime}"), ALICE)
    try:
        estate = Estate(folder, process)
        found = besieged(estate, folder)
        assert failures(found) == [], process.log
        assert (folder / "bob" / "secret.txt").read_text() == "of bob"
        bob = estate.ask("bob", "who")["pid"]
        estate.ask("alice", "kill_all")
        assert estate.ask("bob", "who")["pid"] == bob
        lives = estate.ask("alice", "live")
        assert {name: result for name, result in lives.items() if result == "done"}.keys() >= {
            "temporary", "names", "sqlite", "lock", "shared memory", "thread", "program", "mime", "loop", "user",
            "own code",
        }, lives  # fmt: skip
        assert os.path.basename(lives["tmp"]) == "tmp"
        if seccomp.machine() == "x86_64" and runtime == "process":
            assert set(estate.ask("alice", "call_by_other_numbers").values()) <= {11, 31}
        # What docs/isolation.md says is left.
        left = estate.ask("alice", "left", folder=str(folder / "bob"))
        assert set(left.values()) == {"done"}, left
    finally:
        process.close()


def test_with_users_of_their_own_the_sandbox_is_a_second_wall(folder: Path, public: Public) -> None:
    process = run(folder, public, text_of(folder, public, STRICT, users=True), None)
    try:
        estate = Estate(folder, process)
        found = besieged(estate, folder)
        assert failures(found) == [], process.log
        lives = estate.ask("alice", "live")
        assert lives["sqlite"] == lives["program"] == "done", lives
    finally:
        process.close()


def test_tenants_of_a_template_share_a_fork_server_and_have_only_what_is_theirs(folder: Path, public: Public) -> None:
    for name in ("alice", "bob"):
        (folder / "data" / name).mkdir(parents=True)
        (folder / f"{name}.sock").symlink_to("all.sock")
        give(folder / "data" / name, ALICE)
    process = run(folder, public, template(folder, public), ALICE)
    try:
        ask = Estate(folder, process).ask
        alice, bob = ask("alice", "who"), ask("bob", "who")
        assert alice["parent"] == bob["parent"]
        assert alice["tmp"] != bob["tmp"]
        paths = [
            (f"{folder}/alice/secret.txt", "r"),
            (f"{folder}/data/alice/x", "w"),
            (f"{folder}/alice/x", "w"),
            (f"{folder}/bob/secret.txt", "r"),
            (f"{folder}/data/bob/x", "w"),
            (f"{bob['tmp']}/x", "w"),
            (f"{alice['tmp']}/link", "l"),
            (f"{folder}/data/alice/link", "l"),  # which a Caddy that serves the folder would follow
        ]
        found = ask("alice", "tried", paths=paths)
        assert list(found.values()) == ["done", "done", "EACCES", "EACCES", "EACCES", "EACCES", "done", "EACCES"]
        reached = ask("alice", "attack", processes={}, files=[], folders=[], sockets=[f"{folder}/all.sock"])
        assert set(reached["sockets"].values()) == {"EAFNOSUPPORT"}
        assert get("/stumble", path=folder / "all.sock", Host="alice.test")[0] == 500
        process.wait_for_log("outside of the sandbox: `read /home`", 2)  # what is raised, and what is printed
        assert "started afresh" not in process.log  # what was warm before the first request
    finally:
        process.close()


def test_a_tenant_that_links_its_folder_to_anothers_is_not_started(folder: Path, public: Public) -> None:
    (folder / "data" / "alice").mkdir(parents=True)
    (folder / "alice" / "app").symlink_to(folder / "bob")
    process = run(folder, public, template(folder, public, "/app"), ALICE)
    try:
        status, body = get("/who", path=folder / "all.sock", Host="alice.test")
        assert status >= 500, body
        process.wait_for_log(f"by a link in {folder}/alice")
    finally:
        process.close()


def test_after_a_deploy_by_a_link_a_reload_is_enough(folder: Path, public: Public) -> None:
    for number in (1, 2):
        (folder / f"release{number}").mkdir()
        (folder / f"release{number}" / "main.py").write_text(APP)
    (folder / "current").symlink_to("release1")
    app = block(folder, "current", public, "sandbox on")
    process = run(folder, public, f"unix/{folder}/alice.sock|0600 {{\n{app}}}\n", ALICE)
    try:
        estate = Estate(folder, process)
        before = estate.ask("alice", "who")
        (folder / "next").symlink_to("release2")
        (folder / "next").rename(folder / "current")
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_log("reloaded")
        after = estate.ask("alice", "who")
        assert before["parent"] != after["parent"]
        paths = [(f"{folder}/release{number}/main.py", "r") for number in (1, 2)]
        assert list(estate.ask("alice", "tried", paths=paths).values()) == ["EACCES", "done"]
    finally:
        process.close()


def test_what_keeps_an_app_from_starting_is_told_with_the_line_that_would_let_it(folder: Path, public: Public) -> None:
    venv = make_venv(public.python, folder / "venv")
    (site_of(venv) / "beside.pth").write_text(f"{folder}/bob\n")  # as of what is installed as editable
    app = block(folder, "alice", public, "sandbox on").replace(f"python_path {public.python}", f"venv {venv}")
    for source, line in (
        (f"open({str(folder / 'bob' / 'secret.txt')!r})", f"`read {folder}/bob/secret.txt`"),
        ("import program", f"`read {folder}/bob`"),
        ("import socket\nsocket.create_server(('127.0.0.1', 54321))", "`listen 54321`"),
    ):
        (folder / "alice" / "main.py").write_text(f"{source}\n")
        with pytest.raises(AssertionError, match="ended with 1"):
            run(folder, public, f"unix/{folder}/alice.sock|0600 {{\n{app}}}\n", ALICE)
        assert line in (folder / "daemon.log").read_text()


def test_what_an_app_runs_besides_is_in_its_sandbox_too(folder: Path, public: Public) -> None:
    (folder / "data").mkdir()
    give(folder / "data", ALICE)
    reach = f"(cat {folder}/bob/secret.txt || echo kept) >{folder}/data/%s 2>&1"
    lines = (
        f'release sh -c "{reach % "release"}"',
        f'process watch sh -c "{reach % "process"}; exec sleep 600"',
        f"sandbox on {{\n\t\t\twrite {folder}/data\n\t\t}}",
    )
    app = block(folder, "alice", public, *lines)
    process = run(folder, public, f"unix/{folder}/alice.sock|0600 {{\n{app}}}\n", ALICE)
    try:
        for name in ("release", "process"):
            path = folder / "data" / name
            eventually(lambda path=path: path.exists() and "kept" in path.read_text(), name)
            assert "of bob" not in path.read_text()
    finally:
        process.close()


def test_no_app_runs_as_root_in_a_sandbox(folder: Path, public: Public) -> None:
    app = block(folder, "alice", public, "sandbox on")
    with pytest.raises(AssertionError, match="runs as root cannot be kept in a sandbox"):
        run(folder, public, f"unix/{folder}/alice.sock|0600 {{\n{app}}}\n", None)


def test_every_view_says_what_holds_and_an_upgrade_leaves_the_walls_up(folder: Path, public: Public) -> None:
    text = text_of(folder, public, "sandbox on", users=True)
    process = run(folder, public, text, None)
    try:
        estate = Estate(folder, process)
        process.wait_for_log("admin API ready")
        before = estate.ask("alice", "who")["pid"]
        process.wait_for_log('"sandbox":"walled"', 4)
        assert "apps are not isolated" not in process.log
        (one, *_) = [app for app in call(process, "GET", "/status").json["apps"] if app["name"] == "alice/main:app"]
        assert one["sandbox"] == "walled"
        # Each has two blocks here, which are two apps.
        assert one["sandbox_holds"].startswith("apart from others of its user; sees that files exist")
        told = one["sandbox_holds"]
        assert (
            f"walled: alice/main:app, alice/main:app#2, bob/main:app, bob/main:app#2: {told}"
            in command(process, folder, "status").stdout
        )
        validated = command(process, folder, "validate", check=True).stderr
        assert "not isolated" not in validated
        assert f"Note: alice/main:app: walled: {told}" in validated
        assert f"alice/main:app: walled: {told}" in command(process, folder, "doctor").stdout

        assert call(process, "POST", "/upgrade").status == 200
        process.wait_for_log('"msg":"upgraded"')  # whoever asks meanwhile may be cut off
        assert call(process, "GET", "/status").json["daemon"]["upgrades"] == 1
        assert estate.ask("alice", "who")["pid"] == before
        paths = [(f"{folder}/alice/secret.txt", "r"), (f"{folder}/bob/secret.txt", "r")]
        assert list(estate.ask("alice", "tried", paths=paths).values()) == ["done", "EACCES"]
        assert call(process, "POST", "/load").status == 200
        assert estate.ask("alice", "who")["pid"] != before
        assert list(estate.ask("alice", "tried", paths=paths).values()) == ["done", "EACCES"]
        os.kill(estate.ask("alice", "who")["pid"], signal.SIGKILL)
        assert list(estate.ask("alice", "tried", paths=paths).values()) == ["done", "EACCES"]
    finally:
        process.close()


IN_A_CONTAINER = """
import ctypes, errno, os, sys
from caddysnake.sandbox import seccomp
from caddysnake.sandbox.syscalls import Call, Refusal
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
call = Call("landlock_create_ruleset", (444, 444), (Refusal(getattr(errno, sys.argv[1])),))
seccomp.install(seccomp.program([call], seccomp.machine()), seccomp.machine())
os.execv(sys.executable, [sys.executable, "-m", "caddysnake", *sys.argv[2:]])
"""


@pytest.mark.parametrize(
    ("error", "told"),
    [("EPERM", "a container's seccomp profile forbids it"), ("ENOSYS", "this kernel has no Landlock")],
)
def test_where_the_kernel_or_a_container_offers_none_nothing_is_started_with_less(
    folder: Path, public: Public, error: str, told: str
) -> None:
    (folder / "Caddyfile").write_text(text_of(folder, public, "sandbox on", users=True))
    environ = {**os.environ, "PYTHONPATH": public.site}
    for words in (["validate"], ["run"], ["doctor"]):
        arguments = [sys.executable, "-c", IN_A_CONTAINER, error, *words]
        done = subprocess.run(
            arguments, cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 1, done
        assert told in done.stdout + done.stderr


def test_an_admin_api_on_tcp_answers_no_app_and_everybody_else(folder: Path, public: Public) -> None:
    text = text_of(folder, public, "sandbox on")
    port = free_port()
    process = run(folder, public, text.replace("{\n", f"{{\n\tadmin localhost:{port}\n", 1), ALICE)
    try:
        process.wait_for_log("admin API ready")
        asking = (
            "import socket; s = socket.create_connection(('127.0.0.1', int(__import__('sys').argv[1])));"
            "s.sendall(b'GET /status HTTP/1.1\\r\\nHost: localhost:%d\\r\\n\\r\\n' % s.getpeername()[1]);"
            "print(s.recv(12).decode())"
        )
        command_line = [public.python, "-c", asking, str(port)]
        found = Estate(folder, process).ask("alice", "answered", port=port, command=command_line)
        assert found == {"itself": "HTTP/1.1 403", "a child": "HTTP/1.1 403"}
        for user in (None, ALICE):
            asked = subprocess.run(command_line, stdout=-1, user=user, group=user, timeout=PATIENCE_S, check=True)
            assert asked.stdout == b"HTTP/1.1 200\n"
    finally:
        process.close()


REACHING = """
import glob, os, socket, subprocess, sys
sys.dont_write_bytecode = False
import beside
for name in sorted(glob.glob({models!r} + "/*")):
    open(name).read()
open({single!r}).read()
os.makedirs({media!r} + "/new", exist_ok=True)
open({media!r} + "/new/x", "w").write("x")
subprocess.run([sys.executable, "-c", "open({secret!r}, 'a')"], check=True)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/warm":
        with socket.socket() as sock:
            sock.connect(("127.0.0.1", {port}))
        socket.socket(socket.AF_UNIX).close()
    start_response("200 OK", [])
    return [b"ok"]
"""


def test_an_audit_prints_the_lines_with_which_the_app_comes_up_in_a_sandbox(folder: Path, public: Public) -> None:
    for name in ("models", "media", "single", "own"):
        (folder / name).mkdir()
    for number in range(4):
        (folder / "models" / f"{number}").touch()
    for name in ("single/x", "single/y", "own/secret"):
        (folder / name).touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        names = {"models": f"{folder}/models", "single": f"{folder}/single/x", "media": f"{folder}/media"}
        (folder / "alice" / "main.py").write_text(REACHING.format(**names, secret=f"{folder}/own/secret", port=port))
        (folder / "alice" / "beside.py").touch()
        for name in ("models", "media", "single", "own", "alice"):
            give(folder / name, ALICE)

        def text(*lines: str) -> str:
            app = block(folder, "alice", public, "sandbox " + "\n\t\t".join(lines), "warmup /warm")
            return f"unix/{folder}/alice.sock|0600 {{\n{app}}}\n"

        process = run(folder, public, text("audit {", "connect none", "}"), ALICE)
        try:
            process.wait_for_log("besides those that it has")
            (record,) = [json.loads(line) for line in process.log.splitlines() if "besides those that it has" in line]
            wanted = [
                f"read {folder}/models",
                f"read {folder}/single/x",
                f"write {folder}/media",
                f"write {folder}/own",
                f"connect {port}",
                "unix any",
            ]
            assert record["error"].splitlines() == ["sandbox on {", *(f"\t{line}" for line in wanted), "}"]
            assert get("/", path=folder / "alice.sock")[0] == 200
        finally:
            process.close()
        process = run(folder, public, text(*record["error"].removeprefix("sandbox ").splitlines()), ALICE)
        try:
            assert get("/warm", path=folder / "alice.sock")[0] == 200
        finally:
            process.close()
        with pytest.raises(AssertionError, match=f"`read {folder}/single/x`"):
            run(folder, public, text("on {", f"read {folder}/models", "}"), ALICE)
