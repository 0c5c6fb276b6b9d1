"""Times of schedules: five fields as in crontab(5), read by cronsim, which keeps daylight saving as Debian's cron does.
"""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final

from cronsim import CronSim, CronSimError

from .values import InvalidValue

NAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS: Final = 5
_LOCALTIME: Final = "/etc/localtime"
_HINT: Final = 'write minute, hour, day of month, month and day of week, such as "0 3 * * *" for three at night'


def fields_of(text: str) -> str:
    """The five fields of a cron line, which may be a name such as ``@daily``. Raises ``InvalidValue``."""
    if text.startswith("@"):
        if text == "@reboot":
            raise InvalidValue("@reboot is no time", "use release for what is before a start, process for what goes on")
        if text.lower() not in NAMES:
            raise InvalidValue(f"{text} is not known", f"known are {', '.join(NAMES)}")
        return NAMES[text.lower()]
    found = len(text.split())
    if found != _FIELDS:
        hint = f"put all of it into quotes; {_HINT}" if found == 1 else _HINT
        raise InvalidValue(f'"{text}" has {found} field{"" if found == 1 else "s"}, and a cron line has five', hint)
    return text


def check(text: str) -> None:
    """Raise ``InvalidValue`` when *text* is no cron line, or one whose time never comes."""
    fields = fields_of(text)
    try:
        CronSim(fields, datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError as exc:
        minute, hour, day, _, weekday = fields.split()
        if next_time(f"{minute} {hour} {day} * {weekday}", datetime(2024, 1, 1, tzinfo=UTC)) is not None:
            raise InvalidValue(f'"{text}" never comes: that month has no such day', _HINT) from None
        raise InvalidValue(f'"{text}": {str(exc).lower()}', _HINT) from None
    if next_time(text, datetime(2024, 1, 1, tzinfo=UTC)) is None:
        raise InvalidValue(f'"{text}" never comes', _HINT)


def times(text: str, after: datetime) -> Iterator[datetime]:
    """The times of *text* that are later than *after*, which has a time zone."""
    with suppress(CronSimError):
        yield from CronSim(fields_of(text), after)


def next_time(text: str, after: datetime) -> datetime | None:
    """The first of ``times``; None when there is none."""
    return next(times(text, after), None)


def explained(text: str) -> str:
    """What *text* means, in English."""
    return CronSim(fields_of(text), datetime(2024, 1, 1, tzinfo=UTC)).explain()


def check_zone(name: str) -> str:
    """*name* when it is a time zone's. Raises ``InvalidValue``."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = "write one such as Europe/Berlin; without the system's package tzdata there are none but UTC"
        raise InvalidValue(f"there is no time zone {name}", hint) from None
    return name


def zone(name: str | None) -> tzinfo:
    """The time zone *name*; None: the machine's, or that of ``TZ``. One object for all who ask, until that changes."""
    wanted = name or os.environ.get("TZ", "").removeprefix(":")
    if wanted:
        try:
            return zoneinfo.ZoneInfo(wanted)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass  # it was there when the file was read
    try:
        return _localtime(os.stat(_LOCALTIME).st_mtime_ns)
    except (OSError, ValueError):
        return UTC


@lru_cache(maxsize=1)
def _localtime(_changed: int) -> tzinfo:
    with open(_LOCALTIME, "rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, "localtime")
