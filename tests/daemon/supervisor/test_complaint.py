"""What Caddy says of the text that was made for it, told of the file that somebody wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caddysnake.daemon.supervisor.caddy.complaint import complaint_of, written_at
from caddysnake.daemon.supervisor.document import CaddyPart, Document

FILE = Path("/run/x/Caddyfile-7-abc")
WRITTEN = "{\n\tadmin off\n}\na.example {\n\tpython {\n\t\tmodule_wsgi a:b\n\t}\n\trespond one two three four\n}\n"
PROXY = "reverse_proxy unix/x {\n\t\ttransport http\n\t}"
MADE = f"{{\n\tadmin off\n}}\na.example {{\n\t{PROXY}\n\trespond one two three four\n}}\n"


def said(msg: str) -> str:
    return json.dumps({"level": "info", "msg": "before"}) + "\n" + json.dumps({"level": "error", "msg": msg}) + "\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            f"adapting config using caddyfile: parsing caddyfile tokens for 'respond': wrong count, at {FILE}:8",
            "site.caddy:8: caddy refuses its part of the file: parsing caddyfile tokens for 'respond': wrong count\n"
            "    8 | respond one two three four",
        ),
        (
            f"{FILE}:6: unrecognized directive: transport",
            "site.caddy: caddy refuses its part of the file: unrecognized directive: transport\n"
            "that line: transport http",
        ),
        (
            "adapting config using caddyfile: /etc/tls.caddy:3: unrecognized directive: bad",
            "site.caddy: caddy refuses its part of the file: /etc/tls.caddy:3: unrecognized directive: bad",
        ),
        (
            "loading initial config: loading new config: loading http app module: no such file",
            "site.caddy: caddy refuses its part of the file: loading http app module: no such file",
        ),
        (
            "loading initial config: http app module: start: listening on :80: listen tcp :80: bind: permission denied",
            "caddy cannot listen on port 80, permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE; or "
            "give the site a port from 1024 on, such as http://localhost:8080",
        ),
    ],
)
def test_its_last_words_name_our_file_and_line(words: str, expected: str) -> None:
    part = CaddyPart(MADE, "off", Document(WRITTEN.encode(), "site.caddy"))
    assert complaint_of(said(words), part, FILE) == expected


def test_a_file_that_nobody_has_written_is_not_named() -> None:
    part = CaddyPart(MADE, "off", Document(WRITTEN.encode(), "(serve 127.0.0.1:9080)"))
    assert complaint_of(said(f"{FILE}:8: bad"), part, FILE) == (
        "caddy refuses its part of the file: bad\nthat line: respond one two three four"
    )


@pytest.mark.parametrize(
    ("made", "written", "expected"),
    [
        (["a", "b", "c"], ["a", "c"], {1: 1, 2: None, 3: 2}),
        (["x", "a", "a"], ["a", "a"], {2: 1, 3: 2}),
        (["\tb", "a"], ["a", "b"], {1: 2, 2: 1}),
    ],
)
def test_a_line_is_found_where_it_was_written(made: list[str], written: list[str], expected: dict[int, int]) -> None:
    assert {number: written_at(number, made, written) for number in expected} == expected
