"""Folders of tenants, each of which names itself in every answer."""

from __future__ import annotations

import re
from pathlib import Path

ASGI = '''
import asyncio, hashlib, json, os, pathlib

HERE = pathlib.Path(__file__).parent
TENANT = os.environ.get("TENANT") or HERE.name
assert HERE.resolve() == pathlib.Path.cwd(), "an app runs in its own folder"

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{TENANT} {message['text']}"})
        return
    path = scope["path"]
    async def start(status=200):
        headers = [(b"tenant", TENANT.encode()), (b"pid", str(os.getpid()).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
    async def end(body=b"", more=False):
        await send({"type": "http.response.body", "body": body, "more_body": more})
    digest, size = hashlib.sha256(), 0
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if path.endswith("/stream"):
        await start()
        for number in range(5):
            await end(f"{TENANT} {number}\\n".encode(), more=True)
            await asyncio.sleep(0.01)
        await end()
    elif path.endswith("/hold"):
        (HERE / "held").touch()
        while not (HERE / "release").exists():
            await asyncio.sleep(0.01)
        await start()
        await end(TENANT.encode())
    elif path.endswith("/scope"):
        found = {name: scope[name] for name in ("path", "root_path")}
        found["headers"] = [name.decode() for name, _ in scope["headers"]]
        await start()
        await end(json.dumps(found).encode())
    else:
        await start()
        await end(f"{TENANT} {size} {digest.hexdigest()}".encode())
'''

WSGI = '''
import hashlib, json, os, pathlib, time

HERE = pathlib.Path(__file__).parent
TENANT = os.environ.get("TENANT") or HERE.name
assert HERE.resolve() == pathlib.Path.cwd(), "an app runs in its own folder"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    content = environ["wsgi.input"].read()
    start_response("200 OK", [("Tenant", TENANT), ("Pid", str(os.getpid()))])
    if path.endswith("/stream"):
        return (f"{TENANT} {number}\\n".encode() for number in range(5))
    if path.endswith("/hold"):
        (HERE / "held").touch()
        while not (HERE / "release").exists():
            time.sleep(0.01)
        return [TENANT.encode()]
    if path.endswith("/scope"):
        found = {"path": path, "root_path": environ["SCRIPT_NAME"]}
        found["headers"] = [name for name in environ if name.startswith("HTTP_")]
        return [json.dumps(found).encode()]
    return [f"{TENANT} {len(content)} {hashlib.sha256(content).hexdigest()}".encode()]
'''

SOURCES = {"asgi": ASGI, "wsgi": WSGI}


def settle(root: Path, *names: str, interface: str = "asgi", source: str | None = None, module: str = "main") -> None:
    """Make ``root/NAME/main.py`` for each tenant."""
    for name in names:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{module}.py").write_text(source or SOURCES[interface])


def block(root: Path, *lines: str, interface: str = "asgi", matcher: str = "") -> str:
    """A python block for the tenants in ``root``, by the first label of hosts such as a.tenants.test."""
    settings = (
        f"module_{interface} main:app",
        f'working_dir "{root}/{{http.request.host.labels.2}}"',
        "env_var TENANT {http.request.host.labels.2}",
        *lines,
    )
    head = f"python {matcher} {{".replace("  ", " ")
    return head + "\n" + "".join(f"\t\t{line}\n" for line in settings) + "\t}"


def site(socket: str, *blocks: str) -> str:
    """A site on ``socket``, a path."""
    return f"unix/{socket} {{\n" + "".join(f"\t{each}\n" for each in blocks) + "}\n"


def count(log: str, message: str) -> int:
    """How many records of the log have this message."""
    return len(re.findall(f'"msg":"{re.escape(message)}"', log))
