"""The example with many tenants, as it is, through a real Caddy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.daemon import daemon, free_port, get, workers

pytestmark = pytest.mark.system

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "tenants"


def test_the_tenants_of_the_example_are_served_by_name_and_by_path(tmp_path: Path) -> None:
    here = tmp_path / "e"
    shutil.copytree(EXAMPLE, here)
    port = free_port()
    with daemon(here, (here / "Caddyfile").read_text(), "--caddy", environ={"EXAMPLE_PORT": str(port)}) as process:
        assert workers(process.pid) == set()
        for host, target, tenant, framework, link in (
            ("ada.api.localhost", "/", "ada", "fastapi", "http://ada.api.localhost:{port}/notes"),
            ("bob.api.localhost", "/", "bob", "fastapi", "http://bob.api.localhost:{port}/notes"),
            ("cleo.shop.localhost", "/", "cleo", "flask", "http://cleo.shop.localhost:{port}/orders"),
            ("dan.shop.localhost", "/", "dan", "flask", "http://dan.shop.localhost:{port}/orders"),
            ("localhost", "/api/ada/", "ada", "fastapi", "http://localhost:{port}/api/ada/notes"),
            ("localhost", "/api/bob/", "bob", "fastapi", "http://localhost:{port}/api/bob/notes"),
        ):
            status, body = get(target, port, Host=f"{host}:{port}")
            found = json.loads(body)
            assert (status, found["tenant"], found["framework"]) == (200, tenant, framework)
            assert link.format(port=port) in found.values()
        assert len(workers(process.pid)) == 6
        for host, target in (("nobody.api.localhost", "/"), ("localhost", "/api/nobody/"), ("localhost", "/api/../x/")):
            assert get(target, port, Host=f"{host}:{port}")[0] == 404
        assert len(workers(process.pid)) == 6
