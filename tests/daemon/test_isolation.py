"""Tenants that mean harm, against a real daemon: with a user of their own, and with one that they share."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE_S, Process, alive, daemon, eventually, get
from support.estate import Estate, block, caddyfile, start
from support.malice import APP
from support.tenants import ALICE, BOB, Public, give, needs_root, public_folder

pytestmark = needs_root

DENIED = {"EACCES", "EPERM"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with public_folder() as found:
        for name, uid in (("alice", ALICE), ("bob", BOB)):
            (found / name).mkdir()
            (found / name / "main.py").write_text(APP)
            (found / name / "secret.txt").write_text(f"of {name}")
            give(found / name, uid)
        yield found


def command(folder: Path, public: Public, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": public.site, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "caddysnake", *words],
        check=False,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def memory_of(pid: int) -> bytes:
    """Everything that a process can write to. Root may look."""
    found = []
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, access, *_ = line.split()
            if not access.startswith("rw"):
                continue
            begin, end = (int(number, 16) for number in span.split("-"))
            try:
                memory.seek(begin)
                found.append(memory.read(end - begin))
            except (OSError, OverflowError):
                continue
    return b"".join(found)


def test_temporary_files_under_a_daemon_that_was_killed_go_with_the_next_start(folder: Path, public: Public) -> None:
    text = f"unix/{folder}/alice.sock {{\n{block(folder, 'alice', public, f'user {ALICE}')}}}\n"
    left = []
    for turn in range(2):
        with start(folder, public, text) as process:
            tmp = Path(Estate(folder, process).ask("alice", "who")["tmp"])
            assert tmp.is_dir()
            if turn:
                eventually(lambda: not left[0].exists(), "the removal")
            else:
                (tmp / "x").touch()
                left.append(tmp.parent)
                process.popen.kill()
                process.wait()
                assert left[0].is_dir()


def test_a_tenant_with_a_user_of_its_own_gets_at_nothing(folder: Path, public: Public) -> None:
    text = caddyfile(folder, public, (f"user {ALICE}",), (f"user {BOB}",))
    with start(folder, public, text) as process:
        found = Estate(folder, process).attack()
        for name, results in found["processes"].items():
            wanted = dict.fromkeys(results, DENIED)
            if name == "own fork server":
                wanted["signal"] = {"done"}
            for act, result in results.items():
                assert result in wanted[act], (name, act, result)
        for kind in ("files", "folders", "sockets"):
            assert set(found[kind].values()) <= DENIED, found[kind]
        assert '"isolated":"no"' in process.log  # each has two blocks here, which are two apps


def test_tenants_that_share_a_user_cannot_read_each_other_but_are_not_isolated(folder: Path, public: Public) -> None:
    give(folder / "bob", ALICE)
    text = caddyfile(folder, public, (f"user {ALICE}",), (f"user {ALICE}",))
    with start(folder, public, text) as process:
        found = Estate(folder, process).attack()
        for name, results in found["processes"].items():
            for act, result in results.items():
                if act == "signal" and name not in ("daemon", "relay"):
                    assert result == "done"  # this is what "not isolated" means
                else:
                    assert result in DENIED, (name, act, result)
        assert set(found["files"].values()) == {"done"}
        assert set(found["folders"].values()) == {"done"}
        assert set(found["sockets"].values()) <= DENIED
        assert "apps are not isolated" in process.log


def test_an_app_that_shares_the_daemons_user_cannot_read_the_daemon(folder: Path, public: Public) -> None:
    for name in ("alice", "bob"):
        give(folder / name, ALICE)
    os.chown(folder, ALICE, ALICE)
    (folder / "Caddyfile").write_text(caddyfile(folder, public, (), ()))
    become = "import os, sys; os.setgroups([]); os.setresgid(*[int(sys.argv[1])] * 3); os.setresuid(*[int(sys.argv[1])]"
    become += " * 3); os.execv(sys.argv[2], sys.argv[2:])"
    arguments = [sys.executable, "-c", become, str(ALICE), public.python, "-m", "caddysnake", "run"]
    environ = {"PYTHONPATH": public.site, "PYTHONDONTWRITEBYTECODE": "1"}
    process = Process(arguments, folder, "daemon", environ)
    try:
        process.wait_for_log(" ready in ")
        found = Estate(folder, process).attack()
        for name, results in found["processes"].items():
            for act, result in results.items():
                assert result in ({"done"} if act == "signal" else DENIED), (name, act, result)
    finally:
        process.close()


def test_it_is_that_user_altogether(folder: Path, public: Public) -> None:
    text = caddyfile(folder, public, (f"user {ALICE}",), (f"user {BOB}", f"group {ALICE}", "env_var HOME /srv"))
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        alice, bob = estate.ask("alice", "who"), estate.ask("bob", "who")
        assert alice["uids"] == [ALICE] * 3
        assert alice["gids"] == [ALICE] * 3
        assert alice["groups"] == []
        assert alice["umask"] == 0o027
        assert alice["no_new_privs"]
        assert alice["capabilities"] == ["CapEff:\t0000000000000000"]
        assert {name: alice["environ"][name] for name in ("HOME", "USER", "LOGNAME")} == {
            "HOME": "/", "USER": str(ALICE), "LOGNAME": str(ALICE),
        }  # fmt: skip
        assert bob["uids"] == [BOB] * 3
        assert bob["gids"] == [ALICE] * 3
        assert bob["environ"]["HOME"] == "/srv"
        assert "NoNewPrivs:\t0" in Path(f"/proc/{process.pid}/status").read_text()


def test_a_user_of_its_own_has_a_temporary_folder_of_its_own_until_it_goes(folder: Path, public: Public) -> None:
    text = caddyfile(folder, public, (f"user {ALICE}",), (f"user {BOB}",))
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        alice, bob = estate.ask("alice", "who"), estate.ask("bob", "who")
        assert alice["tmp"] == alice["environ"]["TMPDIR"] != bob["tmp"]
        assert alice["mode"] == 0o700
        info = os.stat(alice["tmp"])
        assert (info.st_uid, info.st_gid) == (ALICE, ALICE)
        assert os.path.exists(estate.ask("alice", "leave_behind"))
    assert not os.path.exists(alice["tmp"])
    assert not os.path.exists(os.path.dirname(alice["tmp"]))
    assert os.path.exists("/etc/passwd")


def test_nothing_of_a_tenants_python_runs_as_root(folder: Path, public: Public) -> None:
    said = folder / "alice" / "ran.txt"
    line = f"import os; open({str(said)!r}, 'a').write(f'{{os.getresuid()}}{{open(\"/proc/self/status\").read()}}')"
    root = folder / "alice" / "venv"
    site = root / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "python3").symlink_to(public.python)
    version = ".".join(map(str, sys.version_info[:3]))
    (root / "pyvenv.cfg").write_text(f"home = {os.path.dirname(public.python)}\nversion = {version}\n")
    (site / "evil.pth").write_text(line + "\n")
    (site / "sitecustomize.py").write_text(line + "\n")
    (site / "warmth.py").write_text(line + "\n")
    give(folder / "alice", ALICE)
    text = f"unix/{folder}/alice.sock {{\n" + block(folder, "alice", public, f"venv {root}", "preload warmth", "%s")
    text = text.replace(f"\t\tpython_path {public.python}\n", "") + "}\n"
    with start(folder, public, text % f"user {ALICE}") as process:
        Estate(folder, process).ask("alice", "who")
    ran = said.read_text()
    assert ran.count(f"({ALICE}, {ALICE}, {ALICE})") >= 3
    assert ran.count("NoNewPrivs:\t1") == ran.count("NoNewPrivs") == ran.count("Name:") == ran.count(f"({ALICE}, ")
    said.unlink()
    for user in ("", "user root"):
        (folder / "Caddyfile").write_text(text % user)
        for verb in ("validate", "run"):
            done = command(folder, public, verb)
            assert done.returncode == 1
            assert f"root must not run {root}/bin/python3: {folder}/alice belongs to user {ALICE}" in done.stderr
    done = command(folder, public, "runtime", "install", "--python", f"{root}/bin/python3")
    assert done.returncode == 1
    assert f"root must not run {root}/bin/python3" in done.stderr
    assert not said.exists()


def test_no_secret_is_in_a_fork_server_or_in_the_next_tenant(folder: Path, public: Public) -> None:
    give(folder / "bob", ALICE)
    secret = os.urandom(16).hex()
    text = caddyfile(folder, public, (f"user {ALICE}", f"env_var TOKEN {secret}"), (f"user {ALICE}",))
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        alice, bob = estate.ask("alice", "who"), estate.ask("bob", "who")
        assert alice["environ"]["TOKEN"] == secret
        assert alice["parent"] == bob["parent"]
        assert secret.encode() in memory_of(alice["pid"])
        for pid in (bob["pid"], bob["parent"], estate.relay()):
            assert secret.encode() not in memory_of(pid)


def test_forged_headers_of_a_tenant_are_not_believed(folder: Path, public: Public) -> None:
    text = caddyfile(folder, public, (f"user {ALICE}",), (f"user {BOB}",), mode="0666").replace("|0600", "|0666")
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        for listener in ("bob.sock", "shared.sock"):
            path = str(folder / listener)
            seen = estate.ask("alice", "forge", path=path)
            assert seen == {"REMOTE_ADDR": "", "HTTP_HOST": "bob.test", "wsgi.url_scheme": "http"}, listener
            status, body = get("/seen", None, path, **{"Host": "bob.test", "X-Forwarded-For": "9.9.9.9"})
            assert status == 200
            assert json.loads(body)["REMOTE_ADDR"] == "9.9.9.9"
        assert process.log.count("its X-Forwarded headers are not believed") == 1


def test_a_tenant_that_floods_its_channel_is_ended(folder: Path, public: Public) -> None:
    text = caddyfile(folder, public, (f"user {ALICE}",), (f"user {BOB}",))
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        bob = estate.ask("bob", "who")["pid"]
        victim = estate.ask("alice", "who")["pid"]
        before = len(os.listdir(f"/proc/{process.pid}/fd"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(folder / "alice.sock"))
            sock.sendall(b"GET /flood HTTP/1.1\r\nHost: alice.test\r\n\r\n")
            eventually(lambda: not alive(victim), "the end of the worker")
        assert estate.ask("bob", "who")["pid"] == bob
        assert estate.ask("alice", "who")["pid"] != victim
        eventually(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) <= before + 4, "closing")
        assert "broke a rule of the channel" in process.log


def test_descriptors_that_a_tenant_sends_are_not_kept(folder: Path, public: Public) -> None:
    text = caddyfile(folder, public, (f"user {ALICE}",), (f"user {BOB}",))
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        bob = estate.ask("bob", "who")["pid"]
        before = len(os.listdir(f"/proc/{process.pid}/fd"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(folder / "alice.sock"))
            sock.sendall(b"GET /park HTTP/1.1\r\nHost: alice.test\r\n\r\n")
            assert sock.recv(100)[:12] in (b"", b"HTTP/1.1 500")  # it is ended, or a newer kernel lets it send none
        assert estate.ask("bob", "who")["pid"] == bob
        assert estate.ask("alice", "who")["uids"] == [ALICE] * 3
        eventually(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) <= before + 4, "closing")


def test_a_tenant_that_keeps_a_thousand_connections_keeps_nobody_else_waiting(folder: Path, public: Public) -> None:
    text = caddyfile(folder, public, (f"user {ALICE}", "limits {\n\t\t\topen_files 200\n\t\t}"), (f"user {BOB}",))
    clients = []
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        try:
            for number in range(1000):
                client = socket.socket(socket.AF_UNIX)
                clients.append(client)
                client.connect(str(folder / "alice.sock"))
                if number < 50:
                    client.sendall(b"GET /sleep HTTP/1.1\r\nHost: alice.test\r\n\r\n")
            begun = time.monotonic()
            for _ in range(20):
                estate.ask("bob", "who")
            assert time.monotonic() - begun < 20
            assert "worker failed" not in process.log
        finally:
            for client in clients:
                client.close()


def test_limits_hold_and_cannot_be_raised(folder: Path, public: Public) -> None:
    inner = ("memory 300MB", "open_files 222", "processes 99", "file_size 1MB", "niceness 3")
    lines = "limits {\n\t\t\t" + "\n\t\t\t".join(inner) + "\n\t\t}"
    text = caddyfile(folder, public, (f"user {ALICE}", lines), (f"user {BOB}",))
    with start(folder, public, text) as process:
        estate = Estate(folder, process)
        found = estate.ask("alice", "limits")
        assert {name: found[name][1] for name in ("memory", "open_files", "processes", "file_size")} == {
            "memory": 300_000_000, "open_files": 222, "processes": 99, "file_size": 1_000_000,
        }  # fmt: skip
        assert set(found["raise"].values()) == {"refused"}
        assert found["niceness"] == 3
        assert estate.ask("alice", "spend_memory", bytes=500_000_000) == "MemoryError"
        assert estate.ask("alice", "spend_memory", bytes=1_000_000) == 1_000_000
        assert estate.ask("bob", "spend_memory", bytes=500_000_000) == 500_000_000


NAMES = f"""
import os, pwd
_find, _groups = pwd.getpwnam, os.getgrouplist
_people = {{"alice": {ALICE}, "bob": {BOB}, "service": 990}}
def getpwnam(name):
    uid = _people.get(name)
    return _find(name) if uid is None else pwd.struct_passwd((name, "x", uid, uid, "", "/home/" + name, "/bin/sh"))
pwd.getpwnam = getpwnam
os.getgrouplist = lambda name, gid: [gid] if name in _people else _groups(name, gid)
"""


def test_each_dynamic_app_runs_as_the_user_that_its_request_names(folder: Path, public: Public) -> None:
    names = folder / "names"
    names.mkdir()
    (names / "sitecustomize.py").write_text(NAMES)
    for name in ("service", "root", "nobody", "missing"):
        (folder / name).mkdir()
        (folder / name / "main.py").write_text(APP)
    label = "{http.request.host.labels.1}"
    text = (
        f"unix/{folder}/all.sock|0600 {{\n\tpython {{\n\t\tmodule_wsgi main:app\n\t\tworking_dir {folder}/{label}\n"
        f"\t\tpython_path {public.python}\n\t\tuser {label}\n\t}}\n}}\n"
    )
    environ = {"PYTHONPATH": f"{names}:{public.site}", "PYTHONDONTWRITEBYTECODE": "1"}
    with daemon(folder, text, environ=environ) as process:
        for name, uid in (("alice", ALICE), ("bob", BOB)):
            status, body = get("/who", path=folder / "all.sock", Host=f"{name}.test")
            assert status == 200, process.log
            found = json.loads(body)
            assert found["uids"] == [uid] * 3
            assert found["environ"]["HOME"] == f"/home/{name}"
            assert found["environ"]["USER"] == name
            assert found["tmp"].startswith(f"{tempfile.gettempdir()}/caddysnake-")
        process.wait_for_log('"isolated":"yes"', 2)
        for name in ("service", "root", "nobody", "missing"):
            assert get("/who", path=folder / "all.sock", Host=f"{name}.test")[0] == 404, name
        assert "user service (990) is not an ordinary one" in process.log


def test_a_user_that_cannot_read_the_interpreter_is_told_why(folder: Path, public: Public) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python3").symlink_to(public.python)
    text = f"unix/{folder}/alice.sock {{\n" + block(folder, "alice", public, f"user {ALICE}") + "}\n"
    text = re.sub("python_path .*", f"python_path {closed}/python3", text)
    (folder / "Caddyfile").write_text(text)
    done = command(folder, public, "run")
    assert done.returncode == 1
    assert f"cannot run {closed}/python3: Permission denied" in done.stderr
    assert f"User {ALICE} may not read {closed}/python3: the mode of {closed} keeps it out" in done.stderr


def test_validate_says_who_is_not_isolated(folder: Path, public: Public) -> None:
    (folder / "bob").chmod(0o755)
    (folder / "Caddyfile").write_text(caddyfile(folder, public, (f"user {ALICE}",), (f"user {ALICE}",)))
    done = command(folder, public, "validate")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^Note: not isolated: .*alice/main:app.*bob/main:app.* run as user {ALICE}$", done.stderr, re.M)
    one = f"unix/{folder}/alice.sock {{\n" + block(folder, "alice", public, f"user {ALICE}") + "}\n"
    (folder / "Caddyfile").write_text(one)
    assert command(folder, public, "validate").stderr == ""
    with start(folder, public, one) as process:
        assert '"isolated":"yes"' in process.log


def test_a_fifo_behind_a_tenants_link_is_not_opened_and_a_socket_in_its_folder_serves(
    folder: Path, public: Public
) -> None:
    (folder / "root").mkdir(mode=0o700)
    os.mkfifo(folder / "root" / "fifo")
    (folder / "alice" / ".env").symlink_to(folder / "root" / "fifo")
    os.chown(folder / "alice" / ".env", ALICE, ALICE, follow_symlinks=False)
    (folder / "bob" / ".env").write_text("OF=bob\n")
    give(folder / "bob", BOB)
    text = f"""unix/{folder}/alice/t.sock|0666 {{
	python {{
		module_wsgi main:app
		working_dir {folder}/{{host}}
		python_path {public.python}
		env_file .env
		user {BOB}
	}}
}}
"""
    with start(folder, public, text) as process:
        assert stat.S_IMODE((folder / "alice" / "t.sock").lstat().st_mode) == 0o666
        assert get("/", path=folder / "alice" / "t.sock", Host="alice")[0] == 404
        assert not has_reader(folder), process.log
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(folder / "alice" / "t.sock"))
            sock.sendall(b"POST /who HTTP/1.1\r\nHost: bob\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["environ"]["OF"] == "bob"
    assert sorted(os.listdir(folder / "alice")) == [".env", "main.py", "secret.txt"]


def has_reader(folder: Path) -> bool:
    """Somebody has the FIFO open for reading (fifo(7): else opening it for writing fails)."""
    try:
        os.close(os.open(folder / "root" / "fifo", os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
