"""Carried out inside the booted machine, by its own Python: every check is a function, in order; outcomes in JSON.

It may use the standard library only, and leaves the machine as the next check expects it.
"""

from __future__ import annotations

import contextlib
import grp
import http.client
import json
import os
import pwd
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_S = 60.0
BIN = "/opt/caddysnake/bin"
CONFIG = Path("/etc/caddysnake/Caddyfile")
SOCKET = "/run/caddysnake/blog.sock"

APP = '''
import json, os, time
VERSION = "1"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    time.sleep(float(environ.get("HTTP_X_SLEEP", "0")))
    if path == "/write":
        told = {}
        for place in ("/srv/blog/x", "/etc/x", "/var/lib/caddysnake/x", "/tmp/x"):
            try:
                open(place, "w").close()
                told[place] = "written"
            except OSError as exc:
                told[place] = exc.strerror
    else:
        told = {"version": VERSION, "pid": os.getpid(), "uid": os.getuid(), "groups": os.getgroups() + [os.getgid()]}
        told["environ"] = sorted(os.environ)
        told["read"] = len(environ["wsgi.input"].read())
        told["scheme"] = environ["wsgi.url_scheme"]
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
'''


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float = PATIENCE_S) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path: str = SOCKET, target: str = "/", body: bytes | None = None, **headers: str) -> dict:
    connection = Connection(path)
    try:
        connection.request("GET" if body is None else "POST", target, body, headers)
        response = connection.getresponse()
        told = response.read()
        assert response.status == 200, (response.status, told)
        return json.loads(told)
    finally:
        connection.close()


def call(command: str, status: int = 0) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False)
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def show(name: str, unit: str = "caddysnake") -> str:
    return call(f"systemctl show --value -p {name} {unit}").strip()


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if condition():
                return
        assert time.monotonic() < deadline, what + "\n" + call("systemctl status caddysnake; journalctl -n 50 -o cat")
        time.sleep(0.05)


def as_user(name: str, work: Callable[[], object]) -> str:
    """What ``work`` says as that user: "ok", or the error's text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        entry = pwd.getpwnam(name)
        os.initgroups(name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        try:
            work()
            told = "ok"
        except OSError as exc:
            told = exc.strerror or str(exc)
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(pid, 0)
    return told


class Load:
    """Threads that ask without end; over kept-alive connections, or a new one each time. ``failures`` of requests."""

    def __init__(self, kept_alive: bool, path: str = SOCKET, clients: int = 6) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._kept_alive, self._path = kept_alive, path
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more(50)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def more(self, count: int = 100) -> None:
        goal = self.done + count
        deadline = time.monotonic() + PATIENCE_S
        while self.done < goal:
            assert time.monotonic() < deadline, f"stands still after {self.done}: {self.failures[-3:]}"
            time.sleep(0.01)

    def _client(self, number: int) -> None:
        connection = Connection(self._path)
        turn = 0
        while not self._ended.is_set():
            turn += 1
            body = b"x" * (turn * 37 % 5000) if number % 2 else None
            try:
                connection.request("POST" if number % 2 else "GET", "/", body)
                response = connection.getresponse()
                told = response.read()
                assert response.status == 200, told
                assert json.loads(told)["read"] == len(body or b"")
                self.done += 1
            except (OSError, http.client.HTTPException, AssertionError) as exc:
                self.failures.append(f"{type(exc).__name__} {exc}"[:200])
                connection.close()
                time.sleep(0.01)
            if not self._kept_alive:
                connection.close()
            time.sleep(0.002)
        connection.close()


def site(*more: str) -> str:
    inside = ["module_wsgi main:app", "working_dir /srv/blog", "workers 2", *more]
    return f"unix/{SOCKET} {{\n\tpython {{\n" + "".join(f"\t\t{line}\n" for line in inside) + "\t}\n}\n"


@contextlib.contextmanager
def drop_in(text: str) -> Iterator[None]:
    folder = Path("/etc/systemd/system/caddysnake.service.d")
    folder.mkdir(exist_ok=True)
    (folder / "test.conf").write_text(text)
    call("systemctl daemon-reload")
    try:
        yield
    finally:
        (folder / "test.conf").unlink()
        call("systemctl daemon-reload")


def processes(unit: str = "caddysnake") -> list[int]:
    group = show("ControlGroup", unit)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if group in (entry / "cgroup").read_text():
                found.append(int(entry.name))
    return found


# -- the checks, in order ---------------------------------------------------------------------------------------


def check_five_commands_lead_to_a_site_with_https() -> None:
    Path("/srv/blog").mkdir()
    Path("/srv/blog/main.py").write_text(APP)
    # 1. apt-get install caddy python3-venv: that is how the machine was made.
    call("python3 -m venv /opt/caddysnake")
    call(f"{BIN}/pip install --quiet --no-index --find-links /opt/wheels /check/*.whl")
    CONFIG.parent.mkdir()
    CONFIG.write_text(
        "{\n\tskip_install_trust\n}\nblog.test {\n\ttls internal\n\tpython {\n\t\tmodule_wsgi main:app\n"
        "\t\tworking_dir /srv/blog\n\t\tworkers 2\n\t}\n}\n"
    )
    call(f"{BIN}/caddysnake systemd --install --now")
    assert call("caddysnake version") == call(f"{BIN}/caddysnake version")
    call(
        f"{BIN}/caddysnake caddyfile --config {CONFIG} --socket-dir /run/caddysnake >/etc/caddy/Caddyfile"
        " && systemctl reload-or-restart caddy"
    )

    def served() -> bool:
        context = ssl.create_default_context(cafile=str(root))
        with (
            socket.create_connection(("127.0.0.1", 443), 10) as plain,
            context.wrap_socket(plain, server_hostname="blog.test") as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n\r\n")
            told = b""
            while piece := tls.recv(65536):
                told += piece
        assert b'"scheme": "https"' in told, told
        return told.startswith(b"HTTP/1.1 200 ")

    root = Path("/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt")
    until(root.exists, "Caddy's own authority")
    until(served, "the site")
    assert len(processes()) > 3


def check_nothing_runs_as_root_and_no_app_is_in_caddys_group() -> None:
    ours = pwd.getpwnam("caddysnake").pw_uid
    for pid in processes():
        status = Path(f"/proc/{pid}/status").read_text()
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert set(uids) == {str(ours)}, status
        assert "CapEff:\t0000000000000000" in status, status
        assert "NoNewPrivs:\t1" in status, status
    CONFIG.write_text(site())
    call("systemctl reload caddysnake")
    told = ask()
    assert told["uid"] == ours
    assert grp.getgrnam("caddy").gr_gid not in told["groups"]
    for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "INVOCATION_ID", "RUNTIME_DIRECTORY"):
        assert variable not in told["environ"]


def check_caddys_user_reaches_the_socket_and_others_do_not() -> None:
    assert as_user("caddy", ask) == "ok"
    assert as_user("nobody", ask) == "Permission denied"
    assert as_user("www-data", ask) == "Permission denied"


def check_the_status_is_told() -> None:
    assert show("StatusText") == "1 app, 2 workers", show("StatusText")
    assert show("SubState") == "running"
    assert show("NFileDescriptorStore") == "1"
    assert "1 app, 2 workers" in call("systemctl status caddysnake")


def check_apps_write_where_they_may() -> None:
    told = ask(target="/write")
    assert told["/srv/blog/x"] == "Read-only file system", told
    assert told["/etc/x"] == "Read-only file system", told
    assert told["/var/lib/caddysnake/x"] == told["/tmp/x"] == "written", told
    assert not Path("/tmp/x").exists()


def check_a_reload_under_load_fails_no_request() -> None:
    with Load(kept_alive=True) as kept, Load(kept_alive=False) as fresh:
        for version in "234":
            Path("/srv/blog/main.py").write_text(APP.replace('"1"', f'"{version}"') + "#" * int(version))
            call("systemctl reload caddysnake")
            assert ask()["version"] == version
            kept.more()
            fresh.more()
    assert kept.failures == fresh.failures == [], (kept.failures, fresh.failures)


def check_a_reload_that_is_refused_fails_and_is_told() -> None:
    Path("/srv/blog/main.py").write_text("import nothing_of_that_name\n")
    told = call("systemctl reload caddysnake", 1)
    assert "failed" in told, told
    assert "Reload at" in show("StatusText"), show("StatusText")
    assert ask()["version"] == "4"
    assert show("ActiveState") == "active"
    assert "nothing_of_that_name" in call("journalctl -o cat -u caddysnake")
    Path("/srv/blog/main.py").write_text(APP)
    call("systemctl reload caddysnake")
    assert "Reload" not in show("StatusText")


def check_a_crash_under_load_costs_what_was_in_flight() -> None:
    before = int(show("NRestarts"))
    with Load(kept_alive=False, clients=8) as load:
        for number in range(2):
            os.kill(int(show("MainPID")), signal.SIGKILL)
            until(lambda number=number: int(show("NRestarts")) == before + number + 1, "a restart")
            load.more(300)
    print(f"    {load.done} requests, {len(load.failures)} of them failed by two crashes")
    assert len(load.failures) <= 16, load.failures
    assert all("ConnectionRefused" not in each and "FileNotFound" not in each for each in load.failures), load.failures


def check_a_restart_under_load_costs_at_most_what_had_just_arrived() -> None:
    with Load(kept_alive=False) as load:
        call("systemctl restart caddysnake")
        load.more(300)
    few(load)


def few(load: Load) -> None:
    """Accepted in the last moment and read by nobody: one of each client at most, and nobody was refused."""
    assert len(load.failures) <= 6, load.failures
    assert all(each.startswith(("ConnectionReset", "RemoteDisconnected")) for each in load.failures), load.failures


def check_the_watchdog_ends_a_daemon_that_stands_still() -> None:
    with drop_in("[Service]\nWatchdogSec=2s\n"):
        call("systemctl restart caddysnake")
        before = int(show("NRestarts"))
        main = int(show("MainPID"))
        time.sleep(4)
        assert int(show("MainPID")) == main
        os.kill(main, signal.SIGSTOP)
        told = ask()
        assert told["version"] == "1"
        until(lambda: int(show("NRestarts")) == before + 1, "the watchdog's restart")
        assert ask()["version"] == "1"
        assert "watchdog" in call("journalctl -o cat -u caddysnake _PID=1 || journalctl -o cat -u caddysnake").lower()
    call("systemctl restart caddysnake")


def check_a_wrong_file_is_told_and_leaves_nobody_waiting() -> None:
    CONFIG.write_text("blog.test {\n\tpyton main:app\n}\n")
    call("systemctl restart caddysnake", 1)
    assert "Error: " in show("StatusText"), show("StatusText")
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        ask()
        raise AssertionError("somebody answers")
    CONFIG.write_text(site())
    until(lambda: ask()["version"] == "1", "a start once the file is fixed")


def check_apps_with_users_of_their_own_under_the_drop_in() -> None:
    call("useradd --system --user-group alice")
    CONFIG.write_text(site("user alice"))
    call(f"{BIN}/caddysnake systemd --install --now --users")
    until(lambda: ask()["uid"] == pwd.getpwnam("alice").pw_uid, "the app of alice")
    assert as_user("caddy", ask) == "ok"
    assert as_user("alice", ask) == as_user("nobody", ask) == "Permission denied"
    with Load(kept_alive=True) as load:
        call("systemctl reload caddysnake")
        load.more()
    assert load.failures == [], load.failures
    Path("/etc/systemd/system/caddysnake.service.d/users.conf").unlink()
    CONFIG.write_text(site())
    call("systemctl daemon-reload && systemctl stop caddysnake && rm -rf /run/caddysnake && systemctl start caddysnake")
    assert ask()["uid"] == pwd.getpwnam("caddysnake").pw_uid


def check_a_socket_unit_starts_it_and_outlives_it() -> None:
    call("systemctl stop caddysnake")
    path = "/run/caddysnake/apps.sock"
    CONFIG.write_text(site().replace(SOCKET, path))
    call("systemctl start caddysnake.socket")
    assert show("ActiveState") == "inactive"
    assert as_user("caddy", lambda: ask(path)) == "ok"
    assert as_user("nobody", lambda: ask(path)) == "Permission denied"
    inode = os.stat(path).st_ino
    with Load(kept_alive=False, path=path) as load:
        call("systemctl restart caddysnake")
        load.more(100)
    few(load)
    os.kill(int(show("MainPID")), signal.SIGKILL)
    assert ask(path)["version"] == "1"
    assert os.stat(path).st_ino == inode
    assert show("NFileDescriptorStore") == "0"
    call("systemctl stop caddysnake.socket caddysnake")
    assert not os.path.exists(path)
    CONFIG.write_text(site())
    call("systemctl start caddysnake")


def check_one_unit_for_an_app_of_its_own() -> None:
    call("useradd --system --user-group shop")
    path = "/run/caddysnake-shop/app.sock"
    text = site("workers_runtime thread", "user shop")
    Path("/etc/caddysnake/shop.caddyfile").write_text(text.replace(SOCKET, path))
    call("systemctl start caddysnake@shop")
    assert ask(path)["uid"] == pwd.getpwnam("shop").pw_uid
    assert as_user("caddy", lambda: ask(path)) == "ok"
    assert as_user("caddysnake", lambda: ask(path)) == "Permission denied"
    # The doctor knows this unit from the other one, and its folder.
    Path("/etc/caddysnake/shop.caddyfile").write_text("shop.test {\n\tpython {\n\t\tmodule_wsgi main:app\n"
                                                      "\t\tworking_dir /srv/blog\n\t}\n}\n")  # fmt: skip
    call("systemctl reload caddysnake@shop && chgrp shop /run/caddysnake-shop")
    doctor = f"{BIN}/caddysnake doctor --json --config /etc/caddysnake/shop.caddyfile"
    rows = json.loads(call(doctor, 1))
    assert any("as shop, caddysnake@shop.service: ready" in row["text"] for row in rows), rows
    (row,) = (row for row in rows if row["level"] == "bad")
    assert row["fix"] == "chgrp caddy /run/caddysnake-shop && chmod g=x /run/caddysnake-shop", row
    call(row["fix"])
    assert "bad" not in [row["level"] for row in json.loads(call(doctor))]
    # Stopped, it is in none of systemd's lists.
    call("systemctl stop caddysnake@shop")
    told = call(f"{BIN}/caddysnake status --config /etc/caddysnake/shop.caddyfile", 1)
    (row,) = (row for row in json.loads(call(doctor, 1)) if row["level"] == "bad")
    assert row["fix"] == "systemctl start caddysnake@shop.service", row
    assert row["fix"] in told, told
    call(row["fix"])
    assert "bad" not in [row["level"] for row in json.loads(call(doctor))]
    call("systemctl stop caddysnake@shop")


def check_doctor_finds_outages_and_what_it_advises_heals_them() -> None:
    doctor = f"{BIN}/caddysnake doctor --json --config {CONFIG}"

    def bad() -> list[dict]:
        done = subprocess.run(doctor, shell=True, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        return [row for row in json.loads(done.stdout) if row["level"] == "bad"]

    caddyfile = Path("/etc/caddy/Caddyfile")
    caddyfile.write_text(f":80 {{\n\treverse_proxy unix/{SOCKET}\n}}\n")
    CONFIG.write_text(site("max_queue 100"))
    call("systemctl restart caddysnake caddy")
    until(lambda: bad() == [], "a healthy machine")
    rows = json.loads(call(doctor))
    (daemon,) = (row for row in rows if row["topic"] == "daemon")
    assert "as caddysnake, caddysnake.service" in daemon["text"], daemon
    # Who may not ask is told so, and is not advised to start what runs.
    ordinary = "setpriv --reuid nobody --regid nogroup --clear-groups "
    assert "call as user caddysnake, or as root" in call(f"{ordinary}{BIN}/caddysnake status --config {CONFIG}", 1)
    (daemon,) = (row for row in json.loads(call(f"{ordinary}{doctor} || true")) if row["topic"] == "daemon")
    assert (daemon["level"], daemon["fix"]) == ("doubt", ""), daemon
    # Stopped, the daemon or Caddy.
    for unit, topic in (("caddysnake.service", "daemon"), ("caddy", "caddy")):
        call(f"systemctl stop {unit}")
        (row,) = (row for row in bad() if row["topic"] == topic)
        assert row["fix"] == f"systemctl start {unit}", row
        call(row["fix"])
        until(lambda: bad() == [], "a start")
    # Killed, with nobody to start it again.
    once = Path("/run/systemd/system/caddysnake.service.d/once.conf")
    once.parent.mkdir(parents=True)
    once.write_text("[Service]\nRestart=no\nLimitNOFILE=200\n")
    call("systemctl daemon-reload && systemctl restart caddysnake && systemctl kill --signal KILL caddysnake")
    until(lambda: show("ActiveState") == "failed", "its end")
    fixes = {row["topic"]: row["fix"] for row in bad()}
    assert fixes == {"daemon": "systemctl start caddysnake.service", "machine": "in the unit: LimitNOFILE=65536"}, fixes
    once.unlink()
    call(f"systemctl daemon-reload && {fixes['daemon']}")
    until(lambda: bad() == [], "a start")
    # Caddy runs as a user that is not in the group which the unit gives its folder to, at each start.
    front = Path("/run/systemd/system/caddy.service.d/user.conf")
    front.parent.mkdir(parents=True)
    front.write_text("[Service]\nUser=web\nGroup=web\n")
    call("useradd --system --user-group web && systemctl daemon-reload && systemctl restart caddy")
    (row,) = bad()
    assert row["fix"] == "usermod -aG caddy web && systemctl restart caddy", row
    call(row["fix"] + " && systemctl restart caddysnake")
    until(lambda: bad() == [], "a Caddy that gets there, also after a start of the daemon")
    front.unlink()
    call("systemctl daemon-reload && systemctl restart caddy")
    # Only the mode is wrong.
    CONFIG.write_text("{\n\tsocket_mode 0600\n}\n" + site("max_queue 100"))
    call("systemctl reload caddysnake")
    (row,) = bad()
    line = row["fix"].rpartition(": ")[2]
    assert (row["topic"], line) == ("sockets", "socket_mode 0660"), row
    CONFIG.write_text(f"{{\n\t{line}\n}}\n" + site("max_queue 100"))
    call("systemctl reload caddysnake")
    assert bad() == []
    # Somebody has changed the socket, or its folder: what the unit makes is made so again, and nobody joins a group.
    for what, fix in (
        (f"chmod 0600 {SOCKET}", f"chmod 0660 {SOCKET}"),
        (f"chgrp root {SOCKET}", f"chgrp caddy {SOCKET}"),
        ("chgrp caddysnake /run/caddysnake", "chgrp caddy /run/caddysnake && chmod g=x /run/caddysnake"),
    ):
        call(what)
        (row,) = bad()
        assert (row["topic"], row["fix"]) == ("sockets", fix), row
        call(fix)
        assert bad() == []
    call("chmod 2750 /run/caddysnake")
    # Caddy's own file has a fault, or names a socket that is no more.
    caddyfile.write_text(f":80 {{\n\treverse_proxy unix/{SOCKET}\n\tnonsense\n}}\n")
    call("systemctl restart caddy", 1)
    (row,) = bad()
    assert row["topic"] == "caddy", row
    assert "nonsense" in row["text"], row
    caddyfile.write_text(f":80 {{\n\treverse_proxy unix/{SOCKET}old\n}}\n")
    call(row["fix"].split("`")[1])
    until(lambda: "where nobody listens" in str(bad()), "what Caddy's configuration says")
    (row,) = bad()
    assert f"put reverse_proxy unix/{SOCKET} into Caddy's file" in row["fix"], row
    caddyfile.write_text(f":80 {{\n\treverse_proxy unix/{SOCKET}\n}}\n")
    call("systemctl reload caddy")
    until(lambda: bad() == [], "Caddy's new configuration")
    # The app's folder may not be entered by the service's user.
    call("chmod 0700 /srv/blog && ! systemctl reload caddysnake")
    (row,) = (row for row in bad() if row["topic"] == "apps")
    call(row["fix"] + " && systemctl reload caddysnake")
    assert bad() == []
    call("chmod 0755 /srv/blog")
    # What the service's user may not read.
    Path("/srv/blog/.env").write_text("A=1\n")
    CONFIG.write_text(site("env_file .env"))
    call("chmod 0600 /srv/blog/.env && ! systemctl reload caddysnake")
    (row,) = (row for row in bad() if row["topic"] == "apps")
    call(row["fix"] + " && systemctl reload caddysnake")
    assert bad() == []
    # A disk is full.
    call("systemctl stop caddysnake && mount -t tmpfs -o size=1M tmpfs /tmp && systemctl start caddysnake")
    call("dd if=/dev/zero of=/tmp/fill bs=64k", 1)
    (row,) = (row for row in bad() if row["topic"] == "machine")
    assert row["text"].startswith("the file system of /tmp is full"), row
    assert "/tmp" in call(row["fix"].partition(": ")[2])
    call("rm /tmp/fill")
    assert bad() == []
    call("systemctl stop caddysnake && umount /tmp && systemctl start caddysnake")
    # The folder is gone, and with it the socket: under a daemon that runs, and under one that does not.
    call("rm -rf /run/caddysnake")
    rows = bad()
    assert {row["fix"] for row in rows} == {"systemctl restart caddysnake.service"}, rows
    told = call(f"{BIN}/caddysnake status --config {CONFIG}", 1)
    assert "systemctl restart caddysnake.service" in told, told
    call(rows[0]["fix"])
    until(lambda: bad() == [], "a folder that was made")
    call("systemctl stop caddysnake && rm -rf /run/caddysnake")
    (row,) = (row for row in bad() if row["topic"] == "sockets")
    assert row["fix"] == "systemctl restart caddysnake.service", row
    call(row["fix"])
    until(lambda: bad() == [], "a folder that was made")
    # It does not come up, and is started again and again.
    Path("/srv/blog/main.py").write_text("import nothing_of_that_name\n")
    call("systemctl restart caddysnake || true")
    until(lambda: int(show("NRestarts")) > 1, "restarts")
    told = call(f"{BIN}/caddysnake status --config {CONFIG}", 1)
    assert "journalctl --unit caddysnake.service" in told, told
    (row,) = (row for row in bad() if row["topic"] == "daemon")
    assert "nothing_of_that_name" in row["text"], row
    assert "nothing_of_that_name" in call(row["fix"])
    Path("/srv/blog/main.py").write_text(APP)
    until(lambda: bad() == [] and ask()["version"] == "1", "a start that comes up")
    CONFIG.write_text(site())
    call("systemctl restart caddysnake")


def check_it_stops_and_finishes_what_it_was_asked() -> None:
    told: list[dict] = []
    asking = threading.Thread(target=lambda: told.append(ask(**{"X-Sleep": "2"})))
    asking.start()
    time.sleep(1)
    before = processes()
    call("systemctl stop caddysnake")
    asking.join(PATIENCE_S)
    assert [each["version"] for each in told] == ["1"]
    assert (show("ActiveState"), show("Result")) == ("inactive", "success")
    assert not [pid for pid in before if os.path.exists(f"/proc/{pid}")]


def main() -> None:
    outcome: dict[str, str] = {}
    for name, check in list(globals().items()):
        if not name.startswith("check_") or (sys.argv[1:] and name not in sys.argv[1:]):
            continue
        begun = time.monotonic()
        try:
            check()
            outcome[name] = ""
        except Exception:
            outcome[name] = traceback.format_exc() + call(
                "systemctl status --no-pager caddysnake caddysnake.socket; journalctl -o cat -n 40; true"
            )
        print(f"{time.monotonic() - begun:6.1f} s  {name}  {'failed' if outcome[name] else 'ok'}", flush=True)
        Path("/check/outcome.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
