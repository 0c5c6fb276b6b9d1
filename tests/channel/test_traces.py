"""Which trace a request belongs to."""

from __future__ import annotations

import pytest

from caddysnake.channel.traces import trace_in

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("values", "is_one"),
    [
        ([f"00-{TRACE}-{PARENT}-01"], True),
        ([f"cc-{TRACE}-{PARENT}-01"], True),
        ([f"cc-{TRACE}-{PARENT}-01-what-comes-later"], True),
        ([f"cc-{TRACE}-{PARENT}-01.later"], False),
        ([f"00-{TRACE}-{PARENT}-01-more"], False),
        ([f"ff-{TRACE}-{PARENT}-01"], False),
        ([f"00-{'0' * 32}-{PARENT}-01"], False),
        ([f"00-{TRACE}-{'0' * 16}-01"], False),
        ([f"00-{TRACE.upper()}-{PARENT}-01"], False),
        ([f"00-{TRACE}-{PARENT}"], False),
        ([f"00-{TRACE}-{PARENT}-01"] * 2, False),
        ([""], False),
        ([], False),
    ],
)
def test_what_is_no_traceparent_names_no_trace(values: list[str], is_one: bool) -> None:
    """W3C Trace Context, sections 3.2 and 4.3."""
    fields = [(b"host", b"a"), *((b"traceparent", value.encode()) for value in values)]
    assert trace_in(fields) == (TRACE if is_one else "")
