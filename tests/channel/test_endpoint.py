"""One end of a channel, over the kernel's real sockets."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caddysnake.channel import endpoint as endpoint_module
from caddysnake.channel.codec import MAX_FRAME, encode
from caddysnake.channel.endpoint import ChannelClosed, ChannelError, Endpoint, close_at_once, pair
from caddysnake.channel.messages import (
    Configure,
    Drain,
    Drained,
    Failed,
    Message,
    Ready,
    Returned,
    Shed,
    Spawn,
    Take,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def ends() -> Iterator[tuple[Endpoint, Endpoint]]:
    one, other = pair()
    left, right = Endpoint(one), Endpoint(other)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Endpoint]]:
    """A socket that can say anything, and the endpoint that hears it."""
    one, other = pair()
    endpoint = Endpoint(other)
    yield one, endpoint
    one.close()
    endpoint.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def send_raw(sock: socket.socket, frame: bytes, descriptors: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([frame], rights)


def test_messages_arrive_in_order_and_whole(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    sent: list[Message] = [Ready(1, "x" * 5000), Returned(7), Failed("import-failed", "ü"), Drained()]
    for message in sent:
        assert left.send(message)
    received = [right.receive() for _ in sent]
    assert received == [(message, []) for message in sent]
    assert right.receive() is None


def test_both_ends_are_close_on_exec(ends: tuple[Endpoint, Endpoint]) -> None:
    assert not os.get_inheritable(ends[0].fileno())
    assert not os.get_inheritable(ends[1].fileno())


def test_a_descriptor_arrives_close_on_exec_and_is_the_same_file(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    read, write = os.pipe()
    assert left.hand_over(Take(3, 1), [write])
    os.close(write)
    received = right.receive()
    assert received is not None
    message, (fd,) = received
    assert message == Take(3, 1)
    assert not os.get_inheritable(fd)
    os.write(fd, b"through")
    os.close(fd)
    assert os.read(read, 10) == b"through"
    os.close(read)


def test_the_sender_keeps_its_own_descriptor(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    read, write = os.pipe()
    assert left.hand_over(Configure(1), [read, write])
    received = right.receive()
    assert received is not None
    for fd in (*received[1], read, write):
        os.close(fd)


@pytest.mark.parametrize(
    ("message", "count"),
    [(Take(1, 0), 0), (Take(1, 0), 2), (Configure(1), 1), (Configure(1), 3), (Spawn(1, 1.0), 2), (Returned(1), 1),
     (Drained(), 5), (Ready(1, ""), 1)],
)  # fmt: skip
def test_a_wrong_number_of_descriptors_is_refused_and_leaves_none_open(
    raw: tuple[socket.socket, Endpoint], message: Message, count: int
) -> None:
    sock, endpoint = raw
    before = open_descriptors()
    send_raw(sock, encode(message), [0] * count)
    with pytest.raises(ChannelError, match="descriptors instead of"):
        endpoint.receive()
    assert open_descriptors() == before


@pytest.mark.parametrize("count", [9, 64, 253])
def test_far_too_many_descriptors_are_refused_and_leave_none_open(
    raw: tuple[socket.socket, Endpoint], count: int
) -> None:
    sock, endpoint = raw
    before = open_descriptors()
    send_raw(sock, encode(Returned(1)), [0] * count)
    with pytest.raises(ChannelError):
        endpoint.receive()
    assert open_descriptors() == before


@pytest.mark.parametrize("frame", [b"\xff", b"\x22", b"\x22" + b"\0" * 5, b"\x21\0\0\0\0\x01\0\0\0\xff"])
def test_what_is_no_message_is_refused_and_its_descriptor_closed(
    raw: tuple[socket.socket, Endpoint], frame: bytes
) -> None:
    sock, endpoint = raw
    before = open_descriptors()
    send_raw(sock, frame, [0])
    with pytest.raises(ChannelError):
        endpoint.receive()
    assert open_descriptors() == before


def test_a_descriptor_without_a_message_is_refused_and_closed(raw: tuple[socket.socket, Endpoint]) -> None:
    sock, endpoint = raw
    before = open_descriptors()
    send_raw(sock, b"", [0])
    with pytest.raises((ChannelError, ChannelClosed)):
        endpoint.receive()
    assert open_descriptors() == before


@pytest.mark.parametrize("size", [MAX_FRAME + 1, MAX_FRAME + 2, 100_000])
def test_an_overlong_frame_is_refused(raw: tuple[socket.socket, Endpoint], size: int) -> None:
    sock, endpoint = raw
    sock.send(b"\x20" * size)
    with pytest.raises(ChannelError):
        endpoint.receive()
    sock.send(encode(Returned(4)))
    assert endpoint.receive() == (Returned(4), [])


AT_THE_LIMIT = """
import os, resource, socket, sys
from caddysnake.channel.endpoint import ChannelError, Endpoint, pair
from caddysnake.channel.messages import Take

left, right = (Endpoint(sock) for sock in pair())
assert left.hand_over(Take(1, 0), [0])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
while True:
    try:
        held.append(os.dup(0))
    except OSError:
        break
try:
    right.receive()
except ChannelError as exc:
    print(exc)
"""


def test_a_descriptor_lost_at_the_limit_of_open_files_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_LIMIT], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "descriptors were lost" in done.stdout


@pytest.fixture(params=["refused by the kernel", "refused by us"])
def outward(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[socket.socket, Endpoint]]:
    """A socket that can say anything, and an endpoint to which no descriptor may be sent."""
    if request.param == "refused by us":
        monkeypatch.setattr(endpoint_module, "_SO_PASSRIGHTS", 9999)  # as in a kernel that does not know it
    one, other = pair()
    endpoint = Endpoint(other, takes_descriptors=False)
    yield one, endpoint
    one.close()
    endpoint.close()


@contextlib.contextmanager
def lingering() -> Iterator[socket.socket]:
    """A TCP socket whose close would take a minute: its reader never reads, and it insists."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        reader, _ = server.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
        sock.setblocking(False)
        with reader:
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(bytes(65536))
            yield sock
            if sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))


@pytest.mark.parametrize("message", [Returned(1), Take(1, 0), Drained()], ids=lambda message: type(message).__name__)
def test_no_descriptor_comes_through_to_the_daemon(outward: tuple[socket.socket, Endpoint], message: Message) -> None:
    sock, endpoint = outward
    before = open_descriptors()
    with contextlib.suppress(PermissionError):
        send_raw(sock, encode(message), [0])
        with pytest.raises(ChannelError):
            endpoint.receive()
    assert open_descriptors() == before
    sock.send(encode(Returned(1)))
    assert endpoint.receive() == (Returned(1), [])


@pytest.mark.parametrize("count", [1, 100])
def test_closing_what_a_worker_sent_takes_no_time(outward: tuple[socket.socket, Endpoint], count: int) -> None:
    sock, endpoint = outward
    begun = time.monotonic()
    with lingering() as slow, contextlib.suppress(PermissionError):
        send_raw(sock, encode(Returned(1)), [slow.fileno()] * count)
        slow.close()
        with pytest.raises(ChannelError):
            endpoint.receive()
    assert time.monotonic() - begun < 30


def test_closing_what_nobody_has_read_takes_no_time(outward: tuple[socket.socket, Endpoint]) -> None:
    sock, endpoint = outward
    begun = time.monotonic()
    with lingering() as slow:
        sock.send(b"")
        with contextlib.suppress(PermissionError):
            send_raw(sock, encode(Returned(1)), [slow.fileno()])
            slow.close()
        endpoint.close()
    assert time.monotonic() - begun < 30


def test_closing_a_shared_connection_takes_no_time() -> None:
    begun = time.monotonic()
    with lingering() as slow:
        close_at_once([slow.detach()])
    assert time.monotonic() - begun < 30


def test_a_full_channel_takes_no_descriptor_and_says_so(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    read, write = os.pipe()
    taken = 0
    while left.hand_over(Take(taken, 0), [read]):
        taken += 1
    assert not left.outbox
    assert not left.hand_over(Take(taken, 0), [read])
    for slot in range(taken):
        received = right.receive()
        assert received is not None
        assert received[0] == Take(slot, 0)
        os.close(received[1][0])
    assert right.receive() is None
    assert left.hand_over(Take(taken, 0), [read])
    received = right.receive()
    assert received is not None
    os.close(received[1][0])
    os.close(read)
    os.close(write)


def test_the_channel_holds_more_handoffs_than_may_be_untaken(ends: tuple[Endpoint, Endpoint]) -> None:
    """The daemon stops at 64 hand-offs that nobody has taken; the kernel must not stop it earlier."""
    left, right = ends
    for slot in range(64):
        assert left.hand_over(Take(slot, 0), [0])
    for _ in range(64):
        received = right.receive()
        assert received is not None
        os.close(received[1][0])


def test_what_a_full_channel_does_not_take_waits_and_arrives_in_order(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    sent = 0
    while left.send(Shed(sent)):
        sent += 1
    for _ in range(10):
        sent += 1
        assert not left.send(Shed(sent))
    assert len(left.outbox) == 11
    assert not left.hand_over(Take(1, 0), [0])  # nothing overtakes what waits
    received = []
    while (entry := right.receive()) is not None:
        received.append(entry[0])
    assert left.flush()
    while (entry := right.receive()) is not None:
        received.append(entry[0])
    assert received == [Shed(number) for number in range(sent + 1)]
    assert not left.outbox


def test_a_handoff_sends_first_what_was_waiting(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    count = 0
    while left.send(Shed(count)):
        count += 1
    while right.receive() is not None:
        pass
    assert left.hand_over(Take(1, 0), [0])
    assert right.receive() == (Shed(count), [])
    received = right.receive()
    assert received is not None
    assert received[0] == Take(1, 0)
    os.close(received[1][0])


def test_a_closed_channel_is_told_to_reader_and_writer(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    right.close()
    with pytest.raises(ChannelClosed):
        left.receive()
    with pytest.raises(ChannelClosed):
        left.send(Drain(1.0))
    with pytest.raises(ChannelClosed):
        left.hand_over(Take(1, 0), [0])


def test_last_words_are_heard_before_the_end(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    left.send(Failed("import-failed", "no"))
    left.close()
    assert right.receive() == (Failed("import-failed", "no"), [])
    with pytest.raises(ChannelClosed):
        right.receive()


def test_using_an_endpoint_that_was_closed_here_is_told_as_closed(ends: tuple[Endpoint, Endpoint]) -> None:
    ends[0].close()
    with pytest.raises(ChannelClosed):
        ends[0].send(Drained())
    with pytest.raises(ChannelClosed):
        ends[0].receive()


def test_credentials_asked_for_by_the_far_end_do_not_confuse(raw: tuple[socket.socket, Endpoint]) -> None:
    sock, endpoint = raw
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    endpoint.send(Drain(1.0))
    frame, ancillary, _, _ = sock.recvmsg(100, 1000)
    assert frame == encode(Drain(1.0))
    assert ancillary
    sock.send(encode(Returned(1)))
    assert endpoint.receive() == (Returned(1), [])


def test_an_endpoint_never_blocks(ends: tuple[Endpoint, Endpoint]) -> None:
    left, right = ends
    assert not os.get_blocking(left.fileno())
    assert right.receive() is None
    poller = select.poll()
    poller.register(right.fileno(), select.POLLIN)
    assert poller.poll(0) == []
