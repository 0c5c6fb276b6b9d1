"""What a relay holds for those who do not read has a bound."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from support.relay import get, read_head, running

from caddysnake.relay.context import READ_BYTES, TIGHT_BYTES, TIGHT_READ_BYTES, Backlog

READERS = 1400


def test_little_is_read_at_a_time_while_much_is_held() -> None:
    said: list[bool] = []
    backlog = Backlog(lambda: said.append(backlog.is_tight), tight_bytes=1000)
    assert len(backlog.view) == READ_BYTES
    backlog.change(1001)
    assert len(backlog.view) == TIGHT_READ_BYTES
    backlog.change(-400)
    assert len(backlog.view) == TIGHT_READ_BYTES
    backlog.change(-400)
    assert len(backlog.view) == READ_BYTES
    assert said == [True, False]


def test_many_slow_readers_cost_what_the_docs_say() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with running() as relay:

        def memory() -> int:
            return int(Path(f"/proc/{relay.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

        before = memory()
        clients = []
        for _ in range(READERS):
            client = relay.connect()
            clients.append(client)
            client.sendall(get())
            link = relay.link()
            read_head(link)
            link.setblocking(False)
            # As much as the kernel takes, which is more than it takes for the client as well.
            link.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n" + bytes(300_000))
            read_head(client)
        deadline = time.monotonic() + 10
        most = 0
        while time.monotonic() < deadline and most < TIGHT_BYTES // 2:
            for link in relay.links:
                try:
                    link.send(bytes(100_000))
                except BlockingIOError:
                    pass
            most = max(most, memory() - before)
        most = max(most, memory() - before)
        for client in clients:
            client.close()
    assert most < TIGHT_BYTES + READERS * 32 * 1024
