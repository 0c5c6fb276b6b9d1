"""What an app finds in its interpreter, and what it may do there: we are guests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.probe import ask, write
from support.worker import PACKAGE, SITE, Failed, ForkServer, Worker, running, settings


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a virtual environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    return str(folder / "bin" / "python")


SEEN = """
import sys
MODULES = sorted(sys.modules)
PATH = list(sys.path)
import os
FDS = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
       if os.path.exists(f"/proc/self/fd/{fd}") or os.path.islink(f"/proc/self/fd/{fd}")}

def modules():
    return MODULES

def path():
    return PATH

def main_module():
    return sorted(name for name, value in vars(sys.modules["__main__"]).items() if value is not None)

def arguments():
    return sys.argv

def descriptors():
    return FDS

def environment():
    return dict(os.environ)

def at_start():
    return open("/proc/self/environ").read().split("\\0")

def parent_at_start():
    return open(f"/proc/{os.getppid()}/environ").read().split("\\0")

def directory():
    return os.getcwd()

def process():
    return [open("/proc/self/cmdline").read(), open("/proc/self/comm").read(), os.getpid() == os.getsid(0)]

def numbers():
    import random, secrets, uuid
    return [random.random(), secrets.token_hex(), str(uuid.uuid4())]

def interrupt():
    import signal
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
ALLOWED_THEIRS = {"caddysnake_speedups", "httptools", "uvloop"}


@pytest.fixture
def seen(tmp_path: Path, bare: str, interface: str) -> Iterator[Worker]:
    write(tmp_path, SEEN)
    environ = {"PATH": "/bin", "SECRET": "hush", "TZ": "UTC"}
    wanted = settings(f"probe:{interface}", interface, tmp_path, environ=environ)
    with running(wanted, bare, interface=interface) as worker:
        yield worker


def test_nothing_of_ours_is_on_the_path(seen: Worker, tmp_path: Path) -> None:
    path = ask(seen, "path")
    assert path[0] == str(tmp_path)
    assert not [entry for entry in path if entry.startswith((str(PACKAGE), str(PACKAGE.parent), SITE))]


def test_before_the_app_only_the_standard_library_ours_and_the_named_libraries_are_loaded(
    seen: Worker, interface: str
) -> None:
    modules = set(ask(seen, "modules"))
    foreign = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    # What an interpreter may bring, and the books that Cython keeps for all modules it has made.
    foreign -= {name for name in foreign if name in {"sitecustomize", "usercustomize"} or "cython" in name}
    assert foreign <= {"_caddysnake", "_caddysnake_lib", "probe", "__main__"}
    private = {name.split(".")[1] for name in modules if name.startswith("_caddysnake_lib.")}
    assert private <= ALLOWED_THEIRS
    folders = {name.split(".")[1] for name in modules if name.startswith("_caddysnake.")}
    assert folders <= {"aio", "channel", "http1", "worker", "keyring", "libraries"}


def test_a_worker_is_lean(seen: Worker, interface: str) -> None:
    heavy = {"argparse", "email", "http.client", "importlib.metadata", "multiprocessing", "pickle", "tempfile"}
    if interface == "wsgi":
        heavy |= {"asyncio", "ssl", "concurrent.futures"}
    assert not heavy & set(ask(seen, "modules"))


def test_the_public_names_of_our_libraries_are_free(seen: Worker) -> None:
    assert not {"httptools", "uvloop", "websockets", "caddysnake"} & set(ask(seen, "modules"))


def test_the_main_module_is_empty(seen: Worker) -> None:
    """Else the children of multiprocessing would run our bootstrap again."""
    assert ask(seen, "main_module") == ["__name__"]
    assert len(ask(seen, "arguments")) == 1


def test_a_worker_has_no_descriptor_but_its_own(seen: Worker) -> None:
    found = {int(fd): target for fd, target in ask(seen, "descriptors").items()}
    assert found.pop(0) == "/dev/null"
    del found[1], found[2]
    # Its channel, and what Python keeps of the page it has mapped.
    assert sorted(target.partition(":")[0] for target in found.values()) == ["/memfd", "socket"], found


def test_the_environment_is_exactly_what_was_configured(seen: Worker) -> None:
    assert ask(seen, "environment") == {"PATH": "/bin", "SECRET": "hush", "TZ": "UTC"}


def test_no_secret_is_in_the_environment_that_ps_shows(seen: Worker) -> None:
    shown = Path(f"/proc/{seen.pid}/environ").read_bytes()
    assert b"hush" not in shown
    parent = int(Path(f"/proc/{seen.pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    assert b"hush" not in Path(f"/proc/{parent}/environ").read_bytes()
    assert b"hush" not in Path(f"/proc/{parent}/cmdline").read_bytes()


def test_it_works_in_its_directory_under_its_title_in_its_own_session(
    seen: Worker, tmp_path: Path, interface: str
) -> None:
    assert ask(seen, "directory") == str(tmp_path)
    title, name, leads = ask(seen, "process")
    assert title.rstrip("\0") == f"caddysnake: worker probe:{interface}"
    assert name == "caddysnake\n"
    assert leads


def test_what_the_app_starts_does_not_ignore_an_interrupt(seen: Worker) -> None:
    assert ask(seen, "interrupt")


def test_a_worker_adds_little_to_its_fork_server(tmp_path: Path, bare: str, interface: str) -> None:
    source = """
def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
"""
    write(tmp_path, source)
    with running(settings(f"probe:{interface}", interface, tmp_path), bare, interface=interface) as worker:
        ask(worker, "private")
        assert ask(worker, "private") < 12 * 1024


def test_random_numbers_differ_between_workers_of_one_fork_server(tmp_path: Path, bare: str) -> None:
    write(tmp_path, "import random\n" + SEEN)
    wanted = settings("probe:wsgi", "wsgi", tmp_path)
    fork_server = ForkServer(bare, preload=["random", "uuid", "secrets"])
    try:
        workers = [Worker(fork_server, wanted) for _ in range(2)]
        one, other = (ask(worker, "numbers") for worker in workers)
        assert not set(one) & set(other)
        for worker in workers:
            worker.close()
    finally:
        fork_server.close()


# -- the app's own names ---------------------------------------------------------------------------------------

NAMES = [
    "config", "worker", "channel", "daemon", "cli", "relay", "http1", "libraries", "bootstrap", "fork_server",
    "loader", "aio", "messages", "codec", "endpoint", "settings", "vitals", "asgi", "wsgi", "scope", "lifespan",
    "environ", "logs", "caddysnake", "httptools", "uvloop", "websockets", "main", "request", "errors", "limits",
]  # fmt: skip

OWN = """
import caddysnake, importlib
from caddysnake import cache, worker_id
import httptools, uvloop, websockets

def owners():
    return {name: importlib.import_module(name).OWNER for name in %r}

def submodules():
    import httptools.parser, uvloop.loop, websockets.server
    return [httptools.parser.OWNER, uvloop.loop.OWNER, websockets.server.OWNER, cache, worker_id]

def files():
    return [httptools.__file__, uvloop.__file__, websockets.__file__, caddysnake.__file__]
""" % NAMES  # noqa: UP031


@pytest.fixture
def full_of_names(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("OWNER = 'app'\n")
    for name, child in (("httptools", "parser"), ("uvloop", "loop"), ("websockets", "server"), ("caddysnake", "x")):
        (tmp_path / f"{name}.py").unlink()
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'app'\ncache = 1\nworker_id = 2\n")
        (tmp_path / name / f"{child}.py").write_text("OWNER = 'app'\n")
    write(tmp_path, OWN)
    return tmp_path


def test_an_app_may_have_modules_of_any_of_our_names(full_of_names: Path, bare: str, interface: str) -> None:
    with running(settings(f"probe:{interface}", interface, full_of_names), bare, interface=interface) as worker:
        assert set(ask(worker, "owners").values()) == {"app"}
        assert ask(worker, "submodules") == ["app", "app", "app", 1, 2]
        assert all(file.startswith(str(full_of_names)) for file in ask(worker, "files"))


def test_an_app_may_preload_its_own_copies(full_of_names: Path, bare: str, interface: str) -> None:
    wanted = settings(f"probe:{interface}", interface, full_of_names)
    preload = ["httptools", "uvloop", "websockets", "caddysnake"]
    fork_server = ForkServer(bare, interface=interface, preload=preload, path=[str(full_of_names)])
    try:
        worker = Worker(fork_server, wanted)
        assert set(ask(worker, "owners").values()) == {"app"}
        worker.close()
    finally:
        fork_server.close()


REAL = """
import httptools, uvloop, websockets.sync.server

class Seen:
    def on_url(self, url):
        self.url = url

def parse():
    seen = Seen()
    httptools.HttpRequestParser(seen).feed_data(b"GET /x HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    return seen.url.decode()

def loop():
    import asyncio, threading
    results = []
    async def work():
        await asyncio.sleep(0)
        return type(asyncio.get_running_loop()).__module__
    def run():
        own = uvloop.new_event_loop()
        results.append(own.run_until_complete(work()))
        own.close()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results

def names():
    return [httptools.__name__, uvloop.__name__, websockets.__name__, httptools.HttpRequestParser.__module__]
"""


def test_an_app_may_use_the_same_libraries_as_we_do(tmp_path: Path, interface: str) -> None:
    write(tmp_path, REAL)
    with running(settings(f"probe:{interface}", interface, tmp_path), interface=interface) as worker:
        for _ in range(2):
            assert ask(worker, "parse") == "/x"
            assert ask(worker, "loop") == ["uvloop"]
        assert ask(worker, "names") == ["httptools", "uvloop", "websockets", "httptools.parser.parser"]


# -- processes and threads of an app -----------------------------------------------------------------------------

JOBS = """
import os

def double(x):
    return [2 * x, os.getpid()]

def answer(queue, x):
    queue.put(2 * x)
"""
PARALLEL = """
import jobs, os

def with_pool(method):
    import multiprocessing
    with multiprocessing.get_context(method).Pool(1) as pool:
        result, pid = pool.apply(jobs.double, (21,))
    return [result, pid != os.getpid()]

def with_process(method):
    import multiprocessing
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=jobs.answer, args=(queue, 21))
    process.start()
    result = queue.get(timeout=30)
    process.join()
    queue.close()
    queue.join_thread()
    return [result, process.exitcode]

def fork():
    return with_pool("fork") + with_process("fork")

def spawn():
    return with_pool("spawn") + with_process("spawn")

def forkserver():
    return with_pool("forkserver") + with_process("forkserver")

def executor():
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(jobs.double, 21).result()[0]

def programs():
    import subprocess, sys
    program = "import os; print(os.environ['OWN'], len(os.listdir('/proc/self/fd')))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return out.stdout.split()

def threads():
    import threading
    from concurrent.futures import ThreadPoolExecutor
    local = threading.local()
    with ThreadPoolExecutor(4) as pool:
        return [sum(pool.map(lambda x: x * 2, range(10))), threading.active_count() >= 1]
"""


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def parallel(request: pytest.FixtureRequest, bare: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "jobs.py").write_text(JOBS)
    write(folder, PARALLEL)
    environ = {"PATH": os.environ["PATH"], "OWN": "value"}
    wanted = settings(f"probe:{request.param}", request.param, folder, environ=environ)
    with running(wanted, bare, interface=request.param) as worker:
        yield worker


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_app_may_use_multiprocessing(parallel: Worker, method: str) -> None:
    assert ask(parallel, method) == [42, True, 42, 0]


def test_an_app_may_use_a_pool_of_processes(parallel: Worker) -> None:
    assert ask(parallel, "executor") == 42


def test_an_app_may_run_programs_which_inherit_its_environment_and_none_of_our_descriptors(parallel: Worker) -> None:
    assert ask(parallel, "programs") == ["value", "4"]


def test_an_app_may_use_threads(parallel: Worker) -> None:
    assert ask(parallel, "threads") == [90, True]


def test_a_worker_still_answers_after_all_that(parallel: Worker) -> None:
    assert ask(parallel, "threads") == [90, True]
    assert not isinstance(parallel.ready, Failed)
