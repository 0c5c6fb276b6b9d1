"""`log` and `debug`, which are Caddy's too: what they say of our log, and what is left to Caddy."""

from __future__ import annotations

import pytest

from caddysnake.config.language.adapt import ConfigErrors, load
from caddysnake.config.language.models import AccessLog, Log

BLOCK = "unix//tmp/x.sock {\n\tpython {\n\t\tmodule_wsgi a:b\n\t\t%s\n\t}\n}\n"


def options(text: str) -> Log:
    return load(("{\n" + text + "\n}\n" + BLOCK % "").encode(), "Caddyfile", {}).options.log


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Log()),
        ("log {\n\tlevel DEBUG\n}", Log(level="debug")),
        ("log default {\n\tlevel error\n\tformat console\n}", Log(level="error", format="console")),
        ("log {\n\tformat json {\n\t\ttime_format iso8601\n\t}\n\toutput file /var/x {\n\t\troll_size 1\n\t}\n}",
         Log(format="json")),
        ("log {\n\tformat filter {\n\t\twrap json\n\t}\n\tinclude http.log.access\n}", Log()),
        ("log admin {\n\tlevel nonsense\n\tformat json\n}", Log()),
        ("log {\n\tlevel WARN\n}\nlog other {\n\tlevel DEBUG\n}", Log(level="warn")),
    ],
)  # fmt: skip
def test_what_the_default_log_says_is_for_ours_too(text: str, expected: Log) -> None:
    assert options(text) == expected


def test_an_unknown_level_is_an_error_with_its_line() -> None:
    with pytest.raises(ConfigErrors, match="Caddyfile:3: level of log"):
        options("log {\n\tlevel loud\n}")


def test_debug_is_known() -> None:
    assert load(("{\n\tdebug\n}\n" + BLOCK % "").encode(), "Caddyfile", {}).options.debug


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("log", AccessLog()), ("log {\n\t\t\tlog_credentials\n\t\t}", AccessLog(log_credentials=True))],
)
def test_a_block_has_an_access_log_when_it_says_so(text: str, expected: AccessLog | None) -> None:
    config = load((BLOCK % text).encode(), "Caddyfile", {})
    (app,) = config.apps()
    assert app.log == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("log name", "takes 0 arguments"),
        ("log {\n\t\t\toutput file /x\n\t\t}", "it belongs into the global option log"),
        ("log {\n\t\t\tcredentials\n\t\t}", "known is log_credentials"),
    ],
)
def test_what_an_access_log_does_not_know_is_told(text: str, hint: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load((BLOCK % text).encode(), "Caddyfile", {})
    assert hint in str(caught.value.errors[0])
