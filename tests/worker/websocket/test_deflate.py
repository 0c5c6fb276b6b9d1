"""permessage-deflate: what is agreed to, and what inflates (RFC 7692)."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import Frame, Opcode
from websockets.headers import parse_extension

from caddysnake.worker.websocket.deflate import TAIL, Agreement, Deflate, DeflateError, negotiate


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=11"),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=11; client_max_window_bits=11",
        ),
        (
            "permessage-deflate; client_max_window_bits=9; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
        ),
        ('permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11",
        ),
        (
            "x-unknown; a=b, permessage-deflate; server_max_window_bits=8, permessage-deflate",
            "permessage-deflate; server_max_window_bits=11",
        ),
    ],
)
def test_the_first_offer_that_can_be_kept_is_agreed_to(offers: str, answer: str) -> None:
    agreed = negotiate(offers)
    assert agreed is not None
    assert agreed.header() == answer


@pytest.mark.parametrize(
    "offers",
    [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate;",
        ";,=",
    ],
)
def test_any_other_offer_is_declined(offers: str) -> None:
    assert negotiate(offers) is None


def client_for(agreed: Agreement) -> PerMessageDeflate:
    """The client's side of ``agreed``, by another implementation."""
    factory = ClientPerMessageDeflateFactory(
        server_no_context_takeover=agreed.server_no_context,
        client_no_context_takeover=agreed.client_no_context,
        client_max_window_bits=True if agreed.names_client_window else None,
    )
    ((_, parameters),) = parse_extension(agreed.header())
    return factory.process_response_params(parameters, [])


AGREEMENTS = [
    negotiate(offer)
    for offer in (
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
    )
]


def inflated(deflate: Deflate, data: bytes, is_end: bool, step: int = 1000) -> bytes:
    """The whole content of ``data``, some of it at a time."""
    content = b""
    rest: bytes | None = data + TAIL if is_end else data
    while rest is not None:
        piece, rest = deflate.inflate(rest, step, is_end)
        assert len(piece) <= step
        content += piece
    return content


@pytest.mark.parametrize("agreed", AGREEMENTS)
@settings(deadline=None, derandomize=True)
@given(messages=st.lists(st.binary(max_size=5000) | st.just(b"repeat " * 3000), max_size=5), size=st.integers(1, 4000))
def test_both_ways_with_another_implementation(agreed: Agreement, messages: list[bytes], size: int) -> None:
    ours, client = Deflate(agreed), client_for(agreed)
    for message in messages:
        sent = Frame(Opcode.BINARY, ours.deflate(message), rsv1=True)
        assert bytes(client.decode(sent).data) == message
        data = bytes(client.encode(Frame(Opcode.BINARY, message)).data)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        got = b"".join(inflated(ours, piece, False) for piece in pieces) + inflated(ours, b"", True)
        assert got == message


def test_the_examples_of_the_rfc_inflate() -> None:
    deflate = Deflate(Agreement())
    assert inflated(deflate, b"\xf2\x48\xcd\xc9\xc9\x07\x00", True) == b"Hello"
    assert inflated(deflate, b"\xf2\x00\x11\x00\x00", True) == b"Hello"  # with the window of the first
    assert inflated(Deflate(Agreement()), b"\x00\x05\x00\xfa\xffHello\x00", True) == b"Hello"  # not compressed
    assert inflated(Deflate(Agreement()), b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", True) == b"Hello"  # 7.2.3.4
    assert inflated(Deflate(Agreement()), b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", True) == b"Hello"


def test_a_message_after_a_final_block_inflates_too() -> None:
    deflate = Deflate(Agreement())
    for _ in range(3):
        assert inflated(deflate, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", True) == b"Hello"


def test_no_more_is_inflated_than_is_asked_for() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -11)
    bomb = packer.compress(bytes(50_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    deflate = Deflate(Agreement(client_window_bits=11))
    rest: bytes | None = bomb
    for _ in range(3):
        assert rest is not None
        piece, rest = deflate.inflate(rest, 1000, True)
        assert piece == bytes(1000)


def test_a_message_of_exactly_the_limit_passes() -> None:
    ours = Deflate(Agreement(client_window_bits=15))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = (packer.compress(bytes(100_000)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(inflated(ours, data, True)) == 100_000


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        inflated(Deflate(Agreement()), data, True)
    except DeflateError:
        pass
