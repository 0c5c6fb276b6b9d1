"""Whatever is sent to the admin API, it answers as its own description says, and never with 500."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.admin import call
from support.daemon import PATIENCE_S, daemon, free_port
from support.load import app

from caddysnake.admin.endpoints import ENDPOINTS

pytestmark = pytest.mark.system

SITES = """unix/x.sock {
	python {
		module_wsgi main:wsgi
		workers 1
		canary {
			share 1
			for 1s
			min_requests 1
		}
	}
}
unix/t.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
	}
}
"""
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = os.environ.get("CADDYSNAKE_FUZZ_EXAMPLES", "6")
"""For each endpoint. Hundreds take minutes."""


def test_it_keeps_to_its_description_whatever_is_sent(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(app("1"))
    port = free_port()
    # What is generated may be a Caddyfile; this address is not the file's to change.
    with daemon(tmp_path, SITES, "--admin", f"localhost:{port}") as process:
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "schemathesis"),
                "run",
                f"http://localhost:{port}/openapi.json",
                *("--exclude-path", "/stop", "--exclude-path", "/logs"),  # it ends; it goes on
                *("--phases", "coverage,fuzzing", "--checks", CHECKS),
                *("--max-examples", EXAMPLES, "--seed", "1", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * (1 + int(EXAMPLES) / 10),
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:]
        assert f"{len(ENDPOINTS) - 2} passed" in done.stdout
        assert call(port, "GET", "/health/live").status == 200
        assert "admin request failed" not in process.log
        assert "Traceback" not in process.log
