"""A time is due once, within its minute, whatever the clock and daylight saving do."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from caddysnake.config.language import cron
from caddysnake.config.language.values import InvalidValue
from caddysnake.daemon.commands.timetable import Look, Timetable

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    """``2026-03-29 01:59`` there, as ``time.time()``; an offset decides where an hour comes twice."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def walked(line: str, start: str, end: str, step_s: float = 20.0) -> list[str]:
    """When it was due, on a clock that goes on evenly."""
    now, table = at(start), Timetable(line, BERLIN, at(start))
    found = []
    while now < at(end):
        look = table.look(now)
        assert look.missed == 0
        if look.due is not None:
            found.append(datetime.fromtimestamp(look.due, UTC).strftime("%d %H:%M"))
        now += step_s
    return found


@pytest.mark.parametrize(
    ("line", "start", "end", "due"),
    [
        ("0 3 * * *", "2026-06-01 00:00", "2026-06-03 00:00", ["01 01:00", "02 01:00"]),
        ("@daily", "2026-06-01 00:01", "2026-06-02 12:00", ["01 22:00"]),
        ("*/20 9 * * MON", "2026-06-01 00:00", "2026-06-02 00:00", ["01 07:00", "01 07:20", "01 07:40"]),
        # In spring 02:30 is left out, and comes right after; what comes by the hour goes on.
        ("30 2 * * *", "2026-03-29 00:00", "2026-03-29 12:00", ["29 01:00"]),
        ("15 * * * *", "2026-03-29 01:00", "2026-03-29 04:00", ["29 00:15", "29 01:15"]),
        # In autumn it comes twice, and is due once; what comes by the hour is due in both.
        ("30 2 * * *", "2026-10-25 00:00", "2026-10-25 12:00", ["25 00:30"]),
        ("15 * * * *", "2026-10-25 01:30", "2026-10-25 04:00", ["25 00:15", "25 01:15", "25 02:15"]),
        ("0 0 29 2 *", "2026-01-01 00:00", "2026-01-02 00:00", []),
    ],
)
def test_a_line_is_due_when_crontab_says(line: str, start: str, end: str, due: list[str]) -> None:
    assert walked(line, start, end) == due


def test_a_clock_that_jumps_over_a_time_misses_it_and_says_so() -> None:
    table = Timetable("0 3 * * *", BERLIN, at("2026-06-01 02:59"))
    assert table.look(at("2026-06-01 03:05")) == Look(None, 1)
    assert table.look(at("2026-06-02 03:00:59")) == Look(at("2026-06-02 03:00"), 0)


def test_of_many_missed_times_only_one_that_is_due_now_begins() -> None:
    table = Timetable("* * * * *", BERLIN, at("2026-06-01 02:59:30"))
    assert table.look(at("2026-06-01 03:30:10")) == Look(at("2026-06-01 03:30"), 30)
    assert table.look(at("2026-06-03 03:30:10")).missed > 900


def test_a_clock_that_is_set_back_a_little_brings_no_time_twice() -> None:
    table = Timetable("* * * * *", BERLIN, at("2026-06-01 02:59:30"))
    assert table.look(at("2026-06-01 03:00:01")).due == at("2026-06-01 03:00")
    for second in range(0, 60 * 60, 10):
        assert table.look(at("2026-06-01 02:00:30") + second) == Look()
    assert table.look(at("2026-06-01 03:01")).due == at("2026-06-01 03:01")


def test_a_clock_that_was_wrong_by_days_is_believed_when_it_is_right() -> None:
    table = Timetable("0 3 * * *", BERLIN, at("2030-01-01 00:00"))
    assert table.look(at("2026-06-01 02:00")) == Look()
    assert table.look(at("2026-06-01 03:00")).due == at("2026-06-01 03:00")


def test_the_last_time_is_not_due_again_when_the_clock_is_a_day_back() -> None:
    table = Timetable("0 3 * * *", BERLIN, at("2026-06-01 02:00"))
    assert table.look(at("2026-06-01 03:00")).due
    assert table.look(at("2026-06-02 03:00")).due
    table.look(at("2026-06-01 22:00"))
    assert table.look(at("2026-06-02 03:00:30")) == Look()


def test_another_image_of_the_daemon_loses_no_time_and_brings_none_twice() -> None:
    first = Timetable("* * * * *", BERLIN, at("2026-06-01 02:59:30"))
    first.look(at("2026-06-01 03:00"))
    later = Timetable("* * * * *", BERLIN, at("2026-06-01 03:01:02"))
    later.restore(first.next, first.last)
    assert later.look(at("2026-06-01 03:01:02")).due == at("2026-06-01 03:01")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 3 * *", '"0 3 * *" has 4 fields, and a cron line has five'),
        ("0", '"0" has 1 field'),
        ("0 25 * * *", '"0 25 * * *": bad hour'),
        ("0 0 30 2 *", '"0 0 30 2 *"'),
        ("@reboot", "@reboot is no time"),
        ("@sometimes", "@sometimes is not known"),
    ],
)
def test_a_line_that_is_none_is_told(line: str, told: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        cron.check(line)
    assert str(caught.value).startswith(told)


def test_a_line_is_explained() -> None:
    assert cron.explained("0 3 * * *") == "At 03:00 every day"
