"""Durations, sizes, counts, modules and addresses, as text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caddysnake.config.language import values
from caddysnake.config.language.values import InvalidValue, ModuleVariable, SocketAddress


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("1d", 86400.0),
        ("1.5d2h", 136800.0),
        ("0", 0.0),
        ("-0", 0.0),
        ("-2m", -120.0),
        ("+3s", 3.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("1us", 1e-6),
        ("1\u00b5s", 1e-6),
        ("1\u03bcs", 1e-6),
        ("1ns", 1e-9),
        ("1m1m", 120.0),
    ],
)
def test_a_duration_is_read_as_go_and_caddy_read_it(text: str, seconds: float) -> None:
    assert values.duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "1 s", "1h 30m", "1x", "--1s", "1s-1s", ".s", "1e3s", "999999d", "\u0663s", "1S"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        values.duration(text)


@given(st.integers(min_value=0, max_value=2**53))
def test_a_duration_is_read_exactly(microseconds: int) -> None:
    assert values.duration(f"{microseconds}us") == pytest.approx(microseconds / 1_000_000, abs=1e-9, rel=1e-15)


@pytest.mark.parametrize("text", ["-1", "forever", "none", "inf", "indefinite", "FOREVER"])
def test_a_start_may_take_for_ever(text: str) -> None:
    assert values.duration_or_endless(text) is None


@pytest.mark.parametrize("text", ["0", "0s", "-2s"])
def test_a_time_limit_is_longer_than_nothing(text: str) -> None:
    with pytest.raises(InvalidValue, match="longer than nothing"):
        values.duration_or_endless(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1000", 1000),
        ("10MB", 10_000_000),
        ("10mb", 10_000_000),
        ("10M", 10_000_000),
        ("10MiB", 10 * 1024**2),
        ("10Mi", 10 * 1024**2),
        ("1GiB", 1024**3),
        ("1.5 kB", 1500),
        ("1,000", 1000),
        ("0.5KiB", 512),
        ("2EiB", 2 * 1024**6),
        ("7b", 7),
        ("0.9", 0),
    ],
)
def test_a_size_is_read_as_caddy_reads_it(text: str, count: int) -> None:
    assert values.size(text) == count


@pytest.mark.parametrize("text", ["", "MB", "10XB", "-1", "1.2.3", "16EiB", "1e3", "ten"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        values.size(text)


@given(st.integers(min_value=0, max_value=2**53))
def test_a_size_is_read_exactly(count: int) -> None:
    assert values.size(f"{count}") == count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("main:app", ModuleVariable("main", "app")),
        ("pkg.mod:obj.attr", ModuleVariable("pkg.mod", "obj.attr")),
        ("main:make_app()", ModuleVariable("main", "make_app()")),
        ("main:Site.make()", ModuleVariable("main", "Site.make()")),
        ("caf\u00e9:app", ModuleVariable("caf\u00e9", "app")),
        ("{http.request.host.labels.2}:app", ModuleVariable("{http.request.host.labels.2}", "app")),
        ("tenants.{env.A:b}:app", ModuleVariable("tenants.{env.A:b}", "app")),
    ],
)
def test_an_app_is_a_module_and_a_variable(text: str, expected: ModuleVariable) -> None:
    assert values.module_variable(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("main", "module:variable"),
        (":app", "module:variable"),
        ("main:", "module:variable"),
        ("src/main.py:app", "write src.main:app"),
        ("./main:app", "write main:app"),
        ("main:app:x", "module:variable"),
        ("main:app(1)", "without arguments"),
        ("main:1app", "module:variable"),
        ("ma in:app", "module:variable"),
        ("main:app()()", "without arguments"),
    ],
)
def test_what_names_no_app_is_refused_with_what_would(text: str, hint: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        values.module_variable(text)
    assert caught.value.hint is not None
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix//run/x.sock", SocketAddress("unix", path="/run/x.sock")),
        ("unix/x.sock", SocketAddress("unix", path="x.sock")),
        ("unix//run/x.sock|0660", SocketAddress("unix", path="/run/x.sock", mode=0o660)),
        ("unix//x|222", SocketAddress("unix", path="/x", mode=0o222)),
        ("unix//x|0600|deploy:caddy", SocketAddress("unix", path="/x", mode=0o600, owner="deploy", group="caddy")),
        ("unix//x||:caddy", SocketAddress("unix", path="/x", group="caddy")),
        ("tcp/127.0.0.1:9000", SocketAddress("tcp", host="127.0.0.1", port=9000)),
        ("127.0.0.1:9000", SocketAddress("tcp", host="127.0.0.1", port=9000)),
        (":9000", SocketAddress("tcp", port=9000)),
        ("tcp/[::1]:9000", SocketAddress("tcp", host="::1", port=9000)),
        ("tcp6/[0:0::1]:80", SocketAddress("tcp6", host="::1", port=80)),
        ("::1", SocketAddress("tcp", host="::1")),
        ("localhost", SocketAddress("tcp", host="localhost")),
        ("fd/3", SocketAddress("fd", fd=3)),
    ],
)
def test_a_socket_is_written_as_caddy_writes_it(text: str, expected: SocketAddress) -> None:
    address = values.socket_address(text)
    assert address == expected
    assert values.socket_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix/",
        "unix//run/",
        "unix/@name",
        "unix//x|",
        "unix//x|0999",
        "unix//x|0440",
        "unix//x|0660|",
        "unix//x|0660|deploy:",
        "tcp/host:http",
        "tcp/host:70000",
        "tcp/host:8000-8010",
        "tcp/127.0.0.1:80|0660",
        "tcp/[::g]:80",
        "udp/127.0.0.1:53",
        "fd/x",
    ],
)
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        values.socket_address(text)


def test_the_longest_socket_path_has_107_bytes() -> None:
    longest = "/" + "\u00e9" * 53
    assert len(longest.encode()) == 107
    assert values.socket_address(f"unix/{longest}").path == longest
    with pytest.raises(InvalidValue, match="108 bytes"):
        values.socket_address(f"unix/{longest}x")


def test_no_workers_at_all_means_as_many_as_there_are_cores() -> None:
    assert values.workers("0") is None
    assert values.workers("auto") is None
    with pytest.raises(InvalidValue, match="too few"):
        values.workers("-1")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plain", ()),
        ("/srv/{http.request.host}/x", ("http.request.host",)),
        ("{a}{b}", ("a", "b")),
        (r"\{a\}", ()),
        ("{", ()),
        ("}{", ()),
    ],
)
def test_placeholders_are_found(text: str, names: tuple[str, ...]) -> None:
    assert values.placeholders(text) == names
