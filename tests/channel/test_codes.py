"""One table of stable codes: what the source answers, and why it says that workers end, is in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from caddysnake.channel import codes
from caddysnake.channel.codes import CAUSES, FAILURES, STATUS
from caddysnake.http1.errors import BREACHES

ROOT = Path(__file__).resolve().parents[2]
_ANSWERS = {"Answer", "ProtocolError", "Refusal", "failed", "plain"}
_FAILS = {"AppError", "Failed", "Reason", "SpawnError", "failed"}
_COUNTS = {"restarted"}


def calls(*folders: str) -> Iterator[tuple[str, str, list[object]]]:
    """Each call that has written-down arguments: where, of what, which."""
    for folder in folders:
        for path in sorted((ROOT / "caddysnake" / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Call) and node.args:
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    said = [each.value if isinstance(each, ast.Constant) else None for each in node.args]
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", name, said


def test_every_answer_has_the_status_of_the_table() -> None:
    found = [
        (where, said[0], said[1])
        for where, name, said in calls("daemon", "relay", "worker", "http1")
        if name in _ANSWERS and len(said) > 1 and isinstance(said[0], int) and isinstance(said[1], str)
    ]
    assert len(found) > 30
    assert [each for each in found if each[2] not in BREACHES and STATUS.get(each[2]) != each[1]] == []


def test_every_cause_is_in_the_table() -> None:
    found = []
    for where, name, said in calls("daemon", "worker"):
        at = 1 if name == "StartFailed" else 0
        if name in {*_FAILS, *_COUNTS, "StartFailed"} and len(said) > at and isinstance(said[at], str):
            found.append((where, said[at]))
    assert len(found) > 20
    assert [each for each in found if each[1] not in CAUSES | {"", "caddy"}] == []


def test_what_a_worker_or_a_former_version_says_is_one_of_the_table() -> None:
    assert codes.failure("crashed") == "crashed"
    assert codes.failure("import") == "import-failed"
    assert codes.failure("healthy") == codes.failure("\x1b[2J") == "import-failed"
    assert codes.cause("request_timeout") == codes.cause("deadline") == "deadline"
    assert codes.cause("a tenant's own word") == "other"
    assert {codes.today(each) for each in FAILURES} == set(FAILURES)
