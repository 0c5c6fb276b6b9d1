"""A line of Caddy's log, in both of its forms, as a record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from caddysnake.logs.caddy import is_about_us, read

ENTRY = {"level": "info", "ts": 1796040139.85, "logger": "tls.obtain", "msg": "certificate obtained", "identifier": "x"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (json.dumps(ENTRY), ("info", "tls.obtain", "certificate obtained", {"identifier": "x"}, 1796040139.85)),
        ('{"level":"WARN","msg":"no logger"}', ("warn", "caddy", "no logger", {}, None)),
        (
            '2026/11/30 12:04:57.801\tINFO\ttls.obtain\tcertificate obtained\t{"identifier": "x"}',
            ("info", "tls.obtain", "certificate obtained", {"identifier": "x"}, None),
        ),
        (
            "2026/11/30 12:04:57.801\t\x1b[33mWARN\x1b[0m\tadmin endpoint disabled",
            ("warn", "caddy", "admin endpoint disabled", {}, None),
        ),
        ("goroutine 1 [running]:", None),
        ('{"level":"info"', None),
        ('{"level":"loud","msg":"x"}', None),
        ('{"msg":"x"}', None),
        ("[1, 2]", None),
    ],
)
def test_json_and_console_style_are_understood(line: str, expected: tuple[Any, ...] | None) -> None:
    assert read(line) == expected


def test_only_what_complains_of_our_own_file_is_about_us() -> None:
    assert is_about_us("Caddyfile input is not formatted; run 'caddy fmt'", {})
    assert is_about_us("admin endpoint on open interface; host checking disabled", {"address": "fd/21"})
    assert not is_about_us("admin endpoint on open interface; host checking disabled", {"address": ":2019"})
