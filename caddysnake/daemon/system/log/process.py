"""The log process, seen from the daemon: started first, kept up, ended last.

What a worker prints must not wait for the daemon, which may be stopped or busy; nor must it be written straight to
where the daemon's log goes, for a reader that stands still would stop it. So everyone's standard output and standard
error are pipes that a process of ours reads (``caddysnake.logs``), which never waits for anybody.

The log process is asked every second whether it is alive. One that is stopped, or does not answer for long, would let
every pipe fill up, and every print wait: it is ended, and started again.

An exec carries ``LogProcess.snapshot`` and ``OutputPipes.state`` of each: descriptors and JSON. The process goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

from ....installation import PACKAGE
from ....logs import orders
from ....logs.main import IGNORED
from ....logs.records import Record, Statement
from ....logs.ring import Query
from ..processes import InheritedChild, Process, is_stopped
from . import records as logs
from .asking import Asking
from .fields import FieldLog
from .pipes import STREAMS, OutputPipes
from .records import Style

log = FieldLog("caddysnake.daemon")

_NEEDED = "PATH LANG LC_ALL LC_CTYPE TZ JOURNAL_STREAM LD_LIBRARY_PATH PYTHONHOME NO_COLOR TERM"
_OUTBOX_MAX = 2000
_AGAIN_S = 1.0
_PATIENCE_S = 5.0
_BEAT_S = 1.0
STOPPED_BEATS = 3
SILENT_BEATS = 15
"""So many beats without an answer are too many: of a process that is stopped, of one that runs, on a busy machine."""


class LogProcess:
    """The log process. While it is not there, records are written by the daemon itself; until ``start``, and from
    ``close`` on, it is not to be.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._is_wanted = False
        self._lock = threading.RLock()  # a record may come from any thread, and say another
        self._channel: socket.socket | None = None
        self._process: Process | None = None
        self._pidfd = -1
        self._outlets: dict[OutputPipes, None] = {}
        self._outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._is_armed = False
        self._lost = 0
        self._again: asyncio.TimerHandle | None = None
        self._answers = self._remembers = self.unmarks = False
        """What it can, which one of an older version cannot: say that it is alive; tell what was logged; read the marks
        of traces (``channel.traces``) off lines.
        """
        self._unanswered = 0
        self._beat_at = 0.0
        self._asking = Asking(self._send)

    def snapshot(self) -> dict[str, int] | None:
        """For an exec: JSON. ``channel`` is a descriptor that must survive it. None: there is no process now."""
        if self._channel is None or self._process is None:
            return None
        can = {"answers": int(self._answers), "remembers": int(self._remembers), "unmarks": int(self.unmarks)}
        return {"pid": self._process.pid, "channel": self._channel.fileno(), **can}

    def restore(self, saved: dict[str, int]) -> None:
        """Go on with the log process of another image of this daemon."""
        self._is_wanted, self._loop = True, asyncio.get_running_loop()
        self._process = InheritedChild(saved["pid"])
        self._answers, self._remembers = bool(saved.get("answers")), bool(saved.get("remembers"))
        self.unmarks = bool(saved.get("unmarks"))
        self._run_on(socket.socket(fileno=saved["channel"]), os.pidfd_open(saved["pid"]))

    @property
    def is_settled(self) -> bool:
        """Nothing that it is to know is on its way."""
        return not self._is_wanted or (self._channel is not None and not self._outbox)

    def start(self) -> None:
        """Start the log process of this daemon; if that is not possible now, again later."""
        self._is_wanted, self._loop = True, asyncio.get_running_loop()
        self._outlets.clear()
        self._start()

    def _start(self) -> None:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as exc:
            self._fail(exc)
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)  # inherited: none may end it before it can say so
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__.partition('.')[0]}.logs.main",
                 json.dumps({"channel": theirs.fileno()})],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env=_environ(), cwd="/", start_new_session=True,
            )  # fmt: skip
            pidfd = os.pidfd_open(self._process.pid)
        except OSError as exc:
            ours.close()
            self._fail(exc)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        self._answers = self._remembers = self.unmarks = True
        self._outbox.extendleft(reversed([outlets.order() for outlets in self._outlets]))
        self._run_on(ours, pidfd)

    def _fail(self, exc: OSError) -> None:
        log.error("the log process cannot be started", error=exc.strerror)
        self._again = self._loop.call_later(_AGAIN_S, self._start)

    def _run_on(self, channel: socket.socket, pidfd: int) -> None:
        self._channel, self._pidfd = channel, pidfd
        self._unanswered = 0
        self._loop.add_reader(pidfd, self._on_exit)
        self._loop.add_reader(channel, self._on_answer)
        logs.attach(self)
        self._flush()

    def pids(self) -> set[int]:
        """The log process, our own child, while it runs."""
        return set() if self._process is None else {self._process.pid}

    def outlets(
        self,
        name: str,
        fields: dict[str, Any],
        streams: tuple[str, ...] = STREAMS,
        access: dict[str, Any] | None = None,
    ) -> OutputPipes | None:
        """Pipes for a process whose records have the logger ``name`` and ``fields``; None when there is no log process,
        and ours are inherited. Raises ``OSError``.
        """
        return OutputPipes(self, name, fields, streams, access) if self._is_wanted else None

    def adopt_outlets(self, state: dict[str, Any] | None) -> OutputPipes | None:
        """Pipes that another image of this daemon opened, and its log process reads."""
        if state is None or not self._is_wanted:
            return None
        outlets = OutputPipes.restored(self, state)
        self._outlets[outlets] = None
        return outlets

    def add(self, outlets: OutputPipes) -> None:
        """Have ``outlets`` read, now and by each log process to come."""
        self._outlets[outlets] = None
        self._send(*outlets.order())

    def remove(self, outlets: OutputPipes) -> None:
        """Nothing more is to be read of ``outlets``; its descriptors may be closed then."""
        if self._outlets.pop(outlets, 0) is not None:
            return
        if self._outbox:
            # Not told yet, and its descriptors are about to be closed: what it wrote last is lost.
            self._outbox = deque(order for order in self._outbox if order[1] != outlets.order()[1])
        if self._channel is not None:
            self._send(orders.frame(orders.OVER, {"pipes": outlets.pipes}))

    # What is to be written (logs.Taker)

    def take(self, record: Record) -> bool:
        """See ``logs.Taker``. From any thread. What JSON has no form for, or too much of it, is cut."""
        if self._channel is None:
            return False
        self._send(orders.record_frame(record))
        return True

    def take_text(self, told: Statement) -> bool:
        """See ``logs.Taker``. From any thread. Cut when it is too long."""
        if self._channel is None:
            return False
        content = told._replace(text=f"{orders.cut(told.text)}\n")._asdict()
        if not told.fields:
            del content["fields"]  # which the log process of an older version does not know
        self._send(orders.frame(orders.TEXT, content))
        return True

    def restyle(self, style: Style) -> None:
        """See ``logs.Taker``."""
        self._send(orders.frame(orders.STYLE, style._asdict()))

    def _send(self, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
        with self._lock:
            if len(self._outbox) >= _OUTBOX_MAX and data[:1] == orders.RECORD:
                self._lost += 1
                return
            self._outbox.append((data, descriptors))
            self._flush()

    def _flush(self) -> None:
        if self._channel is None or self._is_armed:
            return
        self._transmit()
        if self._outbox:
            self._is_armed = True
            self._loop.call_soon_threadsafe(self._arm)

    def _transmit(self) -> None:
        assert self._channel is not None
        try:
            while self._outbox:
                data, descriptors = self._outbox[0]
                orders.send(self._channel, data, descriptors)
                self._outbox.popleft()
            if self._lost:
                lost, self._lost = self._lost, 0
                log.warning("log records lost", count=lost)
        except OSError:  # full; or it has ended, and its pidfd says so
            pass

    def _arm(self) -> None:
        if self._channel is None:
            self._is_armed = False
            return
        self._loop.add_writer(self._channel, self._on_writable)

    def _on_writable(self) -> None:
        assert self._channel is not None
        self._loop.remove_writer(self._channel)
        self._is_armed = False
        with self._lock:
            self._flush()

    def read(self, query: Query, fd: int) -> bool:
        """Have what ``query`` asks for written to ``fd``, which stays the caller's; False when it cannot be asked."""
        if self._channel is None or self._outbox or not self._remembers:
            return False
        try:
            asked = {name: value for name, value in query._asdict().items() if value is not None}
            orders.send(self._channel, orders.frame(orders.READ, asked), (fd,))
        except OSError:  # full; or it has ended, and its pidfd says so
            return False
        return True

    async def trouble_of(self, app: str, pids: Iterable[int]) -> tuple[int, str]:
        """See ``Asking.foremost``; nothing when there is no log process."""
        return await self._asking.foremost(app, pids) if self._is_wanted else (0, "")

    # Whether it is alive

    def beat(self) -> None:
        """Ask it; to be called every second or so. One that has not answered for too long is ended."""
        now = self._loop.time()
        if self._process is None or not self._answers or now - self._beat_at < _BEAT_S:
            return
        self._beat_at = now
        if self._unanswered >= (STOPPED_BEATS if is_stopped(self._process.pid) else SILENT_BEATS):
            self._give_up(self._process.pid)
            return
        if not self._unanswered:
            self._send(orders.frame(orders.BEAT, {}))
        self._unanswered += 1

    def _on_answer(self) -> None:
        assert self._channel is not None
        try:
            while (received := orders.receive(self._channel)) is not None:
                self._unanswered = 0
                self._asking.heard(*received[:2])
        except (EOFError, OSError):  # it has ended, and its pidfd says so
            self._loop.remove_reader(self._channel)

    def _give_up(self, pid: int) -> None:
        logs.attach(None)
        what = "stopped" if is_stopped(pid) else "silent"
        why = f"the log process is {what}: it is killed, and started again; what it had not yet written is lost"
        log.error(why, pid=pid, seconds=round(self._unanswered * _BEAT_S))
        self._answers = False  # asked no more
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    # Its end

    def _on_exit(self) -> None:
        assert self._process is not None
        status = self._process.wait()
        self._gone()
        if not self._is_wanted:
            return
        log.error("the log process ended and is started again", status=status)
        self._again = self._loop.call_later(_AGAIN_S / 10, self._start)

    def _gone(self) -> None:
        logs.attach(None)
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._channel is not None:
            self._loop.remove_writer(self._channel)
            self._loop.remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        self._is_armed = False
        self._process = None
        # What it was told is told its successor by ``start``.
        self._outbox = deque(order for order in self._outbox if order[0][:1] in (orders.RECORD, orders.TEXT))

    async def close(self) -> None:
        """Have everything written, and the process gone. The daemon writes its own records from then on."""
        self._is_wanted = self.unmarks = False
        if self._again is not None:
            self._again.cancel()
        logs.attach(None)
        if self._process is None:
            return
        self._send(orders.frame(orders.END, {}))
        self._loop.remove_reader(self._pidfd)
        gone = asyncio.Event()
        self._loop.add_reader(self._pidfd, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), _PATIENCE_S)
        except TimeoutError:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await gone.wait()
        self._loop.remove_reader(self._pidfd)
        self._process.wait()
        self._gone()


def _environ() -> dict[str, str]:
    """What it needs of our environment, which may hold secrets."""
    own = {name: os.environ[name] for name in _NEEDED.split() if name in os.environ}
    return {**own, "PYTHONPATH": str(PACKAGE.parent), "PYTHONSAFEPATH": "1"}


logger = LogProcess()
"""The log of a process is one, as ``logging`` has it."""
