"""Carried out inside a machine with cgroup v2 and its memory controller: every check is a function, in order.

Outcomes in JSON, on the second serial line. Like ``checks``, of which it uses the tools.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import traceback
from pathlib import Path

import checks
from checks import BIN, CONFIG, Connection, ask, call, drop_in, show, until

checks.PATIENCE_S = 300.0  # everything is emulated
GROUP = Path("/sys/fs/cgroup/system.slice/caddysnake.service")
SOCKET = "/run/caddysnake/blog.sock"
LIMIT = 96 << 20

APP = '''
import json, os, resource, subprocess, sys

EAT = "import time; kept = [b'x' * (1 << 20) for _ in range(400)]; time.sleep(60)"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/eat":
        try:
            kept = [b"x" * (1 << 20) for _ in range(400)]
        except MemoryError:
            kept = ["MemoryError"]
    elif path == "/child-eats":
        subprocess.run([sys.executable, "-c", EAT], start_new_session=True)
    elif path == "/leave-a-child":
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    told = {"pid": os.getpid(), "uid": os.getuid(), "limit": resource.getrlimit(resource.RLIMIT_DATA)[0]}
    told["group"] = open("/proc/self/cgroup").read().strip()
    told["answer"] = "MemoryError" if path == "/eat" and kept == ["MemoryError"] else ""
    try:
        place = "/sys/fs/cgroup" + told["group"][3:] + "/memory.max"
        os.close(os.open(place, os.O_WRONLY))
        told["may_lift_it"] = "yes"
    except OSError as exc:
        told["may_lift_it"] = exc.strerror
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
'''


def site(*more: str) -> str:
    inside = ["module_wsgi main:app", "working_dir /srv/blog", "workers 1", "limits {", f"memory {LIMIT}", "}", *more]
    return f"unix/{SOCKET} {{\n\tpython {{\n" + "".join(f"\t\t{line}\n" for line in inside) + "\t}\n}\n"


def groups() -> list[str]:
    return sorted(each.name for each in GROUP.glob("app-*"))


def die(target: str) -> None:
    """A request that its worker does not survive."""
    connection = Connection(SOCKET)
    try:
        connection.request("GET", target)
        told = connection.getresponse()
        assert told.status >= 500, told.status
    except OSError:
        pass
    finally:
        connection.close()


def one_of_them(what: str) -> dict:
    """The app's answer, once one worker serves and nothing is left of others."""
    until(lambda: ask(SOCKET) and len(groups()) == 1, what)
    told = ask(SOCKET)
    assert told["group"].endswith("/" + groups()[0]), (told, groups())
    return told


def api() -> dict:
    """The status, by the API: starting a command takes half a minute on an emulated machine."""
    sockets = Path("/run").glob("caddysnake*/admin/*.sock")
    return ask(str(max(sockets, key=lambda each: each.stat().st_mtime)), "/status")


def app() -> dict:
    (found,) = api()["apps"]
    return found


def reload() -> dict:
    """The first answer of the next generation, once the one before has gone."""
    before = app()["generation"]
    os.kill(int(show("MainPID")), signal.SIGHUP)
    until(lambda: app()["generation"] > before and len(app()["workers"]) == 1, "a reload")
    return one_of_them("the next worker")


def uses_too_much(target: str, before: dict, times: int) -> None:
    """A request to ``target`` ends its worker for memory, for the ``times``-th time since the app is there."""
    die(target)
    assert one_of_them("the next worker")["pid"] != before["pid"]
    assert app()["restarts"].get("memory") == times, app()
    assert app()["last_failure"]["code"] == "memory", app()
    assert "came to its limit of 101 MB" in app()["last_failure"]["error"], app()


def programs() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            found.append(entry.read_text().strip())
    return found


def check_a_worker_with_a_limit_gets_a_group_of_its_own() -> None:
    Path("/srv/blog").mkdir()
    Path("/srv/blog/main.py").write_text(APP)
    CONFIG.parent.mkdir()
    CONFIG.write_text(site())
    call(f"{BIN}/caddysnake systemd --install --now")
    told = one_of_them("a group of its own")
    group = GROUP / groups()[0]
    assert (group / "memory.max").read_text() == f"{LIMIT}\n"
    assert (group / "memory.oom.group").read_text() == "1\n"
    assert told["limit"] == -1, told  # RLIMIT_DATA is not set
    assert (group / "cgroup.procs").read_text() == f"{told['pid']}\n"
    assert not (GROUP / "cgroup.procs").read_text(), "nobody may be in it"
    assert show("MainPID") in (GROUP / "daemon/cgroup.procs").read_text().split()
    assert app()["workers"][0]["memory_limit"] == "cgroup"
    assert api()["daemon"]["cgroup"] == str(GROUP)
    print(call("systemctl status --no-pager -n 0 caddysnake; journalctl -o cat -u caddysnake | grep memory"))


def check_the_kernel_ends_what_uses_more_and_the_reason_is_told() -> None:
    uses_too_much("/eat", one_of_them("a worker"), 1)
    print(call("journalctl -o cat -u caddysnake | grep 'came to its limit'; journalctl -k -o cat | grep oom-kill"))


def check_what_it_has_started_counts() -> None:
    uses_too_much("/child-eats", one_of_them("a worker"), 2)


def check_a_crash_is_told_apart() -> None:
    os.kill(one_of_them("a worker")["pid"], signal.SIGKILL)
    until(lambda: app()["restarts"] == {"crashed": 1, "memory": 2}, "a crash")
    assert "signal SIGKILL" in app()["last_failure"]["error"], app()
    one_of_them("the next worker")


def check_what_it_left_behind_goes_with_it() -> None:
    one_of_them("a worker")
    ask(SOCKET, "/leave-a-child")
    assert "sleep" in programs()
    reload()
    until(lambda: "sleep" not in programs(), "the end of what it had started")


def check_an_upgrade_takes_them_over() -> None:
    before, pid = one_of_them("a worker"), show("MainPID")
    os.kill(int(pid), signal.SIGUSR2)
    until(lambda: api()["daemon"]["upgrades"] == 1, "an upgrade")
    assert one_of_them("the same worker")["pid"] == before["pid"]
    assert show("MainPID") == pid
    assert app()["workers"][0]["memory_limit"] == "cgroup"
    uses_too_much("/eat", before, 3)


def check_nothing_is_left_of_a_daemon_that_was_killed() -> None:
    before = one_of_them("a worker")
    os.kill(int(show("MainPID")), signal.SIGKILL)
    until(lambda: show("NRestarts") == "1" and ask(SOCKET)["pid"] != before["pid"], "a restart")
    assert one_of_them("a worker")["limit"] == -1


def check_processor_time_and_processes_have_limits_too() -> None:
    CONFIG.write_text(site().replace("limits {", "limits {\n\t\tcpu 50%\n\t\tprocesses 40"))
    told = reload()
    group = GROUP / groups()[0]
    assert (group / "cpu.max").read_text() == "50000 100000\n"
    assert (group / "pids.max").read_text() == "40\n"
    assert app()["workers"][0]["cpu_limit"] == "cgroup"
    assert told["limit"] == -1, told


def check_the_limit_of_the_service_is_told_apart_and_does_not_stop_it() -> None:
    CONFIG.write_text(site().replace(f"memory {LIMIT}", f"memory {LIMIT * 10}"))
    before, daemon = reload(), show("MainPID")
    call("systemctl set-property --runtime caddysnake MemoryMax=200M")
    die("/eat")
    assert one_of_them("the next worker")["pid"] != before["pid"]
    assert "the service, or the machine, is out of memory" in app()["last_failure"]["error"], app()
    assert show("MainPID") == daemon
    call("systemctl set-property --runtime caddysnake MemoryMax=infinity")


def check_the_process_of_threads_has_one_limit() -> None:
    CONFIG.write_text(site("workers_runtime thread"))
    told = reload()
    assert groups()[0].startswith("app-thread_host-"), groups()
    assert told["limit"] == -1, told
    assert app()["workers"][0]["memory_limit"] == "cgroup"
    uses_too_much("/eat", told, 2)  # with the one before


def check_an_app_of_the_daemons_user_could_lift_it_and_one_with_its_own_could_not() -> None:
    assert one_of_them("a host")["may_lift_it"] == "yes"
    call("useradd --system tenant")
    CONFIG.write_text(site("user tenant"))
    call(f"{BIN}/caddysnake systemd --install --users && systemctl restart caddysnake")
    told = one_of_them("a worker")
    assert told["may_lift_it"] == "Permission denied", told
    uses_too_much("/eat", told, 1)
    print(call(f"{BIN}/caddysnake status --config {CONFIG}"))


def check_without_delegation_it_is_each_process_that_is_limited() -> None:
    with drop_in("[Service]\nDelegate=no\n"):
        call("systemctl restart caddysnake")
        until(lambda: ask(SOCKET), "the site")
        told = ask(SOCKET, "/eat")
        assert told["limit"] == LIMIT, told
        assert told["answer"] == "MemoryError", told
        assert app()["workers"][0]["memory_limit"] == "rlimit"
        assert api()["daemon"]["no_cgroup_because"], api()["daemon"]
        print(call("journalctl -o cat -u caddysnake | grep RLIMIT_DATA"))
        assert not groups()
    call("systemctl stop caddysnake")
    assert not GROUP.exists()


def check_by_hand_a_delegated_scope_will_do() -> None:
    CONFIG.write_text(site().replace(SOCKET, "/run/by-hand.sock"))
    command = ["systemd-run", "--scope", "--quiet", "-p", "Delegate=yes", f"{BIN}/caddysnake", "run"]
    with subprocess.Popen([*command, "--config", str(CONFIG)]) as process:
        try:
            until(lambda: ask("/run/by-hand.sock"), "the site")
            told = ask("/run/by-hand.sock")
            assert "/app-main_app-" in told["group"], told
            assert told["limit"] == -1, told
        finally:
            process.send_signal(signal.SIGTERM)


def main() -> None:
    outcome = {}
    for name, check in [(name, check) for name, check in globals().items() if name.startswith("check_")]:
        begun = time.monotonic()
        try:
            check()
            outcome[name] = ""
        except BaseException:
            outcome[name] = traceback.format_exc()
        print(f"{name}: {'failed' if outcome[name] else 'ok'} ({time.monotonic() - begun:.1f}s)", flush=True)
        if outcome[name]:
            print(outcome[name], flush=True)
    print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
