"""The event-loop server of one worker: the loop, the app's lifespan, and what becomes of requests when it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import socket
from collections import deque
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

from ...aio.agent import MESSAGES_A_TURN, STDERR, TICK_S, Agent, ServerStage
from ...channel.endpoint import ChannelClosed, ChannelError, Endpoint
from ...channel.farewell import CANCEL_S, END_S, SHUTDOWN_S
from ...channel.messages import (
    TAKE_LAST,
    TAKE_LINK,
    TAKE_TRUSTED,
    Drained,
    Failed,
    Message,
    Profile,
    Take,
)
from ...channel.records import say
from ...channel.settings import Settings
from ...channel.vitals import Page
from ..access_log import access_log
from ..arrival import arrival
from ..in_flight import named
from ..process import looking, profiling
from ..process.termination import TOLD, hear_terminate, on_terminate
from ..rounds import Rounds
from .connection import HttpConnection
from .context import AsgiContext, Call
from .deadlines import Deadlines, describe, heard_elsewhere
from .lifespan import Lifespan, LifespanError
from .loop import new_loop
from .scope import Peer


class AsgiServer(Agent[HttpConnection]):
    """Serves ``app`` until told to drain. ``endpoint`` is the worker's end of its channel, ``page`` its vital signs."""

    context: AsgiContext

    def __init__(self, app: Any, settings: Settings, endpoint: Endpoint, page: Page) -> None:
        self.settings = settings
        loop, self._loop_name = new_loop(settings.loop)
        super().__init__(
            AsgiContext(app, settings, page, loop, self._ended, self._check_left),
            endpoint,
            keep_s=settings.websocket_keep_s,
            cut_s=CANCEL_S,
            end_s=None if settings.shares_process else END_S,
            tick_s=_tick_s(settings),
            app=settings.app,
        )
        limit_s = settings.request_timeout_s
        self._deadlines = None if limit_s is None else Deadlines(limit_s, self.context)
        if settings.slow_request_s is not None:
            from ..app.slow import of_loop

            self.context.slow = of_loop(settings, settings.slow_request_s, self.context.calls)
        self._access = access_log(settings)
        self._rounds = Rounds()
        self._cancelled: set[Call] = set()
        self._is_hearing = False
        self._heard: deque[tuple[Message, list[int]]] = deque()
        """What was read of the channel while the loop stood still."""

    # Life

    def run(self) -> int:
        """Start the app, serve, drain; the worker's exit status."""
        loop = self._loop
        asyncio.set_event_loop(loop)
        profiling.knows_loop(loop)
        try:
            return loop.run_until_complete(self._main())
        finally:
            try:
                _cancel_all(loop)
                loop.run_until_complete(_end_generators(loop))
                loop.run_until_complete(_end_threads(loop))
            finally:
                profiling.forget_loop()
                asyncio.set_event_loop(None)
                loop.close()

    async def _main(self) -> int:
        loop = self._loop
        on_terminate(partial(loop.call_soon_threadsafe, self._end_now))
        if not self.settings.shares_process:
            hear_terminate()
            looking.on_signal_do(self._hear_now)
        lifespan = Lifespan(self.context.app, self.settings.lifespan)
        self._listen()
        starting = loop.create_task(lifespan.startup())
        try:
            await asyncio.wait([starting, self._left], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()  # told to leave before it was ready
                if self._stage is not ServerStage.DRAINING:
                    return 1
                await self._farewell(Drained())
                return 0
            starting.result()
        except LifespanError as error:
            await self._farewell(Failed("lifespan-failed", str(error)))
            return 1
        if lifespan.is_supported:
            self.context.scopes.state = lifespan.state
        self._ready(self._loop_name)
        await self._left
        try:
            await lifespan.shutdown(SHUTDOWN_S)
        except LifespanError as error:
            say("error", "the app failed in its lifespan shutdown", str(error), app=self.settings.app)
        await self._farewell(Drained())
        return 0

    def _end_now(self) -> None:
        """SIGTERM: what the end of the grace begins, at once."""
        if self._stage is ServerStage.STARTING:
            self._give_up()
            return
        if self._stage is ServerStage.SERVING:
            self._tell(Failed("stopping", TOLD))
            self._leave(ServerStage.DRAINING, 0.0)
            self.context.keeps_upgraded = False
        else:
            self.context.keeps_upgraded = False
            self._force()

    def _orphaned(self) -> None:
        for call in self.context.calls:
            if not call.response.head_sent:
                call.response.close = True

    def _is_done(self) -> bool:
        return not self.context.calls

    def _cut(self, connections: list[HttpConnection], kept: list[HttpConnection]) -> None:
        calls = self.context.calls - self._cancelled - {each.cycle for each in kept if each.cycle is not None}
        self._cancelled |= calls  # once: a second time would end their clean-up
        if connections or calls:
            now = monotonic()
            say(
                "warn",
                "the grace period is over: connections cut, requests cancelled",
                app=self.settings.app,
                connections=len(connections),
                requests=len(calls),
                cut=named((call.head, now - call.started) for call in calls),
            )
        for connection in connections:
            connection.abort()
        told = heard_elsewhere(self._loop) & calls  # they are, in the next turn
        _cancel(calls - told)
        self._loop.call_later(CANCEL_S / 2, _cancel, told)

    # The channel's and the clock's

    def _connection_for(self, take: Take, sock: socket.socket) -> HttpConnection:
        flags, now = take.flags, monotonic()
        peer = Peer(sock, bool(flags & TAKE_TRUSTED), bool(flags & TAKE_LINK))
        what = (self.context, sock, take.slot, bool(flags & TAKE_LAST), peer)
        connection: HttpConnection
        if turns := self._rounds.turns(flags, now):
            from .counted import CountedConnection, LoggedCountedConnection

            counted = CountedConnection(*what) if self._access is None else LoggedCountedConnection(*what, self._access)
            counted.turns, connection = turns, counted
        elif self._access is None:
            connection = HttpConnection(*what)
        else:
            from .logged import LoggedConnection  # most apps have no access log

            connection = LoggedConnection(*what, self._access)
        connection.arrived, connection.arrived_by = arrival(flags, sock, now)
        return connection

    def _on_channel(self) -> None:
        self._is_hearing = True
        try:
            while self._heard:
                self._obey(*self._heard.popleft())
            super()._on_channel()
        finally:
            self._is_hearing = False

    def _hear_now(self) -> None:
        """In a signal's handler, while the loop may be standing still: a profile begins now, all else waits for it."""
        if self._is_hearing:
            return  # the loop turns
        try:
            for _ in range(MESSAGES_A_TURN):
                received = self._endpoint.receive()
                if received is None:
                    break
                if isinstance(received[0], Profile):
                    self._obey(*received)
                else:
                    self._heard.append(received)
        except ChannelClosed:
            return  # the loop hears of it as well
        except ChannelError as exc:
            self._loop.call_soon_threadsafe(self._channel_ended, exc)
        if self._heard:
            self._loop.call_soon_threadsafe(self._on_channel)

    def _obey(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Profile):
            profiling.begin(message.worker, message.seconds, descriptors[0])
        else:
            super()._obey(message, descriptors)

    def _dump(self) -> None:
        faulthandler.dump_traceback(STDERR, all_threads=True)
        say("info", "stacks dumped to standard error", describe(self._loop), app=self.settings.app)

    def _look(self, now: float) -> None:
        super()._look(now)
        if self._deadlines is not None:
            self._deadlines.look(self.context.calls, now)


def _cancel(calls: Iterable[Call]) -> None:
    for call in calls:
        if call.task is not None:
            call.task.cancel()


def _tick_s(settings: Settings) -> float:
    """How often to look at what may take too long: each time-out is kept to a quarter."""
    shortest_s = min(
        settings.head_timeout_s,
        settings.body_timeout_s,
        settings.write_timeout_s,
        settings.websocket_ping_interval_s or TICK_S * 4,
        settings.websocket_ping_timeout_s,
        settings.request_timeout_s or TICK_S * 4,
    )
    return max(0.05, min(TICK_S, shortest_s / 4))


async def _end_generators(loop: asyncio.AbstractEventLoop) -> None:
    """Close what asynchronous generators are left; one that does not end must not hold us up."""
    await asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=1.0)


async def _end_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Give the threads of the loop's executor a moment to finish; who is stuck there must not hold us up."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(loop.shutdown_default_executor(), 1.0)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
