"""The apps of two tenants, one of whom means harm, behind a real daemon."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from support.daemon import PATIENCE_S, Process, below, daemon
from support.tenants import Public


class Estate:
    """The apps of Alice, who means harm, and of Bob, who has secrets, each on a socket of its own."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder = folder
        self.process = process

    def ask(self, name: str, target: str, **told: Any) -> Any:
        """What a function of an app returns."""
        body = json.dumps(told).encode()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            sock.connect(str(self.folder / f"{name}.sock"))
            head = f"POST /{target} HTTP/1.1\r\nHost: {name}.test\r\nContent-Length: {len(body)}\r\n"
            sock.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200"), answer + self.process.log.encode()
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def attack(self) -> Any:
        """What Alice gets when she reaches for all that is not hers."""
        bob = self.ask("bob", "who")
        alice = self.ask("alice", "who")
        processes = {
            "daemon": self.process.pid,
            "relay": self.relay(),
            "bob's worker": bob["pid"],
            "bob's fork server": bob["parent"],
            "own fork server": alice["parent"],
        }
        return self.ask(
            "alice",
            "attack",
            processes=processes,
            files=[str(self.folder / "bob" / "secret.txt"), str(self.folder / "bob" / "main.py")],
            folders=[bob["tmp"], str(self.folder / "bob")],
            sockets=[str(self.folder / "bob.sock"), str(self.folder / "shared.sock")],
        )

    def relay(self) -> int:
        return min(below(self.process.pid, b"relay.main"))


def block(folder: Path, name: str, public: Public, *lines: str) -> str:
    inner = "".join(
        f"\t\t{line}\n"
        for line in ("module_wsgi main:app", f"working_dir {folder / name}", f"python_path {public.python}",
                     "workers 1", *lines)
    )  # fmt: skip
    return f"\tpython {{\n{inner}\t}}\n"


def caddyfile(folder: Path, public: Public, alice: tuple[str, ...], bob: tuple[str, ...], mode: str = "0600") -> str:
    """Each app on a socket of its own, and both behind one that is a relay's."""
    text = f"{{\n\tgrace_period 2s\n\tdefault_bind unix/{folder}/shared.sock|0600\n}}\n"
    for name, lines in (("alice", alice), ("bob", bob)):
        app = block(folder, name, public, *lines)
        text += f"unix/{folder}/{name}.sock|{mode} {{\n{app}}}\nhttp://{name}.test {{\n{app}}}\n"
    return text


def start(folder: Path, public: Public, text: str, *arguments: str) -> Any:
    return daemon(folder, text, *arguments, environ={"PYTHONPATH": public.site, "PYTHONDONTWRITEBYTECODE": "1"})
