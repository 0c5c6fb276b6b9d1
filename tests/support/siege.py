"""An app in a sandbox that reaches for all that is not its own: each act says what came of it."""

from __future__ import annotations

from support.malice import APP as MALICE

APP = (
    MALICE
    + r'''
import fcntl, mmap, signal, ssl, struct, subprocess, threading


def raw(number, *arguments):
    whole = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    found = libc.syscall(ctypes.c_long(number), *whole)
    if found < 0:
        raise OSError(ctypes.get_errno(), "")
    return found


def signal_by_owner(pid):
    ours, theirs = socket.socketpair()
    fcntl.fcntl(ours, fcntl.F_SETOWN, pid)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    theirs.send(b"x")


def vm_read(pid, number):
    buffer = ctypes.create_string_buffer(8)
    ours = struct.pack("2P", ctypes.addressof(buffer), 8)
    raw(number, pid, ours, 1, ours, 1, 0)


def on_neighbour(pid, numbers):
    return {
        "signal 0": told(lambda: os.kill(pid, 0)),
        "SIGCONT": told(lambda: os.kill(pid, signal.SIGCONT)),
        "pidfd_send_signal": told(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0)),
        "ptrace": told(lambda: attach(pid)),
        "process_vm_readv": told(lambda: vm_read(pid, numbers["process_vm_readv"])),
        "pidfd_getfd": told(lambda: take_descriptor(pid)),
        "kcmp": told(lambda: raw(numbers["kcmp"], pid, os.getpid(), 0, 0, 0)),
        "environ": told(lambda: open(f"/proc/{pid}/environ", "rb").read()),
        "maps": told(lambda: open(f"/proc/{pid}/maps").read()),
        "mem": told(lambda: read_mem(pid)),
        "root": told(lambda: os.listdir(f"/proc/{pid}/root/")),
        "cwd": told(lambda: os.listdir(f"/proc/{pid}/cwd/")),
        "fd": told(lambda: open(f"/proc/{pid}/fd/1")),
        "prlimit": told(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))),
        "affinity": told(lambda: os.sched_setaffinity(pid, [0])),
        "scheduler": told(lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))),
        "priority": told(lambda: os.setpriority(os.PRIO_PROCESS, pid, 5)),
        "ioprio": told(lambda: raw(numbers["ioprio_set"], 1, pid, 3 << 13)),
    }


def on_files(folder):
    secret = folder + "/secret.txt"
    return {
        "read": told(lambda: open(secret).read()),
        "write": told(lambda: open(secret, "w")),
        "append": told(lambda: open(secret, "a")),
        "truncate": told(lambda: os.truncate(secret, 0)),
        "unlink": told(lambda: os.unlink(secret)),
        "rename": told(lambda: os.rename(secret, folder + "/x")),
        "rename away": told(lambda: os.rename(secret, tempfile.gettempdir() + "/x")),
        "link": told(lambda: os.link(secret, tempfile.gettempdir() + "/x")),
        "make": told(lambda: open(folder + "/new", "w")),
        "make a folder": told(lambda: os.mkdir(folder + "/d")),
        "list": told(lambda: os.listdir(folder)),
        "execute": told(lambda: os.execv(folder + "/program", ["x"])),
        "by a link of one's own": told(lambda: (os.symlink(secret, tempfile.gettempdir() + "/l"),
                                                open(tempfile.gettempdir() + "/l").read())),
    }


def fast_open(port):
    with socket.socket() as sock:
        sock.sendto(b"x", 0x20000000, ("127.0.0.1", port))


def plain_connect(port, protocol=0):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as sock:
        sock.connect(("127.0.0.1", port))


def abstract(name):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + name)


def datagram(path):
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.sendto(b"x", path)


def on_network(told_to):
    port = told_to["port"]
    return {
        "connect": told(lambda: plain_connect(port)),
        "MPTCP": told(lambda: plain_connect(port, 262)),
        "MSG_FASTOPEN": told(lambda: fast_open(port)),
        "bind": told(lambda: socket.socket().bind(("127.0.0.1", 0))),
        "listen": told(lambda: socket.socket().listen()),
        "SOCK_DIAG": told(lambda: socket.socket(16, socket.SOCK_RAW, 4)),
        "vsock": told(lambda: socket.socket(40, socket.SOCK_STREAM)),
        "SCTP": told(lambda: socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET)),
        "abstract": told(lambda: abstract(told_to["abstract"])),
        "a unix socket": told(lambda: connect(told_to["socket"])),
        "a datagram": told(lambda: datagram(told_to["socket"])),
    }


def on_machine(numbers):
    page = ctypes.create_string_buffer(256)
    return {
        "user namespace": told(lambda: checked(libc.unshare(0x10000000))),
        "mount namespace": told(lambda: checked(libc.unshare(0x20000))),
        "SysV memory": told(lambda: raw(numbers["shmget"], 0, 4096, 0o1600)),
        "POSIX queue": told(lambda: raw(numbers["mq_open"], b"caddysnake", 0o102, 0o600, 0)),
        "keys": told(lambda: raw(numbers["keyctl"], 0, -4, 1)),
        "io_uring": told(lambda: raw(numbers["io_uring_setup"], 1, page)),
        "userfaultfd": told(lambda: raw(numbers["userfaultfd"], 1)),
        "fanotify": told(lambda: raw(numbers["fanotify_init"], 0, 0)),
        "bpf": told(lambda: raw(numbers["bpf"], 0, page, 64)),
        "perf": told(lambda: raw(numbers["perf_event_open"], page, 0, -1, -1, 0)),
        "all of the user": told(lambda: os.setpriority(os.PRIO_USER, 0, 5)),
        "names in /dev/shm": told(lambda: os.listdir("/dev/shm")),
        "home": told(lambda: os.listdir("/home")),
        "a terminal": told(os.openpty),
    }


def besiege(told_to):
    numbers = told_to["numbers"]
    return {
        **{name: on_neighbour(pid, numbers) for name, pid in told_to["processes"].items()},
        "files": on_files(told_to["folder"]),
        "their temporary files": {"list": told(lambda: os.listdir(told_to["tmp"]))},
        "network": on_network(told_to),
        "machine": on_machine(numbers),
    }


def call_by_other_numbers(told_to):
    """What becomes of a child that calls the kernel as a program for another machine does: the signal that ends it."""
    found = {}
    for name, code in (("i386", b"\xb8\x14\0\0\0\xcd\x80\xc3"), ("x32", b"\xb8\x27\0\0\x40\x0f\x05\xc3")):
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        act = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        pid = os.fork()
        if pid == 0:
            act()
            os._exit(0)
        found[name] = os.WTERMSIG(os.waitpid(pid, 0)[1])
    return found


def kill_all(told_to):
    """kill(2) says nothing of those that it was not allowed to."""
    return told(lambda: os.kill(-1, signal.SIGKILL))


def left(told_to):
    """What a sandbox with one user does not keep from it."""
    folder = told_to["folder"]
    return {
        "stat": told(lambda: os.stat(folder + "/secret.txt")),
        "chmod": told(lambda: os.chmod(folder + "/secret.txt", 0o600)),
        "utime": told(lambda: os.utime(folder + "/secret.txt")),
        "chdir": told(lambda: os.chdir(folder)),
        "UDP": told(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9))),
    }


def live(told_to):
    """What apps need: each works."""
    import asyncio, mimetypes, multiprocessing, multiprocessing.shared_memory, sqlite3, zoneinfo
    def run_sql():
        with sqlite3.connect(tempfile.gettempdir() + "/x.db") as db:
            db.execute("create table t (x)")
            db.execute("pragma journal_mode=wal")
        db.close()
    def share():
        held = multiprocessing.shared_memory.SharedMemory(create=True, size=100)
        held.close()
        held.unlink()
    def run_thread():
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
    acts = {
        "temporary": lambda: tempfile.NamedTemporaryFile().write(b"x"),
        "names": lambda: socket.getaddrinfo("localhost", 80),
        "sqlite": run_sql,
        "lock": multiprocessing.Lock,
        "shared memory": share,
        "thread": run_thread,
        "program": lambda: subprocess.run(["/bin/sh", "-c", "true"], check=True, stdin=subprocess.DEVNULL),
        "mime": lambda: mimetypes.guess_type("x.css"),
        "loop": lambda: asyncio.new_event_loop().close(),
        "user": lambda: __import__("pwd").getpwuid(0),
        "zone": lambda: time.tzset(),
        "own code": lambda: open(__file__).read(),
    }
    return {
        **{name: told(act) for name, act in acts.items()},
        "certificates": len(ssl.create_default_context().get_ca_certs()) + 1,
        "tmp": tempfile.gettempdir(),
    }


def stumble(told_to):
    import traceback
    try:
        os.listdir("/home")
    except OSError:
        traceback.print_exc()
        raise


def answered(told_to):
    """The status line that the admin API has for this process, and for one that it starts."""
    with socket.create_connection(("127.0.0.1", told_to["port"])) as sock:
        sock.sendall(b"GET /status HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % told_to["port"])
        own = sock.recv(12).decode()
    done = subprocess.run(told_to["command"], stdout=subprocess.PIPE, text=True, check=True)
    return {"itself": own, "a child": done.stdout.strip()}


def tried(told_to):
    return {path: told(lambda: os.symlink("/", path) if mode == "l" else open(path, mode))
            for path, mode in told_to["paths"]}
'''
)
