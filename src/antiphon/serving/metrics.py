"""What Prometheus reads at /metrics: of the engines as they are now, and of the requests that have ended.

Each server has a registry of its own. Times of a request are its engine's, but for the whole of it, which is what its
client waited for.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from antiphon.serving.account import Account
from antiphon.serving.service import Service

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)

GAUGES = {
    "waiting": "Requests that wait to be encoded.",
    "running": "Requests that run.",
    "rows": "Hypotheses that run.",
    "tokens": "Tokens that are kept for the requests that run, as long as they may become.",
}
COUNTERS = {
    "steps": "Decoding steps.",
    "row_steps": "Rows, summed over the decoding steps.",
    "encoded": "Sources encoded.",
    "generated": "Tokens of finished hypotheses, with their ends.",
    "encode_seconds": "Seconds spent encoding.",
    "decode_seconds": "Seconds spent in decoding steps.",
}


class Engines(Collector):
    """Reads the engines' own statistics, summed over them, whenever it is asked."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        pool = self._service.pool
        yield GaugeMetricFamily("antiphon_engines_up", "Engine processes (or threads) that take requests.", pool.ready)
        ready = int(self._service.is_ready)
        yield GaugeMetricFamily("antiphon_ready", "1 when requests are answered, 0 while loading or stopping.", ready)
        statistics = pool.statistics
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"antiphon_engine_{name}", text, getattr(statistics, name))
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"antiphon_engine_{name}", text, getattr(statistics, name))


class Metrics:
    """Of one server."""

    def __init__(self, service: Service) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(Engines(service))
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "antiphon_requests",
            "HTTP requests for a model: answered, left (the client went away), or the reason of the refusal.",
            ["model", "outcome"],
            registry=registry,
        )
        self._rejections = Counter("antiphon_rejections", "HTTP requests refused.", ["reason"], registry=registry)
        self._source_tokens = _counter("source_tokens", "Tokens of the sources answered, with their ends.", registry)
        self._output_tokens = _counter("output_tokens", "Tokens of the outputs, all n best.", registry)
        self._finished = Counter(
            "antiphon_finished",
            "Sources answered: their best output ended by itself (stop), or was cut at its longest (length).",
            ["model", "reason"],
            registry=registry,
        )
        self._whole = _histogram("request", "From an HTTP request to the end of its answer.", SECONDS, registry)
        self._queue = _histogram("queue", "Until a source had been encoded.", SECONDS, registry)
        self._first = _histogram("first_token", "Until a source had its first token.", SECONDS, registry)
        self._token = _histogram("token", "Between two tokens, the mean of a source.", TOKEN_SECONDS, registry)

    def record(self, account: Account) -> None:
        """A request that has ended. One that is about no model, and was not refused, counts for nothing."""
        if account.refused:
            self._rejections.labels(account.refused).inc()
        if not account.model:
            return
        model = account.model
        self._requests.labels(model, account.outcome).inc()
        self._source_tokens.labels(model).inc(account.source_tokens)
        self._output_tokens.labels(model).inc(account.output_tokens)
        if account.outcome == "answered":
            self._whole.labels(model).observe(account.seconds)
        for run in account.runs:
            times = run.times
            self._finished.labels(model, "stop" if run.stopped else "length").inc()
            self._queue.labels(model).observe(times.encoded - times.came)
            self._first.labels(model).observe(times.first - times.came)
            if run.steps > 1:
                self._token.labels(model).observe((times.ended - times.first) / (run.steps - 1))

    def shown(self, accept: str) -> tuple[bytes, str]:
        """All of them, in the form that is asked for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def _counter(name: str, text: str, registry: CollectorRegistry) -> Counter:
    return Counter(f"antiphon_{name}", text, ["model"], registry=registry)


def _histogram(name: str, text: str, buckets: tuple[float, ...], registry: CollectorRegistry) -> Histogram:
    return Histogram(f"antiphon_{name}_seconds", text, ["model"], buckets=buckets, registry=registry)
