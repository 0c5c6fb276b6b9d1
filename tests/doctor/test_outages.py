"""What an outage is made of is found, the worst first; each fix is carried out, and heals what it was for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.admin import call, command
from support.daemon import Process, caddy, daemon, eventually, free_port, get

from caddysnake.config.language.adapt import load
from caddysnake.config.plan.plan import plan
from caddysnake.doctor.findings import Finding, Level, Silence
from caddysnake.doctor.front import Front, upstreams
from caddysnake.doctor.machine import isolating
from caddysnake.doctor.reach import Who
from caddysnake.doctor.running import check_daemon, check_reach
from caddysnake.doctor.service import Runner, Unit, last_error, read_units, runner_of
from caddysnake.doctor.sockets import check_sockets, check_upstreams

pytestmark = pytest.mark.system
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run a daemon as another user")

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"
CADDY = Who("caddy", 4321, frozenset({4321}))
OURS = 4400
"""The user, and group, of a daemon that is not root's."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Unlike pytest's folders one that others may enter, as /run is."""
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        (Path(name) / "main.py").write_text(APP)
        yield Path(name)


def file(folder: Path, options: str = "") -> str:
    site = f"unix/{folder}/s.sock {{\n\tpython {{\n\t\tmodule_wsgi main:app\n\t\tworkers 1\n\t}}\n}}\n"
    return f"{{\n{options}\n}}\n{site}"


def sockets(folder: Path, who: Who, pid: int) -> Finding:
    """The one finding of who may use the socket of the daemon ``pid``."""
    listeners = plan(load((folder / "Caddyfile").read_bytes(), "Caddyfile", {}), cores=1).listeners
    (found,) = check_sockets(listeners, Front(who, None), runner_of(str(folder / "Caddyfile"), pid))
    return found


def doctor(process: Process, folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command(process, folder, "doctor", "--json").stdout)
    return found


@needs_root
@pytest.mark.parametrize(
    ("group", "wanted"),
    [("", ["socket_group 4321", "socket_mode 0660"]), ("socket_group 4321\n\t", ["socket_mode 0660"])],
    ids=["the group is wrong too", "only the mode is wrong"],
)
def test_a_socket_that_caddy_may_not_use_is_opened_by_a_reload(folder: Path, group: str, wanted: list[str]) -> None:
    with daemon(folder, file(folder, f"\t{group}socket_mode 0600")) as process:
        found = sockets(folder, CADDY, process.pid)
        assert found.level is Level.BAD
        options = found.fix.rpartition(": ")[2].split(" and ")
        assert options == wanted
        (folder / "Caddyfile").write_text(file(folder, "\t" + group + "\n\t".join(options)))
        command(process, folder, "reload", check=True)
        assert sockets(folder, CADDY, process.pid).level is Level.GOOD
        # A reload that is refused leaves the file as it was.
        (folder / "Caddyfile").write_text(file(folder, "\tsocket_mode 0600").replace("main:app", "nosuch:app"))
        assert command(process, folder, "reload").returncode == 1
        assert sockets(folder, CADDY, process.pid).level is Level.GOOD


@needs_root
def test_a_daemon_that_may_not_give_its_socket_away_is_told_whose_group_to_join(folder: Path) -> None:
    (folder / "Caddyfile").write_text(file(folder))
    os.chown(folder, OURS, OURS)
    runner = Runner(Who("ours", OURS, frozenset({OURS})), OURS)
    listeners = plan(load((folder / "Caddyfile").read_bytes(), "Caddyfile", {}), cores=1).listeners
    (found,) = check_sockets(listeners, Front(CADDY, None), runner)
    assert found.level is Level.BAD
    assert found.fix.startswith(f"usermod -aG {OURS} caddy")
    assert "socket_group" not in found.fix
    joined = CADDY._replace(gids=frozenset({4321, OURS}))
    (folder / "Caddyfile").write_text(file(folder, "\tsocket_mode 0660"))
    listeners = plan(load((folder / "Caddyfile").read_bytes(), "Caddyfile", {}), cores=1).listeners
    (found,) = check_sockets(listeners, Front(joined, None), runner)
    assert found.level is Level.GOOD


@needs_root
def test_a_private_folder_lets_caddy_through_and_nobody_else(folder: Path) -> None:
    (folder / "Caddyfile").write_text(file(folder, "\tsocket_mode 0666"))
    folder.chmod(0o700)
    listeners = plan(load((folder / "Caddyfile").read_bytes(), "Caddyfile", {}), cores=1).listeners
    (found,) = check_sockets(listeners, Front(CADDY, None), runner_of(None, None))
    assert found.level is Level.BAD
    subprocess.run(found.fix, shell=True, check=True)
    assert next(check_sockets(listeners, Front(CADDY, None), runner_of(None, None))).level is Level.GOOD
    stranger = Front(Who("other", 4999, frozenset({4999})), None)
    assert next(check_sockets(listeners, stranger, runner_of(None, None))).level is Level.BAD


def test_what_an_app_fails_of_comes_first_and_is_over_when_it_is_corrected(folder: Path) -> None:
    (folder / "main.py").write_text("import nosuchmodule\n")
    (folder / "good.py").write_text(APP)
    good = f"unix/{folder}/g.sock {{\n\tpython {{\n\t\tmodule_wsgi good:app\n\t\tworkers 1\n\t}}\n}}\n"
    with daemon(folder, file(folder) + good) as process:
        worst = doctor(process, folder)[0]
        assert (worst["level"], worst["topic"]) == ("bad", "apps")
        assert "main:app has no worker (import-failed): " in worst["text"]
        assert "nosuchmodule" in worst["text"]
        (folder / "main.py").write_text(APP)
        step, fix, _ = worst["fix"].split("`")
        assert step == "correct that, then "
        command(process, folder, *shlex.split(fix)[1:], check=True)
        assert [row for row in doctor(process, folder) if row["topic"] == "apps"] == [
            {"level": "good", "topic": "apps", "text": "2 up, and none has crashed", "fix": ""}
        ]

        os.kill(call(process, "GET", "/workers").json["workers"][0]["pid"], signal.SIGKILL)
        eventually(lambda: "SIGKILL" in str(doctor(process, folder)), "a crash that is told")
        (row,) = (row for row in doctor(process, folder) if row["topic"] == "apps")
        assert "failed: crashed 1" in row["text"]

        (folder / "Caddyfile").write_text(file(folder) + good.replace("good:app", "}"))
        rows = doctor(process, folder)
        assert any(row["topic"] == "file" and row["level"] == "bad" for row in rows)
        assert any(row["topic"] == "daemon" and f"process {process.pid} runs" in row["text"] for row in rows)
        (folder / "Caddyfile").write_text(file(folder) + good)
    rows = [row for row in doctor(process, folder) if row["topic"] == "daemon"]
    assert rows[0]["fix"] == f"caddysnake run --config {folder}/Caddyfile"


def test_workers_that_take_nothing_are_named_and_a_dump_shows_what_they_wait_for(folder: Path) -> None:
    (folder / "main.py").write_text(
        "import time\n" + APP.replace("    start_response", "    stand(environ)\n    start_response")
        + "def stand(environ):\n    if environ['PATH_INFO'] != '/':\n        time.sleep(60)\n"
        "async def block(scope, receive, send):\n    if scope['type'] == 'http':\n        time.sleep(60)\n"
    )  # fmt: skip
    threads = file(folder).replace("workers 1", "workers 1\n\t\tthreads 2")
    loop = file(folder).replace("s.sock", "a.sock").replace("wsgi main:app", "asgi main:block").partition("}\n")[2]
    (folder / "other.py").write_text(APP)
    stopped = file(folder).replace("s.sock", "o.sock").replace("main:app", "other:app").partition("}\n")[2]
    with daemon(folder, threads + loop + stopped) as process, contextlib.ExitStack() as kept:
        assert get("/", path=folder / "s.sock")[0] == 200
        workers = call(process, "GET", "/workers").json["workers"]
        (pid,) = (each["pid"] for each in workers if each["app"] == "other:app")
        os.kill(pid, signal.SIGSTOP)
        kept.enter_context(contextlib.suppress(ProcessLookupError))
        kept.callback(os.kill, pid, signal.SIGCONT)
        for name in ("s.sock", "s.sock", "a.sock", "o.sock"):
            hanging = kept.enter_context(socket.socket(socket.AF_UNIX))
            hanging.connect(str(folder / name))
            hanging.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: str(doctor(process, folder)).count("has taken no request for") == 3, "three that take none")
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: str(doctor(process, folder)).count("has taken no request for") == 2, "two blocked workers")
        rows = [row for row in doctor(process, folder) if "has taken no request for" in row["text"]]
        assert {row["level"] for row in rows} == {"bad"}
        shown = [command(process, folder, *row["fix"].split("`")[1].split()[1:], check=True).stdout for row in rows]
        assert "in stand" in shown[0]
        assert "in block" in shown[1]
        table = command(process, folder, "status").stdout
        assert table.count("has taken no request for") == 2
        assert all(row["fix"].split("`")[1].rpartition(" --config")[0] in table for row in rows)
        metrics = call(process, "GET", "/metrics").body.decode()
        told = re.findall(r'^caddysnake_worker_blocked_seconds\{app="\S+"\} (\S+)', metrics, re.MULTILINE)
        assert sorted(float(each) > 10 for each in told) == [False, True, True]
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGINT)
        process.wait()


def test_caddys_configuration_tells_where_it_forwards_to(folder: Path) -> None:
    listeners = plan(load(file(folder).encode(), "Caddyfile", {}), cores=1).listeners
    site = f"http://127.0.0.1:{{port}} {{\n\treverse_proxy unix/{folder}/s.sock unix/{folder}/old.sock\n}}\n"
    port = free_port()
    with caddy(folder, site, options=f"\tadmin 127.0.0.1:{port}\n"):
        named = upstreams(("127.0.0.1", port))
    assert named == {f"unix/{folder}/s.sock", f"unix/{folder}/old.sock"}
    (found,) = check_upstreams(listeners, named, "Caddyfile")
    assert found.level is Level.BAD
    assert found.text == f"Caddy forwards to unix/{folder}/old.sock, where nobody listens: 502"
    assert upstreams(("127.0.0.1", port)) is None
    assert list(check_upstreams(listeners, None, "Caddyfile")) == []


@needs_root
def test_what_fails_beside_the_workers_is_told_and_leads_to_what_it_wrote(folder: Path) -> None:
    lines = ("process queue no-such-queue", "schedule nightly `0 3 * * *` sh -c 'echo no disk; exit 4'")
    with daemon(folder, file(folder).replace("workers 1", "\n\t\t".join(("workers 1", *lines)))) as process:
        command(process, folder, "run-schedule", "main:app", "nightly")

        def texts() -> str:
            return "\n".join(f"{each['level']} {each['text']} {each['fix']}" for each in doctor(process, folder))

        eventually(lambda: "bad process queue of main:app ends again and again" in texts(), "five ends in a row")
        told = texts()
        assert "bad Caddyfile:8: process: there is no command no-such-queue" in told
        assert "there is no such command for this user in" in told
        assert "schedule nightly of main:app: its last run, " in told
        mend = f"caddysnake logs --config {folder}/Caddyfile main:app --process nightly"
        assert f"failed: exit status 4 {mend}" in told
        assert "no disk" in command(process, folder, *mend.split()[1:], check=True).stdout
        (folder / "Caddyfile").write_text(file(folder))
        command(process, folder, "reload", check=True)
        told = texts()
        assert not any(word in told for word in ("process queue", "nightly", "Caddyfile:"))


def test_an_interpreter_that_the_user_cannot_get_to_is_told_and_another_heals_it(folder: Path) -> None:
    hidden = folder / "hidden"
    hidden.mkdir(mode=0o700)
    python = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (hidden / "python3").write_bytes(Path(os.path.realpath(python)).read_bytes())
    (hidden / "python3").chmod(0o755)
    venv = folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(hidden / "python3")
    (venv / "pyvenv.cfg").write_text(f"home = {hidden}\n")
    text = file(folder).replace("workers 1", f"venv {venv}").encode()
    runner = Runner(Who("ours", OURS, frozenset({OURS})), OURS)
    planned = plan(load(text, str(folder / "Caddyfile"), {}), cores=1)
    (found,) = check_reach(planned, runner, {})
    assert found.level is Level.BAD
    assert str(hidden) in found.text
    fix, _, rest = found.fix.partition(", and ")
    assert rest == "install its packages again"
    subprocess.run(f"{fix} --without-pip", shell=True, check=True)
    assert list(check_reach(planned, runner, {})) == []


SHOWN = """\
Id=caddysnake.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
Result=exit-code
NRestarts=12
MainPID=0
User=root
Group=
SupplementaryGroups=
RuntimeDirectory=caddysnake
ExecStart={ path=/bin/caddysnake ; argv[]=/bin/caddysnake run --config /etc/caddysnake/Caddyfile ; pid=0 }

Id=caddysnake@blog.service
LoadState=loaded
ActiveState=active
Result=success
NRestarts=0
MainPID=77
User=blog
RuntimeDirectory=caddysnake-blog
ExecStart={ argv[]=caddysnake run --config /etc/caddysnake/blog.caddyfile ; }

Id=caddysnake@gone.service
LoadState=not-found
"""


def test_a_unit_that_is_started_again_and_again_leads_to_its_log() -> None:
    one, blog = read_units(SHOWN)
    assert (one.name, one.is_down, one.restarts, one.folders) == ("caddysnake.service", True, 12, ("/run/caddysnake",))
    assert (blog.user, blog.config, blog.is_down) == ("blog", "/etc/caddysnake/blog.caddyfile", False)
    runner = Runner(Who("root", 0, frozenset({0})), 0, one)
    (found,) = check_daemon(None, "", "/etc/caddysnake/Caddyfile", runner)
    assert found.level is Level.BAD
    assert "caddysnake.service is activating, after 12 restarts" in found.text
    assert found.fix == "journalctl --unit caddysnake.service --lines 50"
    runner = runner._replace(unit=Unit("caddysnake@blog.service", "inactive", "success"))
    (found,) = check_daemon(None, "", "/etc/caddysnake/blog.caddyfile", runner)
    assert found.fix == "systemctl start caddysnake@blog.service"
    runner = runner._replace(unit=blog)
    for silence, level in ((Silence.HANGS, Level.BAD), (Silence.STOPPED, Level.BAD), (Silence.UNKNOWN, Level.DOUBT)):
        (found,) = check_daemon(None, "…", "/etc/caddysnake/blog.caddyfile", runner, silence=silence)
        assert found.level is level
        assert bool(found.fix) is (level is Level.BAD)
    refused = "the daemon of /srv/Caddyfile is at unix//run/s.sock, which this user may not use: call as root"
    (found,) = check_daemon(None, refused, "/srv/Caddyfile", runner._replace(unit=None), silence=Silence.DENIED)
    assert found.fix == "sudo caddysnake doctor --config /srv/Caddyfile", "not to start another one"
    nobody = runner._replace(unit=None)
    found, _ = check_daemon(None, "…", "/srv/Caddyfile", nobody, silence=Silence.ABSENT, with_caddy=True)
    assert found.fix == "caddysnake run --caddy --config /srv/Caddyfile", "as it is started"
    assert "sandbox" not in isolating(runner, 0), "root's apps cannot be in one"
    loading = "the daemon, process 77, is loading another version"
    (found,) = check_daemon(None, loading, "/srv/Caddyfile", runner._replace(unit=None), holder=77)
    assert found.fix == "caddysnake status --config /srv/Caddyfile", "nor to kill it"


@needs_root
def test_a_daemon_that_hangs_is_told_from_one_that_is_not_there(folder: Path) -> None:
    with daemon(folder, file(folder)) as process:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            (row,) = (row for row in doctor(process, folder) if row["topic"] == "daemon")
            begun = time.monotonic()
            told = command(process, folder, "status").stderr
            assert time.monotonic() - begun < 20
            assert f"does not answer: process {process.pid} has been stopped\nHint: `kill -CONT {process.pid}`" in told
            subprocess.run(shlex.split(told.split("`")[1]), check=True)
            command(process, folder, "status", check=True)
        finally:
            os.kill(process.pid, signal.SIGCONT)
    assert row["level"] == "bad"
    assert row["fix"] == f"kill -CONT {process.pid}"


def test_the_last_error_of_a_log_is_its_reason() -> None:
    error = "Traceback\nValueError: no"
    record = {"level": "error", "logger": "daemon", "msg": "Error: app a does not start", "error": error}
    log = f'Started.\n{json.dumps(record)}\n{{"level":"info","logger":"daemon","msg":"stopped"}}\nDone.\n'
    assert last_error(log) == "Error: app a does not start: ValueError: no"
    assert last_error("Error: Caddyfile:3: unknown\n") == "Error: Caddyfile:3: unknown"
    assert last_error("nothing\n") == ""
