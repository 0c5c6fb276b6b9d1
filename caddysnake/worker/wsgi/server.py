"""The WSGI server: threads that wait for connections, read, call the app and write, each on its own.

No event loop and no hand-over between threads: the thread that is told of a connection sees it through. A thread is
taken only when there is work. What merely trickles, a head or a moderate amount of content, is collected piece by piece
by whoever is told; the rest of a finished response leaves by whoever is told that the reader has room.

``wsgi_table`` says who owns a connection, ``wsgi_crew`` who looks for one, ``wsgi_course`` what is done with it;
``wsgi_call`` is one call of the app, and ``wsgi_keeper`` the one thread that never makes one.
"""

from __future__ import annotations

import platform
import socket
import threading
import time
from select import EPOLLIN
from typing import Any

from ...channel import records
from ...channel.endpoint import Endpoint
from ...channel.messages import PROTOCOL_VERSION, Ready
from ...channel.settings import Settings
from ...channel.vitals import THREADS, Page
from ...http1.limits import Limits
from ...http1.request import Heads, RequestParser, Sections
from ..access_log import access_log
from .call.deadlines import Deadlines
from .call.file_wrapper import FileWrapper
from .connection import Connection
from .connection_table import ConnectionTable
from .controller import Controller
from .counters import Counters
from .driver import Driver
from .environ import Environ
from .thread_pool import PoolThread, ThreadPool

_BATCH = 64
_JOIN_S = 1.0


class WsgiServer:
    """Serves ``app`` on the connections that come over ``endpoint``."""

    def __init__(self, app: Any, settings: Settings, endpoint: Endpoint, page: Page) -> None:
        threads = max(1, min(settings.threads, THREADS))
        self._page = page
        self._records = records.current()
        self._write_timeout_s = settings.write_timeout_s
        self._limits = Limits(
            settings.max_head_bytes, settings.max_target_bytes, settings.max_header_count, settings.max_body_bytes
        )
        self._sections = Sections()
        self._heads = Heads()
        self._environ = Environ(settings, FileWrapper)
        self._table = ConnectionTable(self._wake_keeper)
        limit_s = settings.request_timeout_s
        deadlines = None if limit_s is None else Deadlines(limit_s, settings.app, page.header)
        self._course = Driver(app, settings, self._table, page.slots, deadlines, access_log(settings))
        self._crew = ThreadPool(threads, self._wake_keeper)
        self._keeper = Controller(
            endpoint,
            page,
            self._table,
            self._crew,
            settings.workers > 1,
            self._admit,
            self._course.expire,
            deadlines,
            may_exit=not settings.shares_process,
        )

    def run(self) -> int:
        """Serve until drained, or until the daemon is gone; the process's exit status."""
        self._table.open()
        self._keeper.open()
        crew = [
            threading.Thread(target=self._work, args=(seat,), name=f"wsgi-{seat.index}", daemon=True)
            for seat in self._crew.seats
        ]
        for thread in crew:
            thread.start()
        detail = f"{platform.python_implementation()} {platform.python_version()}, {len(crew)} threads"
        try:
            self._keeper.run(Ready(PROTOCOL_VERSION, detail))
        finally:
            self._stop(crew)
        return 0

    def _stop(self, crew: list[threading.Thread]) -> None:
        self._table.stop()
        self._crew.dismiss()
        until = time.monotonic() + _JOIN_S
        for thread in crew:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in crew):
            return  # they are daemon threads, and what they use must stay usable
        self._table.close()
        self._keeper.close()

    def _wake_keeper(self) -> None:
        self._keeper.wake()

    # The threads.

    def _work(self, seat: PoolThread) -> None:
        records.speak_for_thread(self._records)
        crew, table = self._crew, self._table
        poll, claim, missed, ready = table.epoll.poll, table.parked.pop, table.missed, table.ready
        handle = self._course.handle
        tally = Counters(self._page.thread(seat.index))
        turn = seat.turn
        seat.native_id = threading.get_native_id()
        while not table.is_stopping:
            if ready:
                try:
                    fd = ready.popleft()
                except IndexError:
                    continue  # another thread was faster
            else:
                if turn & 1:
                    turn += 1
                    seat.turn = turn
                    tally.write()
                if crew.surplus:
                    crew.rest(seat)
                else:
                    told = poll(-1, _BATCH if crew.alone else 1)
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
            seat.turn = turn
            if crew.asleep:
                crew.wake()
            if turn & crew.sample_mask == 1:
                crew.sample(lambda owned=connection: handle(owned, tally))  # type: ignore[misc]
            else:
                handle(connection, tally)

    # For the keeper.

    def _admit(self, sock: socket.socket, slot: int, trusted: bool, link: bool = False) -> Connection:
        environ = self._environ.of_connection(sock, trusted, link)
        parser = RequestParser(self._limits, self._sections, self._heads)
        return Connection(sock, self._page.slots, slot, trusted, environ, parser, self._write_timeout_s)
