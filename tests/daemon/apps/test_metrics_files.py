"""What apps count: files of the real prometheus-client, read without it, and what anybody else may write there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from caddysnake.daemon.apps.metrics.asking import AppMetrics, Counted, MetricsPlace
from caddysnake.daemon.apps.metrics.exposition import exposed
from caddysnake.daemon.apps.metrics.files import Kind, kind_of
from caddysnake.daemon.apps.metrics.folder import KEPT, collect
from caddysnake.daemon.apps.metrics.merging import ENTRIES_MAX, SERIES_MAX, Merged, Sample
from caddysnake.daemon.apps.metrics.remembering import Memory, kept_up

COUNTS = """
import os, sys, time
from prometheus_client import Counter, Gauge, Histogram, Summary
n = float(sys.argv[1])
Counter("orders", "Orders, \\u00fc.", ["shop", "kind"]).labels("a b", 'quo"te').inc(n)
Counter("plain_total", "No labels.").inc(n)
Histogram("took_seconds", "Took.", ["path"], buckets=(0.1, 1, 5)).labels("/x").observe(n)
Summary("size_bytes", "Size.").observe(n)
for mode in ("all", "liveall", "min", "livemin", "max", "livemax", "sum", "livesum", "mostrecent", "livemostrecent"):
    Gauge(f"gauge_{mode}", "A gauge.", ["x"], multiprocess_mode=mode).labels("1").set(n)
print("done", flush=True)
sys.stdin.read()
"""


def counting(folder: Path, number: float) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTS, str(number)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"done\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()


def ours(root: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    merged = Merged()
    collect(str(root), merged)
    assert merged.left_out == 0
    return {(sample.name, frozenset(sample.labels)): sample.value for sample in merged.samples()}


def theirs(folder: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def test_it_comes_to_what_the_library_makes_of_the_same_files(tmp_path: Path) -> None:
    processes = [counting(tmp_path / "b1", number) for number in (0.5, 3, 7)]
    try:
        expected = theirs(tmp_path / "b1")
        found = ours(tmp_path)
        assert found == expected
        assert len(found) > 20
    finally:
        for process in processes:
            end(process)


def test_ended_processes_keep_their_counts_and_lose_what_is_of_the_living(tmp_path: Path) -> None:
    first, second = counting(tmp_path / "b1", 2), counting(tmp_path / "b2", 3)
    end(first)
    for _ in range(2):  # merged away the first time, found there the second
        found = ours(tmp_path)
        assert found["plain_total", frozenset()] == 5
        assert found["took_seconds_count", frozenset({("path", "/x")})] == 2
        assert found["size_bytes_sum", frozenset()] == 5
        one = frozenset({("x", "1")})
        assert [found[f"gauge_{mode}", one] for mode in ("min", "max", "sum")] == [2, 3, 5]
        assert [found[f"gauge_{mode}", one] for mode in ("livemin", "livemax", "livesum")] == [3, 3, 3]
        pids = {dict(labels).get("pid") for name, labels in found if name == "gauge_all"}
        assert pids == {str(first.pid), str(second.pid)}
        assert {dict(labels)["pid"] for name, labels in found if name == "gauge_liveall"} == {str(second.pid)}
    assert not list((tmp_path / "b1").iterdir())
    end(second)
    assert ours(tmp_path)["plain_total", frozenset()] == 5
    assert ours(tmp_path)["plain_total", frozenset()] == 5
    assert [each.name for each in tmp_path.rglob("*") if each.is_file()] == [KEPT]


def test_a_merge_that_was_cut_short_counts_nothing_twice(tmp_path: Path) -> None:
    process = counting(tmp_path / "b1", 2)
    end(process)
    saved = {each: tmp_path / each.name for each in (tmp_path / "b1").iterdir()}
    for path, link in saved.items():
        link.hardlink_to(path)
    assert ours(tmp_path)["plain_total", frozenset()] == 2
    for path, link in saved.items():
        path.hardlink_to(link)  # as if it had been ended before it removed them
    for _ in range(2):
        assert ours(tmp_path)["plain_total", frozenset()] == 2
    for path, link in saved.items():
        path.write_bytes(link.read_bytes())  # and another process had the same number
    assert ours(tmp_path)["plain_total", frozenset()] == 4


def entry(key: Any, value: float = 1.0) -> bytes:
    encoded = key if isinstance(key, bytes) else json.dumps(key).encode()
    padding = b" " * (8 - (len(encoded) + 4) % 8)
    return struct.pack("=i", len(encoded)) + encoded + padding + struct.pack("=dd", value, 0)


def file(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("=ii", 8 + len(body), 0) + body


GOOD = entry(["a", "a_total", {}, "A."])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 4, b"\xff" * 64, file(), struct.pack("=ii", -5, 0) + GOOD, file(struct.pack("=i", 1 << 30)),
        file(entry(b"{")), file(entry(b"[" * 5000)), file(entry(["a"])), file(entry(["a", "a_total", [], "A."])),
        file(entry(["a", "b_total", {}, "A."])), file(entry(["a b", "a b_total", {}, "A."])),
        file(entry(["a", "a_total", {"__name__": "x"}, "A."])), file(entry(["a", "a_total", {"no-label": "x"}, "A."])),
        file(entry(["a", "a_total", {f"l{n}": "x" for n in range(50)}, "A."])),
        file(entry(["a", "a_total", {}, "A."], float("nan"))), file(entry(["a", "a_total", {}, "A."], -1)),
        file(entry(["a", "a_total", {}, "A."], float("inf"))), file(entry([1, 2, 3, 4])),
        file(entry(["caddysnake_a", "caddysnake_a_total", {}, "A."])),
        file(entry(["a", "a_total", {"x": "y" * 4000}, ""])),
    ],
)  # fmt: skip
def test_what_is_no_proper_value_is_left_out(data: bytes) -> None:
    merged = Merged()
    merged.read(data, Kind("counter", "", False, 1))
    assert merged.samples() == []


def test_whatever_is_told_prometheus_can_read(tmp_path: Path) -> None:
    """By the library's two parsers, which refuse more than Prometheus does, and by promtool where it is there."""
    mine = os.getpid()
    files = {
        "counter": [
            entry(b'["s", "s_total", {"a": "\\ud800", "b": "\\n\\"\\\\"}, "\\udfff"]'),
            entry(["o", "o_total", {}, "A\n\"b"]),
            entry(["s", "s_total", {"app": "x", "exported_app": "y"}, ""]), entry(["up", "up_total", {}, ""], 1e22),
        ],
        "histogram": [
            *(
                entry(["h", "h_bucket", {"le": le}, ""])
                for le in ("nan", " 1 ", "1_0", "1", "1.0", "inf", "1000000", "x")
            ),
            entry(["h", "h_bucket", {"le": "5"}, ""], 0.5), entry(["h", "h_sum", {}, ""], 2.5),
            entry(["no_sum", "no_sum_bucket", {"le": "1.0"}, ""]), entry(["h", "h_sum", {"le": "1"}, ""]),
        ],
        "summary": [
            entry(["q", "q_count", {"quantile": "x"}, ""]), entry(["z", "z_count", {}, ""]),
            entry(["z", "z_sum", {}, ""]),
        ],
        "gauge_all": [
            entry([name, name, {"pid": "me"}, ""], float("nan")) for name in ("o_total", "h_count", "z_created")
        ],
        "gauge_max": [entry(["o", "o", {}, ""]), entry(["m", "m", {}, ""], float("inf"))],
        "gauge_min": [entry(["m", "m", {}, ""], float("-inf"))],
    }  # fmt: skip
    (tmp_path / "b1").mkdir()
    for kind, entries in files.items():
        (tmp_path / "b1" / f"{kind}_{mine}.db").write_bytes(file(*entries))
    merged = Merged()
    collect(str(tmp_path), merged)
    told = {"one": merged.samples(), "two": [Sample("gauge", "z_sum", "", "z_sum", (), 1.0)]}
    for is_open in (False, True):
        text, _, left_out = exposed(told, is_open)
        parse = openmetrics.text_string_to_metric_families if is_open else text_string_to_metric_families
        samples = [each for family in parse(text + ("# EOF\n" if is_open else "")) for each in family.samples]
        names = {each.name for each in samples}
        assert {"s_total", "up_total", "h_bucket", "h_count", "h_sum", "m"} <= names
        assert "no_sum_count" not in names
        assert left_out["one"] >= 1
        assert [each.labels["le"] for each in samples if each.name == "h_bucket"] == ["1.0", "10.0", "1e+06", "+Inf"]
        assert {each.labels.get("exported_exported_app") for each in samples} == {None, "y"}
        assert len({(each.name, *sorted(each.labels.items())) for each in samples}) == len(samples)
        if not is_open and (promtool := shutil.which("promtool")):
            asked = [promtool, "check", "metrics"]
            done = subprocess.run(asked, input=text, text=True, capture_output=True, check=False)
            assert done.returncode in (0, 3), done.stderr  # 3: bad style
            assert "error" not in done.stderr.lower()


def test_of_what_comes_and_goes_no_counter_does() -> None:
    def of(name: str, value: float) -> Sample:
        return Sample("counter", "a", "", name, (("x", "1"),), value)

    memory: Memory = {}
    assert kept_up([of("a_total", 5), of("b_total", 1)], memory) == [of("a_total", 5), of("b_total", 1)]
    memory = json.loads(json.dumps(memory))
    assert kept_up([of("a_total", 2)], memory) == [of("a_total", 5), of("b_total", 1)]
    assert kept_up([], memory) == [of("a_total", 5), of("b_total", 1)]
    assert kept_up([of("b_total", 3), of("a_total", 1)], memory) == [of("b_total", 4), of("a_total", 6)]


def test_a_flood_of_one_app_is_bounded_told_and_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    mine = os.getpid()
    for app, entries in (
        ("good", [GOOD]),
        ("bad", [entry(["f", "f_total", {"n": str(n)}, ""]) for n in range(ENTRIES_MAX + 1000)]),
    ):
        (tmp_path / app / "metrics" / "b1").mkdir(parents=True)
        (tmp_path / app / "metrics" / "b1" / f"counter_{mine}.db").write_bytes(file(*entries))
    with (tmp_path / "bad" / "metrics" / "b1" / "counter_1.db").open("wb") as huge:
        huge.write(struct.pack("=ii", (1 << 31) - 1, 0))
        huge.truncate(1 << 40)
    places = [MetricsPlace(app, str(tmp_path / app), None) for app in ("good", "bad")]

    async def collected() -> Counted:
        return await AppMetrics().collect(places, [], is_open=False)

    counted = asyncio.run(collected())
    assert b'a_total{app="good"} 1.0' in counted.text
    assert counted.text.count(b"f_total{") == SERIES_MAX
    assert counted.left_out["bad"] >= ENTRIES_MAX - SERIES_MAX
    assert counted.left_out["good"] == 0


def test_names_of_files_say_what_they_hold() -> None:
    assert kind_of("gauge_livesum_12.db") == Kind("gauge", "sum", True, 12)
    for name in ("gauge_12.db", "gauge_mean_1.db", "counter_x.db", "counter_1.db.tmp", "../counter_1.db", "counter_.d"):
        assert kind_of(name) is None, name


def test_no_link_pipe_or_flood_of_an_app_harms_who_reads(tmp_path: Path) -> None:
    build = tmp_path / "b1"
    build.mkdir()
    secret = tmp_path.parent / "secret.db"
    secret.write_bytes(file(entry(["stolen", "stolen_total", {}, ""])))
    mine = os.getpid()
    (build / f"counter_{mine}.db").symlink_to(secret)
    os.mkfifo(build / f"summary_{mine}.db")
    (build / f"histogram_{mine}.db").mkdir()
    with (build / "counter_1.db").open("wb") as huge:
        huge.truncate(1 << 40)
    with (build / "gauge_all_1.db").open("wb") as huge:
        huge.write(struct.pack("=ii", 1 << 30, 0))
        huge.truncate(1 << 40)
    (tmp_path / "b2").symlink_to("/proc")
    flood = [entry(["f", "f_total", {"n": str(n)}, ""]) for n in range(8000)]
    (tmp_path / "b3").mkdir()
    (tmp_path / "b3" / f"counter_{mine}.db").write_bytes(file(*flood))
    merged = Merged()
    collect(str(tmp_path), merged)
    assert {sample.metric for sample in merged.samples()} == {"f"}
    assert len(merged.samples()) == 5000
    assert merged.left_out == 3000 + 3, "a link, a folder, and what is too large"
    root = tmp_path.parent / "in its place"
    root.symlink_to(tmp_path)  # a neighbour's, where what is empty and what has ended would be removed
    (tmp_path / "empty").mkdir()
    os.utime(tmp_path / "empty", (1, 1))
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        collect(str(root), Merged())
    assert (tmp_path / "empty").is_dir()
