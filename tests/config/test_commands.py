"""``release``, ``process`` and ``schedule``: what is wrong is told with its line, and when a schedule comes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from caddysnake.config.check.commands import missing_commands, told_schedules
from caddysnake.config.language.adapt import ConfigErrors, load
from caddysnake.config.plan.plan import plan


def block(*lines: str) -> bytes:
    return "\n".join(["unix/x.sock {", "python {", "module_wsgi main:app", *lines, "}", "}"]).encode()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["process a true", "process a false"], "Caddyfile:5: process: a is there twice, first on line 4"),
        (["process a true {", "count 0", "}"], "Caddyfile:5: process: 0 is too few"),
        (["process a true {", "count 2", "count 3", "}"], "Caddyfile:6: process: count is written twice in its block"),
        (["process a true {", "stop_signal FOO", "}"], "'FOO' is no signal (write one such as TERM"),
        (["process a"], "process: names no command"),
        (["process -x true"], "'-x' is no name"),
        (["schedule a `0 0 30 2 *` true"], "never comes: that month has no such day"),
        (["schedule a 0 3 * * * true"], "put all of it into quotes"),
        (["schedule a @reboot true"], "@reboot is no time (use release"),
        (["schedule a @daily true {", "timezone Mars/Base", "}"], "there is no time zone Mars/Base"),
        (["release"], "release: names no command"),
        (["release sh -c 'exit 1"], "a word in single quotes does not end"),
        (["release true {", "timeout never", "}"], "is not a duration"),
        (["release echo {nonsense}"], "unknown placeholder {nonsense}"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_what_to_write(lines: list[str], told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(block(*lines), "Caddyfile", {})
    assert told in "".join(f"{error}\n" for error in caught.value.errors)


def test_quotes_of_a_shell_and_braces_of_a_command_are_left_to_it() -> None:
    (app,) = load(block("release sh -c 'echo ${HOME}  {}'"), "Caddyfile", {}).apps()
    assert app.releases[0].command == ("sh", "-c", "echo $\\{HOME} \\{\\}")


def test_what_only_a_shell_would_understand_is_warned_of_unless_it_is_quoted() -> None:
    lines = ["release make a | tee b", "release cut -d `|` file", "process q sh -c 'a | b'"]
    (warning,) = load(block(*lines), "Caddyfile", {}).warnings
    assert "| is a word of the command: no shell reads it (write sh -c '…')" in warning


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    lines = [f"working_dir {tmp_path}", "process a no-such-tool -x", "process b ./tool", "release sh -c true"]
    found = plan(load(block(*lines), "Caddyfile", {}), cores=1)
    told = [str(error) for error in missing_commands(found, os.environ)]
    assert len(told) == 2
    assert told[0].startswith("Caddyfile:5: process: there is no command no-such-tool in ")
    assert told[1] == f"Caddyfile:6: process: {tmp_path}/./tool may not be executed (chmod +x {tmp_path}/./tool)"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to name another user")
def test_a_folder_that_the_user_may_not_enter_is_told() -> None:
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as folder:  # 0700
        found = plan(load(block("user nobody", f"working_dir {folder}"), "Caddyfile", {}), cores=1)
        (told,) = map(str, missing_commands(found, os.environ))
    hint = f"chmod a+x {folder}, or name a folder that it may enter"
    assert told == f"Caddyfile:5: working_dir {folder}: user nobody may not enter {folder} ({hint})"


def test_a_schedule_is_explained_with_its_next_times() -> None:
    found = plan(load(block("schedule a `0 3 * * *` true {", "timezone Europe/Berlin", "}"), "Caddyfile", {}), cores=1)
    (told,) = told_schedules(found, 1780000000.0)
    assert told == (
        "schedule a of main:app: At 03:00 every day (Europe/Berlin); "
        "next 2026-05-29 03:00, 2026-05-30 03:00, 2026-05-31 03:00"
    )
