"""Whether a store refuses writes because it is full: it is asked now and then."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time

from ..system.log.fields import FieldLog
from .process import ProcessState, SupervisedProcess

log = FieldLog("caddysnake.app")

_EVERY_S = 5.0
_ANSWER_S = 2.0
_REFUSED = re.compile(rb"errorstat_OOM:count=(\d{1,18})\r\n")


class Fullness:
    """Of the store of one app."""

    def __init__(self) -> None:
        self._due = 0.0
        self._refused: int | None = None
        self._task: asyncio.Task[None] | None = None

    def look(self, process: SupervisedProcess) -> None:
        """Ask ``process``, unless that was a moment ago."""
        now = time.monotonic()
        if now >= self._due and process.state is ProcessState.RUNNING:
            self._due = now + _EVERY_S
            self._task = asyncio.get_running_loop().create_task(self._ask(process))

    async def _ask(self, process: SupervisedProcess) -> None:
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(process.socket)
                try:
                    writer.write(b"INFO errorstats\r\n")
                    answer = await reader.read(1 << 16)
                finally:
                    writer.close()
        found = _REFUSED.search(answer)
        before, self._refused = self._refused, int(found[1]) if found else 0
        was_full, process.is_full = process.is_full, before is not None and self._refused > before
        if process.is_full and not was_full:
            hint = "raise max_size of cache, or give values a time to live"
            what = "the store is full, and refuses writes"
            log.warning(what, app=process.app, process=process.label, refused=self._refused, hint=hint)
