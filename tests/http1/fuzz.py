"""Fuzzes the parsers of what comes from outside: requests and WebSocket frames.

Run it for as long as you like: ``python tests/http1/fuzz.py --seconds 600 [--seed 7]``. A finding is printed with its
seed and bytes; put it into ``FOUND`` once it is mended. The corpus is the table of raw requests; mutations are those of
any fuzzer: bytes changed, removed, doubled, pieces of other cases spliced in.

What must hold for any bytes:

* a parser raises ``ProtocolError`` or nothing;
* how the bytes are split over packets does not matter;
* where h11 accepts the same bytes too, it finds the same messages: two servers that disagree about where a request
  ends are how requests are smuggled.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import h11

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from worker.cases_http import CASES

from caddysnake.http1.errors import ProtocolError
from caddysnake.http1.limits import Limits
from caddysnake.http1.request import RequestParser
from caddysnake.worker.websocket.deflate import Agreement, Deflate
from caddysnake.worker.websocket.frames import CLOSE, FAIL, Receiver

Message = tuple[bytes, bytes, bytes]

LIMITS = Limits(max_head_bytes=4000, max_target_bytes=1000, max_header_count=30, max_body_bytes=4000)
GOOD = [case.data for case in CASES if len(case.data) < 600 and 200 in case.statuses]
CORPUS = [*(GOOD * 6), *(case.data for case in CASES if len(case.data) < 600)]
TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-1", b"+", b"\xff", b"chunked"),
    *(b"3\r\nabc\r\n", b"0\r\n\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n"),
    *(b"Connection: close\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n"),
    *(b"HTTP/1.0", b"GET / HTTP/1.1\r\n"),
]
FOUND: list[bytes] = []
"""What was found once; it is tried first."""


def ours(pieces: list[bytes]) -> tuple[list[Message], str]:
    """The messages in ``pieces``, and how they end: ``refused``, ``closed`` or ``open``."""
    parser = RequestParser(LIMITS)
    messages: list[Message] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while parser.complete:
                head = parser.head
                assert head is not None
                messages.append((head.method.encode(), head.target, parser.take_body()))
                if not head.keep_alive:
                    return messages, "closed"
                parser.next_message()
    except ProtocolError:
        return messages, "refused"
    return messages, "open"


def theirs(data: bytes) -> list[Message] | None:
    """The messages as h11 finds them, None as soon as it refuses or stops at something."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    connection.receive_data(data)
    messages: list[Message] = []
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                line = (event.method, event.target)
                content = b""
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                messages.append((*line, content))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return messages
                connection.start_next_cycle()
            else:
                return messages
    except h11.ProtocolError:
        return None


def check(data: bytes, rng: random.Random) -> None:
    whole = ours([data])
    step = rng.randint(1, max(1, len(data)))
    assert ours([data[at : at + step] for at in range(0, len(data), step)]) == whole, f"split by {step}"
    messages, end = whole
    other = theirs(data)
    if other is not None and end != "refused":
        both = min(len(messages), len(other))
        assert messages[:both] == other[:both], f"h11 finds {other}"
    frames(data, rng)


def frames(data: bytes, rng: random.Random) -> None:
    receiver = Receiver(1000, Deflate(Agreement()) if rng.random() < 0.5 else None)
    step = rng.randint(1, max(1, len(data)))
    ended = False
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        while piece or receiver.has_more:
            for kind, _ in receiver.feed(piece):
                assert not ended
                ended = kind in (CLOSE, FAIL)
            piece = b""


def mutate(rng: random.Random) -> bytes:
    data = bytearray(b"".join(rng.choice(CORPUS) for _ in range(rng.choice((1, 1, 1, 2, 3)))))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        at = rng.randint(0, len(data))
        choice = rng.random()
        if choice < 0.35:
            data[at:at] = rng.choice(TOKENS)
        elif choice < 0.55:
            del data[at : at + rng.randint(1, 4)]
        elif choice < 0.75:
            data[at : at + 1] = bytes((rng.randrange(256),))
        elif choice < 0.9:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        else:
            other = rng.choice(CORPUS)
            data[at:] = other[rng.randint(0, len(other)) :]
    return bytes(data)


def run(seconds: float, seed: int, rounds: int | None = None) -> int:
    """Fuzz until ``seconds`` or ``rounds`` are over; how many inputs were tried. Raises ``AssertionError``."""
    rng = random.Random(seed)
    deadline = time.monotonic() + seconds
    tried = 0
    inputs: Any = iter(FOUND)
    while time.monotonic() < deadline and (rounds is None or tried < rounds):
        data = next(inputs, None) or mutate(rng)
        try:
            check(data, rng)
        except Exception as exc:
            raise AssertionError(f"seed {seed}, input {tried}: {data!r}: {type(exc).__name__}: {exc}") from exc
        tried += 1
    return tried


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = options.parse_args()
    print(f"seed {given.seed}")
    print(f"{run(given.seconds, given.seed)} inputs, nothing found")


if __name__ == "__main__":
    main()
