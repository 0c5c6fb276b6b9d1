"""Our durations and sizes against what a real Caddy makes of the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.caddies import adapt, needs_caddy

from caddysnake.config.language import values
from caddysnake.config.language.values import InvalidValue

SIZES = [
    "1000",
    "10MB",
    "10mb",
    "10MiB",
    "1GiB",
    "1.5kB",
    "1,000",
    "1,5",
    "0.5KiB",
    "7b",
    "0.9",
    "3k",
    "3Ki",
    "9PiB",
    "1.1TB",
    "5,000.5kb",
    "0",
    "10XB",
    "-1",
    "1.2.3",
    "16EiB",
]
DURATIONS = [
    "30s",
    "1h30m",
    "500ms",
    "1d",
    "1.5d2h",
    ".5s",
    "5.s",
    "1us",
    "1µs",
    "1ns",
    "0",
    "+3s",
    "2562047h",
    "0.000000001s",
    "1d1d",
    "1h1d",
    "5",
    "s",
    "1x",
    "--1s",
    ".s",
    "1e3s",
    "9999999d",
]

pytestmark = needs_caddy


def ours(read: object, text: str) -> object:
    """What we make of it, ``None`` when it is refused."""
    assert callable(read)
    try:
        return read(text)
    except InvalidValue:
        return None


@pytest.mark.parametrize("text", SIZES)
def test_a_size_is_what_caddy_takes_it_for(tmp_path: Path, text: str) -> None:
    file = tmp_path / "Caddyfile"
    file.write_text(f":80 {{\n\trequest_body {{\n\t\tmax_size {text}\n\t}}\n}}\n")
    config = adapt(file).config
    expected = None
    if config is not None:
        handler = config["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]
        expected = handler.get("max_size", 0)
    assert ours(values.size, text) == expected


@pytest.mark.parametrize("text", DURATIONS)
def test_a_duration_is_what_caddy_takes_it_for(tmp_path: Path, text: str) -> None:
    file = tmp_path / "Caddyfile"
    file.write_text(f":80 {{\n\treverse_proxy unix//x {{\n\t\tlb_try_duration {text}\n\t}}\n}}\n")
    config = adapt(file).config
    expected = None
    if config is not None:
        handler = config["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]
        expected = handler.get("load_balancing", {}).get("try_duration", 0) / 10**9
    assert ours(values.duration, text) == expected
