"""Listening sockets on real paths and ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caddysnake.channel.throttle import Throttle
from caddysnake.daemon.sockets.listener import Listener
from caddysnake.daemon.sockets.opener import open_inherited, open_tcp, open_unix
from caddysnake.daemon.sockets.socket_file import ListenError, lock_path, unlock_path
from caddysnake.daemon.system import mishaps
from caddysnake.daemon.system.kinship import peer_uid

ROOT = Path(__file__).resolve().parents[3]


@contextlib.contextmanager
def listening(
    path: Path | str, mode: int | None = None, owner: str | None = None, group: str | None = None
) -> Iterator[Listener]:
    listener = open_unix(str(path), mode, owner, group)
    try:
        yield listener
    finally:
        listener.close()


def connects(path: Path | str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


HOLDER = """
import sys
from caddysnake.daemon.sockets.opener import open_unix
listener = open_unix(sys.argv[1], None, None, None)
print("open", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that listens on ``path`` as we would."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_socket_accepts_as_soon_as_it_is_open(tmp_path: Path) -> None:
    with listening(tmp_path / "app.sock") as listener:
        assert connects(tmp_path / "app.sock")
        assert listener.name == f"unix/{tmp_path}/app.sock"
        assert not os.get_inheritable(listener.sock.fileno())


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o222, 0o777])
def test_a_socket_has_the_mode_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    previous = os.umask(0o077)
    try:
        with listening(tmp_path / "app.sock", mode):
            assert stat.S_IMODE((tmp_path / "app.sock").stat().st_mode) == mode
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(previous)


def test_without_a_mode_the_umask_decides(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with listening(tmp_path / "app.sock"):
            assert stat.S_IMODE((tmp_path / "app.sock").stat().st_mode) == 0o640
    finally:
        os.umask(previous)


@pytest.mark.parametrize("round_", range(5))
def test_whoever_sees_a_socket_sees_its_mode_and_can_connect(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "app.sock"
    seen: list[tuple[int, bool]] = []
    ready, enough = threading.Event(), threading.Event()

    def watch() -> None:
        ready.set()
        while not enough.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.append((stat.S_IMODE(os.stat(path).st_mode), connects(path)))
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    ready.wait()
    with listening(path, 0o640, str(os.getuid())):
        watcher.join(10)
        enough.set()
        watcher.join()
    assert seen == [(0o640, True)]


def test_owner_and_group_by_name_and_number(tmp_path: Path) -> None:
    owner, group = os.getuid(), os.getgid()
    if owner == 0:
        owner, group = 65534, 65533
    with listening(tmp_path / "app.sock", 0o660, str(owner), str(group)):
        info = (tmp_path / "app.sock").stat()
        assert (info.st_uid, info.st_gid) == (owner, group)
    with listening(tmp_path / "root.sock", None, "root" if os.getuid() == 0 else None):
        assert (tmp_path / "root.sock").stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    ("owner", "group", "message"),
    [("nobody-of-that-name", None, "no such user: nobody-of-that-name"), (None, "no-group", "no such group: no-group")],
)
def test_an_unknown_owner_is_an_error_that_leaves_nothing(
    tmp_path: Path, owner: str | None, group: str | None, message: str
) -> None:
    with pytest.raises(ListenError, match=message):
        open_unix(str(tmp_path / "app.sock"), None, owner, group)
    assert list(tmp_path.iterdir()) == []
    with listening(tmp_path / "app.sock"):
        pass


def test_closing_unlinks_the_socket_and_lets_the_next_one_in(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    for _ in range(3):
        with listening(path):
            assert path.is_socket()
        assert list(tmp_path.iterdir()) == []


def test_a_lock_that_comes_and_goes_never_has_two_owners(tmp_path: Path) -> None:
    """Also not when its file is removed between two steps of somebody who is about to take it."""
    path = str(tmp_path / "app.sock")
    owners: list[int] = []
    most, taken = 0, 0

    def come_and_go() -> None:
        nonlocal most, taken
        for _ in range(300):
            try:
                lock = lock_path(path)
            except ListenError:
                continue
            owners.append(lock)
            most = max(most, len(owners))
            taken += 1
            time.sleep(0)
            owners.remove(lock)
            unlock_path(path, lock)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 20  # those who come too late are refused, and count as turns
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_or_after_somebody_removed_the_file_is_no_error(tmp_path: Path) -> None:
    with listening(tmp_path / "app.sock") as listener:
        (tmp_path / "app.sock").unlink()
        listener.close()


def test_closing_leaves_what_somebody_else_has_put_there(tmp_path: Path) -> None:
    """The folder was emptied, the lock file with it, and another daemon has started."""
    path = tmp_path / "app.sock"
    with listening(path):
        for entry in list(tmp_path.iterdir()):
            entry.unlink()
        second = open_unix(str(path), None, None, None)
    assert connects(path)
    second.close()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()
    assert path.is_socket()
    with listening(path):
        assert connects(path)


def test_the_socket_of_a_daemon_that_was_killed_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with held_by_another(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.is_socket()
        with listening(path):
            assert connects(path)


def test_a_live_socket_is_refused_naming_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ListenError, match=rf"in use by process {os.getpid()} \(.+\): stop it, or use another"):
            open_unix(str(path), None, None, None)
        assert connects(path)


def test_a_live_socket_with_a_full_backlog_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(str(path))
        other.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(ListenError, match="is in use"):
            open_unix(str(path), None, None, None)
        assert path.is_socket()


def test_a_path_that_another_daemon_has_locked_is_refused_naming_it(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with (
        held_by_another(path) as process,
        pytest.raises(ListenError, match=rf"held by another caddysnake \(process {process.pid}\)"),
    ):
        open_unix(str(path), None, None, None)


def test_the_lock_decides_even_when_the_socket_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with held_by_another(path) as process:
        path.unlink()
        with pytest.raises(ListenError, match=f"process {process.pid}"):
            open_unix(str(path), None, None, None)


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "symlink"])
def test_what_is_not_a_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "app.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = os.lstat(path).st_ino
    with pytest.raises(ListenError, match="exists and is not a socket: remove it"):
        open_unix(str(path), None, None, None)
    assert os.lstat(path).st_ino == before


def test_a_lock_file_that_is_a_symlink_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "app.sock.lock").symlink_to(target)
    with pytest.raises(ListenError, match="cannot listen on socket"):
        open_unix(str(tmp_path / "app.sock"), None, None, None)
    assert target.read_text() == "precious"


def test_a_missing_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=rf"create its directory \({tmp_path}/none\) first"):
        open_unix(f"{tmp_path}/none/app.sock", None, None, None)


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ListenError, match="is not a directory"):
        open_unix(f"{tmp_path}/file/app.sock", None, None, None)


def long_path(folder: Path, size: int) -> str:
    path = f"{folder}/"
    assert len(path) < size - 10
    return path + "s" * (size - len(path))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose own path leaves room below 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("size", [100, 106, 107])
def test_a_path_as_long_as_the_kernel_allows_works(short_folder: Path, size: int) -> None:
    path = long_path(short_folder, size)
    with listening(path, 0o600):
        assert connects(path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("size", [108, 109, 200])
def test_a_longer_path_is_refused_with_its_length(short_folder: Path, size: int) -> None:
    with pytest.raises(ListenError, match=f"is {size} bytes long: the kernel allows 107"):
        open_unix(long_path(short_folder, size), None, None, None)
    assert list(short_folder.iterdir()) == []


def test_many_sockets_in_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        paths = [tmp_path / f"{number}.sock" for number in range(30)]
        for path in paths:
            stack.enter_context(listening(path))
        assert all(connects(path) for path in paths)
    assert list(tmp_path.iterdir()) == []


def test_hundreds_of_connections_wait_in_the_backlog(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(tmp_path / "app.sock"))
        for _ in range(300):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(tmp_path / "app.sock"))


# -- TCP ------------------------------------------------------------------------------------------------------


def test_a_tcp_port_accepts_and_its_connections_do_not_delay_small_writes() -> None:
    listener = open_tcp("127.0.0.1", 0)
    try:
        assert not os.get_inheritable(listener.sock.fileno())
        with socket.create_connection(listener.sock.getsockname()), listener.sock.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        listener.close()


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=rf"tcp/127\.0\.0\.1:{port}: Address already in use: another process"):
            open_tcp("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on tcp/192\.0\.2\.1:0"):
        open_tcp("192.0.2.1", 0)


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on tcp/bad\.\.name:80"):
        open_tcp("bad..name", 80)


def test_an_ipv6_listener_is_named_as_caddy_names_it() -> None:
    with pytest.raises(ListenError, match=r"tcp/\[2001:db8::1\]:80"):
        open_tcp("2001:db8::1", 80)


# -- inherited ------------------------------------------------------------------------------------------------


def test_an_inherited_socket_accepts_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        listener = open_inherited(given.fileno())
        assert connects(path)
        assert not os.get_inheritable(listener.sock.fileno())
        listener.close()
        assert connects(path)
    assert path.is_socket()


def test_a_descriptor_that_was_not_inherited_is_told() -> None:
    with pytest.raises(ListenError, match="no such descriptor was inherited"):
        open_inherited(99_999)


def test_a_descriptor_that_is_no_listening_socket_is_told() -> None:
    with open(os.devnull) as file, pytest.raises(ListenError, match="is not a listening socket"):
        open_inherited(file.fileno())
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ListenError, match="is not a listening socket"):
        open_inherited(sock.fileno())


# -- accepting ------------------------------------------------------------------------------------------------


def test_accepted_connections_are_close_on_exec_and_know_their_peer(tmp_path: Path) -> None:
    async def accept() -> socket.socket:
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[socket.socket] = loop.create_future()
        with listening(tmp_path / "app.sock") as listener:
            listener.accept_into(loop, accepted.set_result)
            client = socket.socket(socket.AF_UNIX)
            with client:
                client.connect(str(tmp_path / "app.sock"))
                return await asyncio.wait_for(accepted, 30)

    with asyncio.run(accept()) as sock:
        assert not os.get_inheritable(sock.fileno())
        assert peer_uid(sock) == os.getuid()


def test_a_burst_is_accepted_whole(tmp_path: Path) -> None:
    async def accept() -> None:
        loop = asyncio.get_running_loop()
        accepted: list[socket.socket] = []
        enough = asyncio.Event()

        def count(sock: socket.socket) -> None:
            accepted.append(stack.enter_context(sock))
            if len(accepted) == 150:
                enough.set()

        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(listening(tmp_path / "app.sock"))
            for _ in range(150):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(tmp_path / "app.sock"))
            listener.accept_into(loop, count)
            await asyncio.wait_for(enough.wait(), 30)

    asyncio.run(accept())


@pytest.mark.parametrize("as_sockets", [True, False])
def test_a_connection_that_cannot_be_seen_to_is_ended_and_the_others_are_served(
    as_sockets: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def accept() -> None:
        with listening(tmp_path / "app.sock") as listener, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(6)]
            for client in clients:
                client.settimeout(30)
                client.connect(str(tmp_path / "app.sock"))
            seen: list[object] = []

            def see_to(connection: socket.socket | int) -> None:
                seen.append(connection)
                if len(seen) < 6:
                    raise RuntimeError("an error of ours")
                sock = listener.socket_of(connection) if isinstance(connection, int) else connection
                with sock:
                    sock.sendall(b"x")

            loop = asyncio.get_running_loop()
            listener.accept_into(loop, see_to) if as_sockets else listener.accept_descriptors(loop, see_to)
            said = await asyncio.to_thread(lambda: [client.recv(1) for client in clients])
            assert said == [b"", b"", b"", b"", b"", b"x"]

    monkeypatch.setattr(mishaps, "_told", Throttle())
    asyncio.run(accept())
    assert [record.getMessage() for record in caplog.records] == ["an error inside caddysnake: a connection is ended"]


def test_nobody_is_accepted_any_more_after_it_was_told_to_stop(tmp_path: Path) -> None:
    async def accept() -> list[socket.socket]:
        accepted: list[socket.socket] = []
        with listening(tmp_path / "app.sock") as listener:
            listener.accept_into(asyncio.get_running_loop(), accepted.append)
            listener.stop_accepting()
            listener.stop_accepting()
            connects(tmp_path / "app.sock")
            await asyncio.sleep(0.05)
        return accepted

    assert asyncio.run(accept()) == []


OUT_OF_DESCRIPTORS = """
import asyncio, contextlib, logging, os, resource, socket, sys, time
import uvloop
from caddysnake.daemon.sockets.opener import open_unix

logging.basicConfig(stream=sys.stdout, format="%(message)s")
path = sys.argv[1]

async def main():
    loop = asyncio.get_running_loop()
    listener = open_unix(path, None, None, None)
    accepted = []
    listener.accept_into(loop, accepted.append)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))
    for client in clients:
        client.connect(path)
    begun = time.process_time()
    await asyncio.sleep(0.5)
    print("accepted", len(accepted), "cpu", time.process_time() - begun < 0.2)
    for fd in held:
        os.close(fd)
    async with asyncio.timeout(30):
        while len(accepted) < len(clients):
            await asyncio.sleep(0.01)
    print("accepted", len(accepted))
    listener.close()

uvloop.run(main())
"""


def test_running_out_of_descriptors_is_survived_without_spinning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", OUT_OF_DESCRIPTORS, str(tmp_path / "app.sock")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "cannot accept connections for now: raise the limit of open files",
        "accepted 0 cpu True",
        "accepted 20",
    ]


def test_a_listener_can_be_closed_while_it_is_out_of_descriptors(tmp_path: Path) -> None:
    async def close() -> None:
        with listening(tmp_path / "app.sock") as listener:
            listener.accept_into(asyncio.get_running_loop(), lambda sock: sock.close())
            listener._pause(OSError(24, "Too many open files"))
        await asyncio.sleep(0.15)

    begun = time.monotonic()
    asyncio.run(close())
    assert time.monotonic() - begun < 30
