"""What apps count with prometheus-client, over all their workers, in the daemon's own /metrics."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.admin import call, command
from support.daemon import Process, daemon, eventually, get, workers
from support.tenants import ALICE, BOB, Public, give, needs_root, public_folder

pytestmark = pytest.mark.system

SITE_PACKAGES = str(Path(prometheus_client.__file__).parents[1])
APP = """
import os
from prometheus_client import Counter, Gauge, Histogram
ORDERS = Counter("orders", "Orders.", ["app", "kind"])
OPEN = Gauge("carts_open", "Carts.", multiprocess_mode="livesum")
TOOK = Histogram("took_seconds", "Took.", buckets=(1, 2))
Counter("caddysnake_http_requests", "A name of the daemon's.").inc(1000)
OPEN.set(1)

def wsgi(environ, start_response):
    ORDERS.labels("x", "book").inc()
    TOOK.observe(1.5)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
BLOCK = """unix/{name}.sock {{
	python {{
		module_wsgi {name}:wsgi
		working_dir {where}
		workers 2
		{more}
	}}
}}
"""


def block(folder: Path, name: str, more: str = "", where: str | None = None) -> str:
    if where is None:
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(APP)
    more = more or "grace_period 5s"
    more += f"\n\t\tenv_var PYTHONPATH {SITE_PACKAGES}"
    return BLOCK.format(name=name, where=where or name, more=more)


def metrics(process: Process) -> dict[str, dict[str, float]]:
    """By sample, and by the label ``app``."""
    answer = call(process, "GET", "/metrics")
    assert answer.status == 200
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[sample.labels.get("app", "")] = sample.value
    return found


def test_counters_survive_ten_reloads_and_crashes_without_a_jump(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "shop")) as process:
        process.wait_for_log("admin API ready")
        assert metrics(process)["carts_open"] == {"shop:wsgi": 2}
        count, last = 0, 0.0
        for number in range(10):
            for _ in range(7):
                assert get("/", path=tmp_path / "shop.sock")[0] == 200
                count += 1
            if number % 2:
                assert metrics(process)["orders_total"] == {"shop:wsgi": count}
            if number == 5:
                for pid in workers(process.pid):
                    os.kill(pid, signal.SIGKILL)
                eventually(lambda: call(process, "GET", "/health/ready").json["status"] == "ok", "workers again")
            assert command(process, tmp_path, "reload").returncode == 0
            seen = metrics(process)["orders_total"]["shop:wsgi"]
            assert last <= seen == count
            last = seen
        eventually(lambda: metrics(process)["carts_open"] == {"shop:wsgi": 2}, "only those that live")
        found = metrics(process)
        assert found["took_seconds_count"] == found["orders_total"]
        assert found["took_seconds_sum"] == {"shop:wsgi": 1.5 * count}
        assert found["caddysnake_http_requests_total"] == {"shop:wsgi": count}, "the daemon's own"
        assert found["caddysnake_app_metrics_left_out"]["shop:wsgi"] > 0
        text = call(process, "GET", "/metrics").body.decode()
        assert f'orders_total{{app="shop:wsgi",exported_app="x",kind="book"}} {count}.0' in text
        assert 'took_seconds_bucket{app="shop:wsgi",le="2.0"}' in text
        files = list(Path(tempfile.gettempdir()).glob(f"caddysnake-{process.pid}-*/app-*/metrics/*/*.db"))
        assert 0 < len(files) <= 2 * 4, "what ended workers have left is merged away"


OFF = ["app_metrics off", "workers_runtime thread", "env_var PROMETHEUS_MULTIPROC_DIR {own}"]


@pytest.mark.parametrize("more", OFF)
def test_it_is_off_where_that_is_said_or_the_app_counts_elsewhere(tmp_path: Path, more: str) -> None:
    (tmp_path / "own").mkdir()
    with daemon(tmp_path, block(tmp_path, "shop", more.format(own=tmp_path / "own"))) as process:
        process.wait_for_log("admin API ready")
        assert get("/", path=tmp_path / "shop.sock")[0] == 200
        assert "orders_total" not in metrics(process)
        assert bool(list((tmp_path / "own").iterdir())) == ("env_var" in more)


HOSTILE = """
import os, struct
from pathlib import Path
folder = Path(os.environ['PROMETHEUS_MULTIPROC_DIR'])
if not (folder / 'counter_1.db').exists():
    os.mkfifo(folder / 'counter_1.db')
    (folder.parent / 'ended.json').symlink_to('/etc/shadow')
    (folder.parent / 'up').symlink_to('/')
(folder / f'summary_{os.getpid()}.db').write_bytes(struct.pack('=ii', 1 << 30, 0) + os.urandom(1 << 20))
(folder / f'gauge_all_{os.getpid()}.db').write_bytes(os.urandom(1 << 20))

def wsgi(environ, start_response):
    start_response('200 OK', [])
    return [b'ok']
"""


@needs_root
def test_apps_of_other_users_are_read_as_those_and_harm_nobody(public: Public) -> None:
    with public_folder() as folder:
        text = ""
        for name, uid, source in (("ann", ALICE, APP), ("ben", BOB, APP), ("bad", BOB + 1, HOSTILE)):
            (folder / name).mkdir()
            (folder / name / f"{name}.py").write_text(source)
            give(folder / name, uid)
            more = f"user {uid}\n\t\tpython_path {public.python}\n\t\tenv_var PYTHONPATH {public.site}"
            text += BLOCK.format(name=name, where=name, more=more)
        with daemon(folder, text, environ={"PYTHONPATH": public.site}) as process:
            process.wait_for_log("admin API ready")
            for name, count in (("ann", 3), ("ben", 4), ("bad", 1)):
                for _ in range(count):
                    assert get("/", path=folder / f"{name}.sock")[0] == 200
            found = metrics(process)
            assert found["orders_total"] == {"ann:wsgi": 3, "ben:wsgi": 4}
            assert found["carts_open"] == {"ann:wsgi": 2, "ben:wsgi": 2}
            kept = Path(tempfile.gettempdir()).glob(f"caddysnake-{process.pid}-*/app-*/metrics")
            assert {each.stat().st_uid for each in kept} == {ALICE, BOB, BOB + 1}


def test_of_tenants_that_come_and_go_no_counter_goes_back(tmp_path: Path) -> None:
    for host in ("ann.test", "ben.test"):
        (tmp_path / host).mkdir()
        (tmp_path / host / "shop.py").write_text(APP)
    with daemon(tmp_path, block(tmp_path, "shop", where="{host}")) as process:
        process.wait_for_log("admin API ready")
        for host, count in (("ann.test", 3), ("ben.test", 4)):
            for _ in range(count):
                assert get("/", path=tmp_path / "shop.sock", Host=host)[0] == 200
        (label,) = metrics(process)["orders_total"]
        assert metrics(process)["orders_total"] == {label: 7}
        assert call(process, "DELETE", "/apps/ben.test%20shop:wsgi").status == 200
        assert metrics(process)["orders_total"] == {label: 7}
        assert command(process, tmp_path, "upgrade").returncode == 0
        assert metrics(process)["orders_total"] == {label: 7}
        assert get("/", path=tmp_path / "shop.sock", Host="ben.test")[0] == 200
        assert metrics(process)["orders_total"] == {label: 8}
        for host in ("ann.test", "ben.test"):
            assert call(process, "DELETE", f"/apps/{host}%20shop:wsgi").status == 200
        assert metrics(process)["orders_total"] == {label: 8}, "of apps that are all asleep"


def test_many_who_scrape_at_once_see_the_same(tmp_path: Path) -> None:
    with daemon(tmp_path, block(tmp_path, "shop")) as process:
        process.wait_for_log("admin API ready")
        get("/", path=tmp_path / "shop.sock")
        seen: list[float] = []

        def scrape() -> None:
            seen.append(metrics(process)["orders_total"]["shop:wsgi"])

        scrapers = [threading.Thread(target=scrape) for _ in range(4)]
        for each in scrapers:
            each.start()
        for each in scrapers:
            each.join()
        assert seen == [1.0] * 4
