"""Prometheus metrics of a real daemon, read with Prometheus' own parser."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from support.admin import call, command
from support.daemon import PATIENCE_S, Process, daemon, eventually, get
from support.load import app

pytestmark = pytest.mark.system

SITES = """unix/x.sock {
	python {
		module_wsgi main:wsgi
		workers 2
	}
}
unix/t.sock {
	python {
		module_wsgi main:wsgi
		working_dir {host}
	}
}
"""
APP, TEMPLATE = "main:wsgi", "{http.request.host}/main:wsgi"
DOCUMENTS = Path(__file__).parents[2] / "docs" / "monitoring"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in ("", "ann.test", "ben.test"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "main.py").write_text(app("1"))
    return tmp_path


def scrape(process: Process) -> Samples:
    answer = call(process, "GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def test_everything_is_measured_and_no_counter_goes_back(folder: Path) -> None:
    with daemon(folder, SITES) as process:
        for _ in range(7):
            assert get("/", path=folder / "x.sock")[0] == 200
        for host, status in (("ann.test", 200), ("ben.test", 200), ("none.test", 404)):
            assert get("/", path=folder / "t.sock", Host=host)[0] == status
        # A thread counts what it has answered when it waits for more.
        eventually(lambda: of(scrape(process), "caddysnake_http_requests_total", app=TEMPLATE) == 2, process)
        eventually(lambda: of(scrape(process), "caddysnake_http_requests_total", app=APP) == 7, process)
        first = scrape(process)
        assert of(first, "caddysnake_http_requests_total", app=APP) == 7
        assert of(first, "caddysnake_http_responses_total", app=APP, **{"class": "2xx"}) == 7
        assert of(first, "caddysnake_http_request_duration_seconds_count", app=APP) == 7
        assert of(first, "caddysnake_http_request_duration_seconds_bucket", app=APP, le="+Inf") == 7
        assert of(first, "caddysnake_http_request_duration_seconds_bucket", app=APP, le="10.0") == 7
        assert 0 < of(first, "caddysnake_http_request_duration_seconds_sum", app=APP) < PATIENCE_S
        assert of(first, "caddysnake_http_requests_total", app=TEMPLATE) == 2
        assert of(first, "caddysnake_http_refusals_total", app=TEMPLATE, code="no-such-app") == 1
        assert of(first, "caddysnake_workers", app=APP, state="ready") == 2
        assert of(first, "caddysnake_workers_wanted", app=APP) == 2
        assert of(first, "caddysnake_template_apps", app=TEMPLATE, state="live") == 2
        assert of(first, "caddysnake_worker_start_duration_seconds_count", app=APP) == 2
        assert of(first, "caddysnake_worker_memory_bytes", app=APP) > 1_000_000
        assert of(first, "caddysnake_config_last_reload_successful") == 1
        assert of(first, "caddysnake_ready") == 1
        assert of(first, "caddysnake_relays") == 1
        assert of(first, "process_resident_memory_bytes") > 10_000_000
        assert of(first, "process_open_fds") > 5
        # Whatever tenants there are, a template is one.
        assert {dict(labels)["app"] for _, labels in first if "app" in dict(labels)} == {APP, TEMPLATE}

        (folder / "main.py").write_text(app("2"))
        command(process, folder, "reload", check=True)
        (folder / "main.py").write_text(app("3", "1/0\n"))
        assert command(process, folder, "reload").returncode == 1
        (folder / "main.py").write_text(app("4"))
        victim = call(process, "GET", f"/apps/{APP}").json["workers"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: of(scrape(process), "caddysnake_worker_restarts_total", app=APP, cause="crashed"), process)
        second = scrape(process)
        assert of(second, "caddysnake_relay_responses_total", **{"class": "2xx"}) == 2  # a relay writes every second
        assert of(second, "caddysnake_config_reloads_total", result="accepted") == 1
        assert of(second, "caddysnake_config_reloads_total", result="refused") == 1
        assert of(second, "caddysnake_config_last_reload_successful") == 0
        assert of(second, "caddysnake_build_refused", app=APP) == 1
        known = {name for name, _ in second} | {"up"}
        for document in ("grafana-dashboard.json", "alerts.yml"):
            text = (DOCUMENTS / document).read_text()
            named = set(re.findall(r"\b(?:caddysnake|process)_[a-z0-9_]+", text))
            assert len(named) > 5
            assert named <= known, named - known
        for (name, labels), value in first.items():
            if name.endswith(("_total", "_count", "_sum", "_bucket")) and not name.startswith("process_"):
                assert second[name, labels] >= value, (name, labels)


def test_the_open_form_is_given_when_it_is_asked_for(folder: Path) -> None:
    with daemon(folder, SITES) as process:
        accept = "application/openmetrics-text; version=1.0.0"
        answer = call(process, "GET", "/metrics", Accept=accept)
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        families = {family.name for family in parse_openmetrics(answer.body.decode())}
        assert "caddysnake_http_request_duration_seconds" in families
        assert call(process, "GET", "/metrics", Accept="nonsense;;;q=x, */*;q=").status == 200
