"""The app of a tenant that means harm: each function tries something, and says what came of it."""

from __future__ import annotations

APP = r'''
import array, ctypes, errno, json, os, resource, socket, stat, tempfile, time

libc = ctypes.CDLL(None, use_errno=True)


def told(act):
    try:
        act()
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return "done"


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def read_mem(pid):
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.readline().partition("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as mem:
        mem.seek(start)
        mem.read(16)


def take_descriptor(pid):
    checked(libc.syscall(438, os.pidfd_open(pid), 0, 0))  # pidfd_getfd


def attach(pid):
    checked(libc.ptrace(0x4206, pid, 0, 0))  # PTRACE_SEIZE
    os._exit(1)


def connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)


def on_process(pid):
    return {
        "environ": told(lambda: open(f"/proc/{pid}/environ", "rb").read()),
        "memory": told(lambda: read_mem(pid)),
        "descriptors": told(lambda: os.listdir(f"/proc/{pid}/fd")),
        "open descriptor": told(lambda: open(f"/proc/{pid}/fd/0")),
        "take descriptor": told(lambda: take_descriptor(pid)),
        "attach": told(lambda: attach(pid)),
        "signal": told(lambda: os.kill(pid, 0)),
        "working directory": told(lambda: os.readlink(f"/proc/{pid}/cwd")),
    }


def attack(told_to):
    return {
        "processes": {name: on_process(pid) for name, pid in told_to["processes"].items()},
        "files": {path: told(lambda: open(path).read()) for path in told_to["files"]},
        "folders": {path: told(lambda: os.listdir(path)) for path in told_to["folders"]},
        "sockets": {path: told(lambda: connect(path)) for path in told_to["sockets"]},
    }


def spend_memory(told_to):
    try:
        held = bytearray(told_to["bytes"])
    except MemoryError:
        return "MemoryError"
    return len(held)


def limits(told_to):
    kinds = {"open_files": resource.RLIMIT_NOFILE, "processes": resource.RLIMIT_NPROC,
             "file_size": resource.RLIMIT_FSIZE, "memory": resource.RLIMIT_DATA}
    found = {name: resource.getrlimit(kind) for name, kind in kinds.items()}
    found["raise"] = {}
    for name, kind in kinds.items():
        try:
            resource.setrlimit(kind, (found[name][1] + 1, found[name][1] + 1))
            found["raise"][name] = "done"
        except (ValueError, OSError):
            found["raise"][name] = "refused"
    found["niceness"] = os.nice(0)
    return found


def who(told_to):
    status = open("/proc/self/status").read()
    umask = os.umask(0o27)
    os.umask(umask)
    return {
        "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "umask": umask, "pid": os.getpid(),
        "parent": os.getppid(), "environ": dict(os.environ), "tmp": tempfile.gettempdir(),
        "mode": stat.S_IMODE(os.stat(tempfile.gettempdir()).st_mode),
        "no_new_privs": "NoNewPrivs:\t1" in status,
        "capabilities": [line for line in status.split("\n") if line[:6] == "CapEff"],
    }


def leave_behind(told_to):
    folder = tempfile.mkdtemp()
    os.symlink("/etc", folder + "/link")
    os.chmod(folder, 0)
    return folder


def channels():
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if sock.type == socket.SOCK_SEQPACKET:
            yield sock


def flood(told_to):
    for sock in channels():
        while True:
            sock.setblocking(True)
            sock.send(b"\xff" * 100)


def park(told_to):
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    for sock in channels():
        sock.setblocking(True)
        for _ in range(10):
            sock.sendmsg([b"\x05"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])


def forge(told_to):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(told_to["path"])
        sock.sendall(
            b"GET /seen HTTP/1.1\r\nHost: bob.test\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Host: bank.example\r\nConnection: close\r\n\r\n"
        )
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def sleep(told_to):
    time.sleep(600)


def app(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    if name == "seen":
        value = {key: environ.get(key) for key in ("REMOTE_ADDR", "HTTP_HOST", "wsgi.url_scheme")}
    else:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        value = globals()[name](json.loads(environ["wsgi.input"].read(length) or b"{}"))
    body = json.dumps(value).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''
