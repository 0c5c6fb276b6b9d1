"""Which apps of a template with schedules there are: those that were up. A file has them, so that the end of the daemon
forgets none. One that is not there when its time comes (a disk may be mounted late) is forgotten after a week.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from ..system import state_files
from ..system.log.fields import FieldLog

log = FieldLog("caddysnake.tenants")

KNOWN_MAX: Final = 65_536
FORGOTTEN_DAYS: Final = 7
_SOON_S: Final = 0.5
_DAY_S: Final = 86_400


class KnownApps(dict[str, int]):
    """Of one template: their keys, with the day on which each was there last. The latest is at the end."""

    def __init__(self) -> None:
        self.is_read = False
        """What the file says is known. There is none for a template without schedules."""
        self._file = ""
        self._is_changed = False
        self._keeping: asyncio.Task[None] | None = None

    def follow(self, file: str) -> None:
        """Keep them in ``file``, of the state folder, from now on; empty: nowhere."""
        if file != self._file:
            self._file, self.is_read = file, False
            self._keep_soon(is_changed=bool(self))

    def saw(self, key: str) -> None:
        """It is there."""
        today = int(time.time() // _DAY_S)
        if self.get(key) != today:
            self.pop(key, None)
            self[key] = today
            if len(self) > KNOWN_MAX:
                del self[next(iter(self))]
            self._keep_soon()

    def missed(self, key: str) -> None:
        """It is not there."""
        if key in self and time.time() // _DAY_S - self[key] > FORGOTTEN_DAYS:
            del self[key]
            self._keep_soon()

    def _keep_soon(self, is_changed: bool = True) -> None:
        self._is_changed = is_changed
        if self._file and self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        try:
            if not self.is_read:
                content = await asyncio.to_thread(state_files.read, self._file)
                self |= {**json.loads(content or b"{}"), **self}
                self.is_read = True
            while self._is_changed:
                await asyncio.sleep(_SOON_S)
                self._is_changed = False
                await asyncio.to_thread(state_files.write, self._file, json.dumps(self).encode())
        except (OSError, ValueError, TypeError) as exc:
            what = "schedules: it cannot be kept which apps there are, so after a restart each is to be visited first"
            log.warning(what, file=self._file, error=str(exc))
            self._file = ""
        finally:
            self.is_read, self._keeping = True, None

    async def close(self) -> None:
        """Wait until the file says what is known."""
        if self._keeping is not None:
            await self._keeping
