"""The daemon's status as Prometheus metrics, in the names that its guide asks for. Read when asked, kept nowhere.

Labels are bounded by the configuration: ``app`` is a static app or a template, never one of the apps that requests have
made of it; causes and codes are from fixed lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..daemon.apps.metrics.asking import Counted
from .models import AppModel, Status, TemplateModel

_END = b"# EOF\n"
"""Of OpenMetrics."""
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# Of these a zero is told as well: what appears with its first count has not increased, to Prometheus.
_REFUSALS = dict.fromkeys(
    (*("capacity", "crashed", "deadline", "import-failed", "in-flight-full", "no-link", "queue-full", "resources"),
     *("start-timeout", "bad-response", "worker-gone")), 0
)  # fmt: skip
_RESTARTS = dict.fromkeys(("crashed", "deadline", "import-failed", "max_memory", "memory", "start-timeout"), 0)
_WORKER_STATES = ("starting", "ready", "draining", "ending")


def render(status: Status, accept: str, *, is_ready: bool, counted: Counted) -> tuple[bytes, str]:
    """The text of all metrics, and its media type, in the form that a scraper accepts. To be called in a thread."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(status, is_ready, counted.left_out))
    encode, media_type = choose_encoder(accept)
    text = encode(registry).removesuffix(_END)
    return text + counted.text + (_END if is_open(accept) else b""), media_type


def is_open(accept: str) -> bool:
    """Whether a scraper accepts OpenMetrics."""
    return choose_encoder(accept)[1].startswith("application/openmetrics-text")


class _Group:
    """An app, or a template with all that was made of it."""

    def __init__(self, of: AppModel | TemplateModel, apps: Sequence[AppModel]) -> None:
        self.name = of.name
        self.of = of
        self.traffic = of.traffic
        self.apps = apps
        self.workers = [worker for app in apps for worker in app.workers]

    def sum(self, field: str) -> int:
        """Of all its apps."""
        return sum(getattr(app, field) for app in self.apps)


_BY_APP: Sequence[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[_Group], float]]] = (
    (CounterMetricFamily, "http_requests", "Requests that were answered.", lambda of: of.traffic.requests),
    (CounterMetricFamily, "http_request_errors",
     "Requests that were answered with 5xx, by the app or in its place, or cut.", lambda of: of.traffic.errors),
    (CounterMetricFamily, "http_request_exceptions", "Requests that the app ended with an exception.",
     lambda of: of.traffic.exceptions),
    (CounterMetricFamily, "http_request_body_bytes", "Bytes of request bodies.", lambda of: of.traffic.bytes_in),
    (CounterMetricFamily, "http_response_body_bytes", "Bytes of response bodies.", lambda of: of.traffic.bytes_out),
    (GaugeMetricFamily, "http_requests_in_flight", "Requests being answered.", lambda of: of.sum("in_flight")),
    (GaugeMetricFamily, "queue_length", "Connections and requests that no worker has taken yet.",
     lambda of: of.sum("waiting")),
    (GaugeMetricFamily, "connections", "Connections that workers hold.", lambda of: of.sum("connections")),
    (GaugeMetricFamily, "websockets", "WebSockets that are open.", lambda of: of.sum("websockets")),
    (GaugeMetricFamily, "workers_wanted", "Workers that there should be.", lambda of: of.sum("workers_wanted")),
    (GaugeMetricFamily, "worker_memory_bytes", "Resident memory of workers.",
     lambda of: sum({worker.pid: worker.memory_bytes for worker in of.workers}.values())),
    (GaugeMetricFamily, "worker_blocked_seconds",
     "For how long the worker that is blocked for longest has begun no request.",
     lambda of: max((worker.blocked_s or 0.0 for worker in of.workers), default=0.0)),
    (CounterMetricFamily, "worker_cpu_seconds", "Processor time of workers.", lambda of: of.of.cpu_s),
    (GaugeMetricFamily, "build_refused",
     "1 when what was tried last does not start, and something older runs, or nothing.",
     lambda of: any(app.refused is not None for app in of.apps)),
)  # fmt: skip

Rows = Iterable[tuple[Sequence[str], float]]
"""Values of labels, and the value."""


class _Collector(Collector):
    """Of one status."""

    def __init__(self, status: Status, is_ready: bool, left_out: Mapping[str, int]) -> None:
        self._status = status
        self._is_ready = is_ready
        self._left_out = left_out
        self._groups = [_Group(app, [app]) for app in status.apps if app.template is None]
        self._static = len(self._groups)
        for template in status.templates:
            self._groups.append(_Group(template, [app for app in status.apps if app.template == template.name]))

    def describe(self) -> Iterable[Metric]:
        """Nothing is registered twice here, so nothing is asked for ahead."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for kind, name, about, value in _BY_APP:
            rows: Rows = [([group.name], float(value(group))) for group in self._groups]
            yield _told(kind, name, about, ["app"], rows)
        yield from self._traffic()
        yield from self._workers()
        yield from self._beside()
        yield from self._daemon()

    def _traffic(self) -> Iterator[Metric]:
        groups, status = self._groups, self._status
        yield _counters("http_responses", "Responses by class of status.", ["app", "class"], (
            ([group.name, name], count)
            for group in groups
            for name, count in zip(_CLASSES, group.traffic.responses, strict=True)
        ))  # fmt: skip
        yield _counters(
            "http_refusals", "Requests that were answered in the place of an app, or cut.", ["app", "code"], (
            ([group.name, code], count)
            for group in groups
            for code, count in sorted((_REFUSALS | group.of.refusals).items())
        ))  # fmt: skip
        durations = _histogram(
            "http_request_duration_seconds", "From the call of the app to the end of its response.", ["app"]
        )
        queues = _histogram("request_queue_seconds", "From the arrival of a request until the app was called.", ["app"])
        for group in groups:
            told, label = group.traffic, [group.name]
            _add_histogram(durations, label, status.latency_bounds_s, told.latencies, told.latency_sum_us / 1e6)
            _add_histogram(queues, label, status.queue_bounds_s, told.queues, told.queue_sum_us / 1e6)
        yield durations
        yield queues
        yield _gauges(
            "app_metrics_left_out", "Values of an app's own metrics that are not told here.", ["app"],
            (([app], count) for app, count in sorted(self._left_out.items())),
        )  # fmt: skip

    def _workers(self) -> Iterator[Metric]:
        groups = self._groups
        yield _gauges("workers", "Workers by state.", ["app", "state"], (
            ([group.name, state], sum(worker.state == state for worker in group.workers))
            for group in groups
            for state in _WORKER_STATES
        ))  # fmt: skip
        yield _counters(
            "worker_restarts", "Workers that were replaced, or tried again, by cause.", ["app", "cause"], (
            ([group.name, cause], count)
            for group in groups
            for cause, count in sorted((_RESTARTS | group.of.restarts).items())
        ))  # fmt: skip
        starts = _histogram("worker_start_duration_seconds", "From the start of a worker to ready.", ["app"])
        for group in groups:
            its = group.of.starts
            _add_histogram(starts, [group.name], its.bounds_s, its.counts, its.sum_s)
        yield starts
        yield _counters("app_verdicts", "Trials of new builds by what became of them.", ["app", "verdict"], (
            ([group.name, verdict], sum(app.verdicts.get(verdict, 0) for app in group.apps))
            for group in groups
            for verdict in ("promoted", "returned")
        ))  # fmt: skip
        yield _counters("builds", "What was tried to be run, by result.", ["app", "result"], (
            ([group.name, result], group.sum(f"builds_{result}"))
            for group in groups[: self._static]
            for result in ("accepted", "refused")
        ))  # fmt: skip
        templates = self._status.templates
        yield _gauges("template_apps", "Dynamic apps by state.", ["app", "state"], (
            ([template.name, state], getattr(template, state))
            for template in templates
            for state in ("live", "starting", "leaving")
        ))  # fmt: skip
        most = (([template.name], template.capacity) for template in templates)
        yield _gauges("template_apps_max", "As many may live at a time.", ["app"], most)

    def _beside(self) -> Iterator[Metric]:
        """Processes and schedules."""
        running = Counter[tuple[str, str, str]]()
        restarts = Counter[tuple[str, str]]()
        schedules = []
        templates = {template.name: template.schedules for template in self._status.templates}
        for group in self._groups:
            for each in (each for app in group.apps for each in app.processes):
                running[group.name, each.name, "leaving" if each.is_leaving else each.state] += 1
                restarts[group.name, each.name] += each.restarts
            its = templates.get(group.name) or [each for app in group.apps for each in app.schedules]
            schedules += [([group.name, each.name], each) for each in its]
        yield _gauges("processes", "Processes by state.", ["app", "process", "state"], sorted(running.items()))
        about = "Processes that were started again."
        yield _counters("process_restarts", about, ["app", "process"], sorted(restarts.items()))
        labels = ["app", "schedule"]
        upcoming = ((names, each.next_at or 0.0) for names, each in schedules)
        yield _gauges("schedule_next_run_timestamp_seconds", "When it is due next.", labels, upcoming)
        good = ((names, each.last_run.ok) for names, each in schedules if each.last_run is not None)
        yield _gauges("schedule_last_run_success", "1 when its last run ended well.", labels, good)
        skipped = ((names, each.skipped + each.missed) for names, each in schedules)
        yield _counters("schedule_left_out", "Times that were skipped or missed.", labels, skipped)

    def _daemon(self) -> Iterator[Metric]:
        """And its relays."""
        daemon, relays, traffic = self._status.daemon, self._status.relays, self._status.relay_traffic
        passed_on = zip(([name] for name in _CLASSES), traffic.responses, strict=True)
        yield _counters("relay_responses", "Responses that relays passed on, or gave, by class.", ["class"], passed_on)
        durations = _histogram(
            "relay_request_duration_seconds", "From the head of a request to the end of its response.", []
        )
        _add_histogram(durations, [], self._status.latency_bounds_s, traffic.latencies, traffic.latency_sum_us / 1e6)
        yield durations
        failures = "Requests that no worker answered, or not to the end."
        yield _counters("relay_failures", failures, [], [([], traffic.exceptions)])
        info = [([daemon.version, daemon.python], 1)]
        yield _gauges("build_info", "What runs.", ["version", "python"], info)
        reloads = [(["accepted"], daemon.reloads_accepted), (["refused"], daemon.reloads_refused)]
        yield _counters("config_reloads", "Reloads by result.", ["result"], reloads)
        for name, about, value in (
            ("relays", "Relay processes.", len(relays)),
            ("relay_requests_in_flight", "Requests in relays.", sum(relay.in_flight for relay in relays)),
            ("relay_memory_bytes", "Resident memory of relays.", sum(relay.memory_bytes for relay in relays)),
            ("ready", "1 when every static app has a worker.", self._is_ready),
            ("config_last_reload_successful", "1 unless the last was refused.", daemon.refused is None),
            ("config_last_reload_success_timestamp_seconds", "When a configuration was carried out last.",
             daemon.last_reload_at or 0),
            ("daemon_connections", "Connections that the daemon keeps track of.", daemon.connections),
        ):  # fmt: skip
            yield _gauges(name, about, [], [([], value)])


def _told(
    kind: type[CounterMetricFamily | GaugeMetricFamily], name: str, about: str, labels: Sequence[str], rows: Rows
) -> Metric:
    family = kind(f"caddysnake_{name}", about, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


_counters = partial(_told, CounterMetricFamily)
_gauges = partial(_told, GaugeMetricFamily)


def _histogram(name: str, about: str, labels: Sequence[str]) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"caddysnake_{name}", about, labels=labels)


def _add_histogram(
    family: HistogramMetricFamily, labels: Sequence[str], bounds: Sequence[float], counts: Sequence[int], total: float
) -> None:
    reached = list(accumulate(counts))
    names = [*(f"{bound:g}" if bound % 1 else f"{bound:.1f}" for bound in bounds), "+Inf"]
    family.add_metric(labels, buckets=list(zip(names, reached, strict=True)), sum_value=total)
