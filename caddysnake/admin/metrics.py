"""The daemon's status as Prometheus metrics, in the names that its guide asks for. Read when asked, kept nowhere.

Labels are bounded by the configuration: ``app`` is a static app or a template, never one of the apps that requests have
made of it; causes and codes are from fixed lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..daemon.apps.metrics.asking import Counted
from .models import AppModel, Status, TemplateModel, WorkerModel

_END = b"# EOF\n"
"""Of OpenMetrics."""
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
# Of these a zero is told as well: what appears with its first count has not increased, to Prometheus.
_REFUSALS = dict.fromkeys(
    (*("capacity", "crashed", "deadline", "import-failed", "no-link", "queue-full", "resources", "start-timeout"),
     *("bad-response", "worker-gone")), 0
)  # fmt: skip
_RESTARTS = dict.fromkeys(("crashed", "deadline", "import-failed", "max_memory", "memory", "start-timeout"), 0)
_WORKER_STATES = ("starting", "ready", "draining", "ending")


def render(
    status: Status, accept: str, *, is_ready: bool, counted: Counted
) -> tuple[bytes, str]:
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

    def __init__(self, name: str, of: AppModel | TemplateModel, apps: Sequence[AppModel]) -> None:
        self.labels = [name]
        self.traffic = of.traffic
        self.restarts = of.restarts
        self.refusals = of.refusals
        self.starts = of.starts
        self.cpu_s = of.cpu_s
        self.apps = apps

    @property
    def workers(self) -> Iterator[WorkerModel]:
        return (worker for app in self.apps for worker in app.workers)


def _groups(status: Status) -> list[_Group]:
    static = [app for app in status.apps if app.template is None]
    groups = [_Group(app.name, app, [app]) for app in static]
    for template in status.templates:
        groups.append(_Group(template.name, template, [app for app in status.apps if app.template == template.name]))
    return groups


class _Collector(Collector):
    """Of one status."""

    def __init__(self, status: Status, is_ready: bool, left_out: Mapping[str, int]) -> None:
        self._status = status
        self._is_ready = is_ready
        self._left_out = left_out

    def describe(self) -> Iterable[Metric]:
        """Nothing is registered twice here, so nothing is asked for ahead."""
        return ()

    def collect(self) -> Iterator[Metric]:
        groups = _groups(self._status)
        yield from self._traffic(groups)
        yield from self._workers(groups)
        yield from self._templates()
        yield from self._beside(groups)
        yield from self._relays()
        yield from self._daemon()
        left_out = GaugeMetricFamily(
            "caddysnake_app_metrics_left_out", "Values of an app's own metrics that are not told here.", labels=["app"]
        )
        for app, count in sorted(self._left_out.items()):
            left_out.add_metric([app], count)
        yield left_out

    def _traffic(self, groups: Sequence[_Group]) -> Iterator[Metric]:
        bounds = self._status.latency_bounds_s
        yield _counter("http_requests", "Requests that were answered.", groups, lambda of: of.traffic.requests)
        responses = CounterMetricFamily(
            "caddysnake_http_responses", "Responses by class of status.", labels=["app", "class"]
        )
        durations = HistogramMetricFamily(
            "caddysnake_http_request_duration_seconds",
            "From the call of the app to the end of its response.",
            labels=["app"],
        )
        queues = HistogramMetricFamily(
            "caddysnake_request_queue_seconds",
            "From the arrival of a request until the app was called.",
            labels=["app"],
        )
        refusals = CounterMetricFamily(
            "caddysnake_http_refusals",
            "Requests that were answered in the place of an app, or cut.",
            labels=["app", "code"],
        )
        for group in groups:
            for name, count in zip(_CLASSES, group.traffic.responses, strict=True):
                responses.add_metric([*group.labels, name], count)
            _add_histogram(durations, group.labels, bounds, group.traffic.latencies, group.traffic.latency_sum_us / 1e6)
            waited_s = group.traffic.queue_sum_us / 1e6
            _add_histogram(queues, group.labels, self._status.queue_bounds_s, group.traffic.queues, waited_s)
            for code, count in sorted((_REFUSALS | group.refusals).items()):
                refusals.add_metric([*group.labels, code], count)
        yield responses
        yield durations
        yield queues
        yield refusals
        yield _counter(
            "http_request_errors",
            "Requests that were answered with 5xx, by the app or in its place, or cut.",
            groups,
            lambda of: of.traffic.errors,
        )
        yield _counter("http_request_exceptions", "Requests that the app ended with an exception.", groups, _errors)
        yield _counter("http_request_body_bytes", "Bytes of request bodies.", groups, lambda of: of.traffic.bytes_in)
        yield _counter("http_response_body_bytes", "Bytes of response bodies.", groups, lambda of: of.traffic.bytes_out)
        yield _gauge("http_requests_in_flight", "Requests being answered.", groups, lambda of: _sum(of, "in_flight"))
        yield _gauge(
            "queue_length",
            "Connections and requests that no worker has taken yet.",
            groups,
            lambda of: _sum(of, "waiting"),
        )
        yield _gauge("connections", "Connections that workers hold.", groups, lambda of: _sum(of, "connections"))
        yield _gauge("websockets", "WebSockets that are open.", groups, lambda of: _sum(of, "websockets"))

    def _workers(self, groups: Sequence[_Group]) -> Iterator[Metric]:
        workers = GaugeMetricFamily("caddysnake_workers", "Workers by state.", labels=["app", "state"])
        restarts = CounterMetricFamily(
            "caddysnake_worker_restarts",
            "Workers that were replaced, or tried again, by cause.",
            labels=["app", "cause"],
        )
        starts = HistogramMetricFamily(
            "caddysnake_worker_start_duration_seconds", "From the start of a worker to ready.", labels=["app"]
        )
        for group in groups:
            states = Counter(worker.state for worker in group.workers)
            for state in _WORKER_STATES:
                workers.add_metric([*group.labels, state], states[state])
            for cause, count in sorted((_RESTARTS | group.restarts).items()):
                restarts.add_metric([*group.labels, cause], count)
            _add_histogram(starts, group.labels, group.starts.bounds_s, group.starts.counts, group.starts.sum_s)
        yield workers
        yield restarts
        yield starts
        verdicts = CounterMetricFamily(
            "caddysnake_app_verdicts", "Trials of new builds by what became of them.", labels=["app", "verdict"]
        )
        for group in groups:
            for verdict in ("promoted", "returned"):
                count = sum(app.verdicts.get(verdict, 0) for app in group.apps)
                verdicts.add_metric([*group.labels, verdict], count)
        yield verdicts
        yield _gauge("workers_wanted", "Workers that there should be.", groups, lambda of: _sum(of, "workers_wanted"))
        yield _gauge("worker_memory_bytes", "Resident memory of workers.", groups, _memory)
        yield _counter("worker_cpu_seconds", "Processor time of workers.", groups, lambda of: of.cpu_s)
        builds = CounterMetricFamily(
            "caddysnake_builds", "What was tried to be run, by result.", labels=["app", "result"]
        )
        for group in groups:
            if self._is_template(group):
                continue
            builds.add_metric([*group.labels, "accepted"], group.apps[0].builds_accepted)
            builds.add_metric([*group.labels, "refused"], group.apps[0].builds_refused)
        yield builds
        yield _gauge(
            "build_refused",
            "1 when what was tried last does not start, and something older runs, or nothing.",
            groups,
            lambda of: int(any(app.refused is not None for app in of.apps)),
        )

    def _is_template(self, group: _Group) -> bool:
        return group.labels[0] in {template.name for template in self._status.templates}

    def _beside(self, groups: Sequence[_Group]) -> Iterator[Metric]:
        """Processes and schedules."""
        running = GaugeMetricFamily("caddysnake_processes", "Processes by state.", labels=["app", "process", "state"])
        restarts = CounterMetricFamily(
            "caddysnake_process_restarts", "Processes that were started again.", labels=["app", "process"]
        )
        upcoming = GaugeMetricFamily(
            "caddysnake_schedule_next_run_timestamp_seconds", "When it is due next.", labels=["app", "schedule"]
        )
        good = GaugeMetricFamily(
            "caddysnake_schedule_last_run_success", "1 when its last run ended well.", labels=["app", "schedule"]
        )
        skipped = CounterMetricFamily(
            "caddysnake_schedule_left_out", "Times that were skipped or missed.", labels=["app", "schedule"]
        )
        templates = {template.name: template.schedules for template in self._status.templates}
        for group in groups:
            (name,) = group.labels
            processes = [each for app in group.apps for each in app.processes]
            states = Counter((each.name, "leaving" if each.is_leaving else each.state) for each in processes)
            for (process, state), count in sorted(states.items()):
                running.add_metric([name, process, state], count)
            for process in sorted({each.name for each in processes}):
                restarts.add_metric([name, process], sum(each.restarts for each in processes if each.name == process))
            for schedule in templates.get(name) or [each for app in group.apps for each in app.schedules]:
                upcoming.add_metric([name, schedule.name], schedule.next_at or 0.0)
                if schedule.last_run is not None:
                    good.add_metric([name, schedule.name], int(schedule.last_run.ok))
                skipped.add_metric([name, schedule.name], schedule.skipped + schedule.missed)
        yield from (running, restarts, upcoming, good, skipped)

    def _templates(self) -> Iterator[Metric]:
        live = GaugeMetricFamily("caddysnake_template_apps", "Dynamic apps by state.", labels=["app", "state"])
        most = GaugeMetricFamily("caddysnake_template_apps_max", "As many may live at a time.", labels=["app"])
        for template in self._status.templates:
            live.add_metric([template.name, "live"], template.live)
            live.add_metric([template.name, "starting"], template.starting)
            live.add_metric([template.name, "leaving"], template.leaving)
            most.add_metric([template.name], template.capacity)
        yield live
        yield most

    def _relays(self) -> Iterator[Metric]:
        relays, traffic = self._status.relays, self._status.relay_traffic
        yield GaugeMetricFamily("caddysnake_relays", "Relay processes.", value=len(relays))
        responses = CounterMetricFamily(
            "caddysnake_relay_responses", "Responses that relays passed on, or gave, by class.", labels=["class"]
        )
        for name, count in zip(_CLASSES, traffic.responses, strict=True):
            responses.add_metric([name], count)
        yield responses
        durations = HistogramMetricFamily(
            "caddysnake_relay_request_duration_seconds",
            "From the head of a request to the end of its response.",
            labels=[],
        )
        _add_histogram(durations, [], self._status.latency_bounds_s, traffic.latencies, traffic.latency_sum_us / 1e6)
        yield durations
        yield CounterMetricFamily(
            "caddysnake_relay_failures",
            "Requests that no worker answered, or not to the end.",
            value=traffic.exceptions,
        )
        in_flight = sum(relay.in_flight for relay in relays)
        yield GaugeMetricFamily("caddysnake_relay_requests_in_flight", "Requests in relays.", value=in_flight)
        memory = sum(relay.memory_bytes for relay in relays)
        yield GaugeMetricFamily("caddysnake_relay_memory_bytes", "Resident memory of relays.", value=memory)

    def _daemon(self) -> Iterator[Metric]:
        daemon = self._status.daemon
        info = GaugeMetricFamily("caddysnake_build_info", "What runs.", labels=["version", "python"])
        info.add_metric([daemon.version, daemon.python], 1)
        yield info
        yield GaugeMetricFamily("caddysnake_ready", "1 when every static app has a worker.", value=int(self._is_ready))
        reloads = CounterMetricFamily("caddysnake_config_reloads", "Reloads by result.", labels=["result"])
        reloads.add_metric(["accepted"], daemon.reloads_accepted)
        reloads.add_metric(["refused"], daemon.reloads_refused)
        yield reloads
        yield GaugeMetricFamily(
            "caddysnake_config_last_reload_successful",
            "1 unless the last was refused.",
            value=int(daemon.refused is None),
        )
        yield GaugeMetricFamily(
            "caddysnake_config_last_reload_success_timestamp_seconds",
            "When a configuration was carried out last.",
            value=daemon.last_reload_at or 0,
        )
        yield GaugeMetricFamily(
            "caddysnake_daemon_connections", "Connections that the daemon keeps track of.", value=daemon.connections
        )


def _errors(group: _Group) -> float:
    return group.traffic.exceptions


def _memory(group: _Group) -> float:
    return sum({worker.pid: worker.memory_bytes for worker in group.workers}.values())


def _sum(group: _Group, field: str) -> int:
    return sum(getattr(app, field) for app in group.apps)


def _counter(name: str, about: str, groups: Sequence[_Group], value: Callable[[_Group], float]) -> Metric:
    family = CounterMetricFamily(f"caddysnake_{name}", about, labels=["app"])
    for group in groups:
        family.add_metric(group.labels, value(group))
    return family


def _gauge(name: str, about: str, groups: Sequence[_Group], value: Callable[[_Group], float]) -> Metric:
    family = GaugeMetricFamily(f"caddysnake_{name}", about, labels=["app"])
    for group in groups:
        family.add_metric(group.labels, value(group))
    return family


def _add_histogram(
    family: HistogramMetricFamily, labels: Sequence[str], bounds: Sequence[float], counts: Sequence[int], total: float
) -> None:
    reached = list(accumulate(counts))
    names = [*(f"{bound:g}" if bound % 1 else f"{bound:.1f}" for bound in bounds), "+Inf"]
    family.add_metric(labels, buckets=list(zip(names, reached, strict=True)), sum_value=total)
