"""The WSGI server: threads that wait for connections, read, call the app and write, each on its own.

No event loop and no hand-over between threads: the thread that is told of a connection sees it through. A thread is
taken only when there is work. What merely trickles, a head or a moderate amount of content, is collected piece by piece
by whoever is told; the rest of a finished response leaves by whoever is told that the reader has room.

``connection_table`` says who owns a connection, ``thread_pool`` who looks for one, ``driver`` what is done with it;
``call`` is one call of the app, and ``controller`` the one thread that never makes one.
"""

from __future__ import annotations

import platform
import socket
import threading
import time
from select import EPOLLIN
from time import monotonic
from typing import Any

from ...channel import records
from ...channel.endpoint import Endpoint
from ...channel.messages import PROTOCOL_VERSION, Ready
from ...channel.settings import WSGI_WEBSOCKETS, Settings
from ...channel.vitals import THREADS, Page
from ...http1.limits import Limits
from ...http1.request import HEADS_MAX, Heads, RequestParser
from ..access_log import access_log
from .call.deadlines import Deadlines
from .call.file_wrapper import FileWrapper
from .connection import Connection
from .connection_table import ConnectionTable
from .controller import Controller
from .counters import Counters
from .driver import Driver
from .environ import READ_FROM, Environ
from .in_flight import BoundDriver
from .thread_pool import PoolThread, ThreadPool
from .websockets import WebSockets

_BATCH = 64
_BLOCKED_S = 0.0001
"""A poll that took so long has waited, so that nothing was there before."""
_JOIN_S = 1.0


class WsgiServer:
    """Serves ``app`` on the connections that come over ``endpoint``."""

    def __init__(self, app: Any, settings: Settings, endpoint: Endpoint, page: Page) -> None:
        threads = max(1, min(settings.threads, THREADS - 1))  # the last block of the page is the WebSockets'
        self._page = page
        self._records = records.current()
        self._write_timeout_s = settings.write_timeout_s
        self._limits = Limits(
            settings.max_head_bytes, settings.max_target_bytes, settings.max_header_count, settings.max_body_bytes
        )
        self._heads = Heads(HEADS_MAX, rests=True)
        self._environ = Environ(settings, FileWrapper)
        self._table = ConnectionTable(self._wake_controller)
        limit_s = settings.request_timeout_s
        deadlines = None if limit_s is None else Deadlines(limit_s, settings.app, page.header)
        access = access_log(settings)
        self._reader = self._environ.reader(self._limits, keeps_fields=access is not None)
        websockets = WebSockets(
            settings.app,
            WSGI_WEBSOCKETS if settings.max_websockets is None else settings.max_websockets,
            page.header,
            Counters(page.thread(threads)),
            self._wake_controller,
        )
        rest = (page.slots, deadlines, access, websockets)
        if settings.max_in_flight is None:
            self._driver = Driver(app, settings, self._table, *rest)
        else:
            self._driver = BoundDriver(app, settings, self._table, page.header, *rest)
        self._pool = ThreadPool(threads, self._wake_controller)
        self._controller = Controller(
            endpoint,
            page,
            self._table,
            self._pool,
            settings.workers > 1,
            self._admit,
            self._driver.expire,
            websockets,
            settings.websocket_keep_s,
            self._driver.flush_log,
            deadlines,
            may_exit=not settings.shares_process,
        )

    def run(self) -> int:
        """Serve until drained, or until the daemon is gone; the process's exit status."""
        self._table.open()
        self._controller.open()
        running = [
            threading.Thread(target=self._work, args=(thread,), name=f"wsgi-{thread.index}", daemon=True)
            for thread in self._pool.threads
        ]
        for thread in running:
            thread.start()
        detail = f"{platform.python_implementation()} {platform.python_version()}, {len(running)} threads"
        try:
            self._controller.run(Ready(PROTOCOL_VERSION, detail))
        finally:
            self._stop(running)
        return 0

    def _stop(self, running: list[threading.Thread]) -> None:
        self._table.stop()
        self._pool.dismiss()
        until = time.monotonic() + _JOIN_S
        for thread in running:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in running):
            return  # they are daemon threads, and what they use must stay usable
        self._table.close()
        self._controller.close()

    def _wake_controller(self) -> None:
        self._controller.wake()

    # The threads.

    def _work(self, thread: PoolThread) -> None:
        records.speak_for_thread(self._records)
        pool, table = self._pool, self._table
        poll, claim, missed, ready = table.epoll.poll, table.parked.pop, table.missed, table.ready
        handle, flush_log = self._driver.handle, self._driver.flush_log
        counters = Counters(self._page.thread(thread.index))
        turn = thread.turn
        thread.native_id = threading.get_native_id()
        while not table.is_stopping:
            if ready:
                try:
                    fd = ready.popleft()
                except IndexError:
                    continue  # another thread was faster
            else:
                if turn & 1:
                    turn += 1
                    thread.turn = turn
                    counters.write()
                    flush_log()
                if pool.surplus:
                    pool.rest(thread)
                else:
                    begun = monotonic()
                    told = poll(-1, _BATCH if pool.alone else 1)
                    counters.now = now = monotonic()
                    if now - begun > _BLOCKED_S:
                        table.floor = now
                    ready.extend([fd if events == EPOLLIN else ~fd for fd, events in told])
                continue
            connection = claim(fd if fd >= 0 else ~fd, None)
            if connection is None:
                connection = missed(fd)
                if connection is None:
                    continue
            if fd < 0:
                connection.hung = True
            turn += 1 + (turn & 1)
            thread.turn = turn
            if pool.asleep:
                pool.wake()
            if turn & pool.sample_mask == 1:
                pool.sample(lambda owned=connection: handle(owned, counters))  # type: ignore[misc]
            else:
                handle(connection, counters)
        flush_log()

    # For the controller.

    def _admit(self, sock: socket.socket, slot: int, trusted: bool, link: bool = False) -> Connection:
        environ = self._environ.of_connection(sock, trusted, link)
        parser = RequestParser(self._limits, self._heads, self._reader)
        if self._reader is not None:
            parser.start = environ[0], READ_FROM[environ[1]]
        return Connection(sock, self._page.slots, slot, trusted, environ, parser, self._write_timeout_s)
