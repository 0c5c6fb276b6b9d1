"""What a block says of WebSockets holds on the wire."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.daemon import daemon
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

pytestmark = pytest.mark.system

APP = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(len(message["text"]))})
"""


def block(*lines: str) -> str:
    return "python {\nmodule_asgi main:app\nworkers 1\n" + "\n".join(lines) + "\n}"


def test_a_message_may_be_as_large_as_the_block_says(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    text = f"unix/{tmp_path}/s.sock {{\n{block('websocket_max_size 1000', 'websocket_ping off')}\n}}\n"
    with daemon(tmp_path, text), unix_connect(str(tmp_path / "s.sock"), "ws://x/", ping_interval=None) as client:
        client.send("x" * 1000)
        assert client.recv(60) == "1000"
        client.send("x" * 1001)
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(60)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1009


def test_a_client_that_gives_no_sign_of_life_is_closed_after_the_blocks_time(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    text = f"unix/{tmp_path}/s.sock {{\n{block('websocket_ping 100ms 200ms')}\n}}\n"
    with daemon(tmp_path, text), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(tmp_path / "s.sock"))
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        received = b""
        while more := client.recv(4096):
            received += more
        _, _, frames = received.partition(b"\r\n\r\n")
        assert frames.startswith(b"\x89\x00"), "a ping"
        assert frames[2:3] == b"\x88", "and, since nobody answers, a close"
        assert int.from_bytes(frames[4:6], "big") == 1011
