"""An interpreter that breaks the rules: what the daemon executes as an app's Python may be a tenant's program.

``install(folder)`` gives a program to be named as an app's interpreter. It speaks the channel well enough to get to the
point of its ``ACT``, an environment variable: ``fork_server_*`` acts as the fork server, all others as a worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''#!%(python)s
import array, json, os, select, signal, socket, sys, time
sys.path.insert(0, %(root)r)
from caddysnake.channel.codec import encode
from caddysnake.channel.endpoint import ChannelClosed, Endpoint
from caddysnake.channel.messages import *
from caddysnake.channel import messages, vitals

ACT = os.environ["ACT"]


def sleep():
    while True:
        time.sleep(600)


def wait(endpoint):
    poller = select.poll()
    poller.register(endpoint.fileno(), select.POLLIN)
    poller.poll()
    return endpoint.receive()


def raw(endpoint, frame, descriptors=()):
    sock = socket.socket(fileno=os.dup(endpoint.fileno()))
    sock.setblocking(True)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        sock.sendmsg([frame], rights)
    finally:
        sock.close()


def say(endpoint, message):
    raw(endpoint, encode(message))


READY = messages.Ready(messages.PROTOCOL_VERSION, "hostile")
PREPARED = messages.Prepared(messages.PROTOCOL_VERSION, "hostile")


class Worker:
    def __init__(self, channel):
        self.endpoint = Endpoint(channel)
        _, (settings_fd, page_fd) = wait(self.endpoint)
        os.close(settings_fd)
        self.page_fd = page_fd
        self.page = vitals.Page(page_fd)

    def take(self):
        while True:
            received = wait(self.endpoint)
            if received is not None and isinstance(received[0], messages.Take):
                message, (fd,) = received
                return message.slot, socket.socket(fileno=fd)

    # Before it is ready.

    def garbage(self):
        raw(self.endpoint, b"\\xff" * 10)

    def empty_message(self):
        raw(self.endpoint, b"")

    def overlong(self):
        raw(self.endpoint, b"\\x20" * 60_000)

    def returned_first(self):
        say(self.endpoint, messages.Returned(0))

    def drained_first(self):
        say(self.endpoint, messages.Drained())

    def speaks_as_daemon(self):
        say(self.endpoint, messages.Drain(1.0))

    def speaks_as_fork_server(self):
        say(self.endpoint, messages.Spawned(1, 1))

    def other_version(self):
        say(self.endpoint, messages.Ready(99, ""))

    def closes_first(self):
        self.endpoint.close()

    def half_closes_first(self):
        socket.socket(fileno=os.dup(self.endpoint.fileno())).shutdown(socket.SHUT_WR)

    def silent(self):
        pass

    def failed_then_flood(self):
        say(self.endpoint, messages.Failed("import-failed", "\\x1b[2J" + "x" * 20_000))
        while True:
            say(self.endpoint, messages.Drained())

    def failed_and_stays(self):
        say(self.endpoint, messages.Failed("i" * 10_000, "no"))

    # After it was ready.

    def ready_twice(self):
        say(self.endpoint, READY)
        say(self.endpoint, READY)

    def failed_while_ready(self):
        say(self.endpoint, READY)
        say(self.endpoint, messages.Failed("import-failed", "no"))

    def drained_while_ready(self):
        say(self.endpoint, READY)
        say(self.endpoint, messages.Drained())

    def returns_what_it_never_had(self):
        say(self.endpoint, READY)
        say(self.endpoint, messages.Returned(int(os.environ.get("SLOT", "0"))))

    def returns_twice(self):
        say(self.endpoint, READY)
        slot, sock = self.take()
        sock.close()
        self.page.slots[slot] = vitals.SLOT_RETURNED
        say(self.endpoint, messages.Returned(slot))
        say(self.endpoint, messages.Returned(slot))

    def floods(self):
        say(self.endpoint, READY)
        while True:
            slot, sock = self.take()
            sock.close()
            self.page.slots[slot] = vitals.SLOT_RETURNED
            say(self.endpoint, messages.Returned(slot))

    def attaches_descriptors(self):
        say(self.endpoint, READY)
        try:
            raw(self.endpoint, encode(messages.Drained()), [0] * 50)
        except PermissionError:  # the kernel did not let it
            say(self.endpoint, messages.Drained())

    def garbage_while_ready(self):
        say(self.endpoint, READY)
        raw(self.endpoint, b"GET / HTTP/1.1\\r\\n\\r\\n")

    def closes_while_ready(self):
        say(self.endpoint, READY)
        time.sleep(0.1)
        self.endpoint.close()

    # What may stay, since it harms nobody else.

    def wild_page(self):
        for index in range(len(self.page.header)):
            self.page.header[index] = 2**64 - 1
        for index in range(vitals.THREADS):
            cells = self.page.thread(index)
            for cell in range(len(cells)):
                cells[cell] = 2**64 - 1
        say(self.endpoint, READY)
        while True:
            self.page.slots[:] = b"\\xff" * vitals.SLOTS
            time.sleep(0.01)

    def truncates_page(self):
        for size in (0, 4096, 10**9):
            try:
                os.ftruncate(self.page_fd, size)
            except PermissionError:
                continue
            os._exit(3)
        say(self.endpoint, READY)

    def never_takes(self):
        say(self.endpoint, READY)

    def takes_and_drops(self):
        say(self.endpoint, READY)
        while True:
            slot, sock = self.take()
            sock.close()

    def takes_and_keeps(self):
        say(self.endpoint, READY)
        kept = []
        while True:
            kept.append(self.take())

    def ignores_everything(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say(self.endpoint, READY)

    def leaves_a_child_with_the_channel(self):
        say(self.endpoint, READY)
        if os.fork() == 0:
            os.setsid()
            end = time.monotonic() + 20
            while time.monotonic() < end and os.getppid() != 1:
                time.sleep(0.05)
            os._exit(0)
        time.sleep(0.1)
        os._exit(7)


def become_worker(channel):
    os.setsid()
    worker = Worker(channel)
    getattr(worker, os.environ.get("WORKER_ACT", ACT))()
    sleep()


def main():
    endpoint = Endpoint(socket.socket(fileno=json.loads(sys.argv[2])["channel"]))
    if ACT == "fork_server_silent":
        sleep()
    if ACT == "fork_server_garbage":
        raw(endpoint, b"\\xff" * 10)
        sleep()
    if ACT == "fork_server_closes":
        endpoint.close()
        sleep()
    if ACT == "fork_server_leaves":
        os._exit(9)
    if ACT == "fork_server_attaches":
        try:
            raw(endpoint, encode(PREPARED), [0] * 20)
        except PermissionError:
            raw(endpoint, b"")
        sleep()
    say(endpoint, PREPARED)
    if ACT == "fork_server_prepared_twice":
        say(endpoint, PREPARED)
        sleep()
    if ACT == "fork_server_floods":
        while True:
            say(endpoint, messages.Spawned(12345, 1))
    if ACT == "fork_server_drowns_reaps":
        while True:
            say(endpoint, messages.Reaped(12345, 0))
    children = {}
    while True:
        received = wait(endpoint)
        if received is None:
            continue
        message, descriptors = received
        if isinstance(message, messages.Reap):
            if ACT != "fork_server_never_reaps":
                _, status = os.waitpid(children[message.worker], 0)
                say(endpoint, messages.Reaped(message.worker, status))
        elif isinstance(message, messages.Spawn):
            (fd,) = descriptors
            claims = {"fork_server_claims_init": 1, "fork_server_claims_nobody": 2**22, "fork_server_fails": -11,
                      "fork_server_claims_daemon": os.getppid(), "fork_server_claims_zero": 0,
                      "fork_server_claims_itself": os.getpid(), "fork_server_claims_least": -2**31}
            if ACT in claims:
                say(endpoint, messages.Spawned(message.worker, claims[ACT]))
            elif ACT == "fork_server_never_forks":
                pass
            elif ACT == "fork_server_dies":
                os._exit(9)
            else:
                pid = os.fork()
                if pid == 0:
                    endpoint.close()
                    become_worker(socket.socket(fileno=fd))
                children[message.worker] = pid
                say(endpoint, messages.Spawned(message.worker, pid))
            os.close(fd)


try:
    main()
except (ChannelClosed, BrokenPipeError, KeyboardInterrupt):
    pass
'''


def install(folder: Path) -> str:
    """Write the program into ``folder``; its path."""
    program = folder / "python"
    program.write_text(SOURCE % {"python": sys.executable, "root": str(ROOT)})
    program.chmod(0o755)
    return str(program)
