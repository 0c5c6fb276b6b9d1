"""The daemon's log, and what text from a worker can do to it."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.daemon.system.log import records as logs
from caddysnake.daemon.system.log.records import Formatter, Handler, printable
from caddysnake.logs.formats import Console, json_line


def record(message: str = "app ready", level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("caddysnake.app", level, "pools.py", 1, message, None, None)
    made.fields = fields
    made.created, made.msecs = 1_795_359_933.58, 580.0
    return made


def console(made: logging.LogRecord, colour: bool = False) -> str:
    return Formatter(Console(colour)).format(made)


def test_a_json_line_has_the_field_names_of_caddy() -> None:
    line = Formatter(json_line).format(record(app="blog:app", workers=2))
    assert json.loads(line) == {
        "level": "info", "ts": 1_795_359_933.58, "logger": "app", "msg": "app ready", "app": "blog:app", "workers": 2,
    }  # fmt: skip
    assert line.index('"level"') < line.index('"ts"') < line.index('"logger"') < line.index('"msg"')


@pytest.mark.parametrize(
    ("level", "name"),
    [(logging.DEBUG, "debug"), (logging.INFO, "info"), (logging.WARNING, "warn"), (logging.ERROR, "error"),
     (logging.CRITICAL, "fatal")],
)  # fmt: skip
def test_levels_have_the_names_of_caddy(level: int, name: str) -> None:
    assert json.loads(Formatter(json_line).format(record(level=level)))["level"] == name


ANY = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary(), st.just(object()))


@given(st.text(), ANY)
def test_whatever_a_field_holds_is_one_json_line(message: str, value: object) -> None:
    line = Formatter(json_line).format(record(message, value=value))
    assert "\n" not in line
    assert json.loads(line)["msg"] == message


@pytest.mark.parametrize("value", ["a\udcffb", 1 << 70, {1: "\ud800"}, [1 << 64]])
def test_what_json_has_no_form_for_is_still_logged(value: object) -> None:
    assert json.loads(Formatter(json_line).format(record(value=value)))["msg"] == "app ready"


def raised() -> logging.LogRecord:
    made = record("failed")
    try:
        raise ValueError("no\x1b[2J")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_an_exception_of_our_own_is_in_the_error_field() -> None:
    assert "ValueError: no" in json.loads(Formatter(json_line).format(raised()))["error"]


def test_a_console_line_has_time_level_message_and_fields() -> None:
    line = console(record(app="blog:app", mode="direct hand-off", note=""))
    assert line.partition(" ")[2] == 'INFO  app ready  app=blog:app mode="direct hand-off" note=""'
    assert line[2] == line[5] == ":"
    assert line[8:12] == ".580"


def test_the_level_is_coloured_on_a_terminal_and_nothing_else_is() -> None:
    line = console(record(level=logging.ERROR, app="x"), colour=True)
    assert line.count("\x1b[") == 2
    assert "\x1b[31mERROR\x1b[0m app ready" in line


def test_several_lines_follow_indented() -> None:
    text = "Traceback\n  File x\nValueError: no"
    lines = console(record("worker failed", code="import-failed", error=text)).split("\n")
    assert lines[0].endswith("worker failed  code=import-failed")
    assert lines[1:] == ["    Traceback", "      File x", "    ValueError: no"]


EVIL = "\x1b[2J\x1b]0;owned\x07 \r\x08\x7f \x9b31m \u202egnp.exe \x00"


def test_a_terminal_obeys_nothing_that_a_worker_wrote() -> None:
    line = console(record(one=EVIL, two="first\n" + EVIL)) + console(raised())
    assert all(character.isprintable() or character == "\n" for character in line)
    assert "\\x1b[2J" in line
    assert "\\u202e" in line


@given(st.text())
def test_printable_text_is_printable_and_keeps_its_lines(text: str) -> None:
    shown = printable(text)
    assert shown.count("\n") == text.count("\n")
    assert not any(ord(character) < 0x20 and character not in "\n\t" for character in shown)
    shown.encode()


def test_a_field_cannot_pretend_to_be_two() -> None:
    assert console(record(error='x" code="fine')).endswith(r'error="x\" code=\"fine"')
    assert console(record(error="x=y")).endswith('error="x=y"')


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger("caddysnake")
    before = root.handlers[:], root.propagate, root.level
    yield
    root.handlers[:], root.propagate = before[0], before[1]
    root.setLevel(before[2])


@pytest.mark.usefixtures("restored")
def test_a_terminal_gets_console_style_and_a_file_gets_json() -> None:
    log = logging.getLogger("caddysnake.app")
    file, terminal = io.StringIO(), Terminal()
    logs.set_up(file)
    log.info("one", extra={"fields": {"n": 1}})
    log.debug("not asked for")
    logs.set_up(terminal)
    log.info("two")
    logs.set_up(file, debug=True)
    log.debug("three")
    assert [json.loads(line)["msg"] for line in file.getvalue().splitlines()] == ["one", "three"]
    assert "two" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_a_reader_that_stands_still_loses_records_and_is_told_how_many() -> None:
    """The workers write to the same pipe: a full one must not hold up the daemon."""
    reader, writer = os.pipe()
    with open(reader, "rb") as source, open(writer, "w") as stream:
        handler = Handler(stream)
        handler.setFormatter(Formatter(json_line))
        for number in range(100):
            handler.emit(record("x" * 5000, number=number))
        filled = os.read(source.fileno(), 1 << 20)
        handler.emit(record("back again"))
        lines = (filled + os.read(source.fileno(), 1 << 20)).split(b"\n")
    whole = [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    kept = len([entry for entry in whole if entry["msg"].startswith("x")])
    assert 0 < kept < 100
    assert whole[-2]["msg"] == "log records lost"
    assert whole[-2]["count"] == 100 - kept
    assert whole[-1]["msg"] == "back again"
