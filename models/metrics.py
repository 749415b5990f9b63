"""Numbers a process keeps of itself, and tells on a port of 127.0.0.1 in Prometheus' text form.

Counting is plain Python and always on; the library and the port come only where a port is set.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)

#: Bounds of durations in seconds, from a commit on a good disk to a wait for a broken broker.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Bounds of how many are done together.
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
#: What one reader may take, in seconds: readers are served one after the other, and anybody on this machine is one.
READER_SECONDS = 2.0


@dataclass(frozen=True)
class Metric:
    """One number as it is told. `kind` is counter, gauge or histogram; its values are told apart by `labels`."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    #: Upper bounds of a histogram.
    bounds: tuple[float, ...] = SECONDS


@dataclass
class Spread:
    """Values of a histogram: their sum, and how many fell below each bound but not below the one before."""

    bounds: tuple[float, ...]
    total: float = 0.0
    counts: list[int] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Takes in one value."""
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound with how many values are not above it."""
        found, below = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class Tally:
    """What has happened since the start of the process. Safe to use from several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._counts: dict[str, dict[tuple[str, ...], float]] = {}
        self._spreads: dict[str, dict[tuple[str, ...], Spread]] = {}

    def count(self, name: str, more: float = 1.0, *labels: str) -> None:
        """Adds to a counter."""
        with self._mutex:
            its = self._counts.setdefault(name, {})
            its[labels] = its.get(labels, 0.0) + more

    def observe(self, name: str, value: float, *labels: str, bounds: tuple[float, ...] = SECONDS) -> None:
        """Adds a value to a histogram, whose bounds are those of its first value."""
        with self._mutex:
            self._spreads.setdefault(name, {}).setdefault(labels, Spread(bounds)).add(value)

    def values(self) -> dict[str, dict[tuple[str, ...], Any]]:
        """By name and labels: a number, or a copy of a Spread."""
        with self._mutex:
            spreads = {
                name: {key: Spread(s.bounds, s.total, [*s.counts]) for key, s in its.items()}
                for name, its in self._spreads.items()
            }
            return {name: dict(its) for name, its in self._counts.items()} | spreads


#: What is asked for when somebody reads: by name a number, or numbers by labels.
Look = Callable[[], Mapping[str, Any]]


class Collector:
    """Puts together what was counted and what is asked for now. What cannot be asked is left out, not told as 0."""

    def __init__(self, metrics: Sequence[Metric], tallies: Sequence[Tally], look: Look) -> None:
        self._metrics = metrics
        self._tallies = tallies
        self._look = look

    def collect(self) -> Iterator[Any]:
        """Every metric in the library's terms."""
        found: dict[str, Any] = {}
        for tally in self._tallies:
            found |= tally.values()
        try:
            found |= self._look()
        except Exception as error:  # the store or the disk is away: what was counted is told all the same
            log.warning("some numbers are missing", extra={"action": "metrics", "why": type(error).__name__})
        for metric in self._metrics:
            values = found.get(metric.name, {} if metric.labels or metric.kind != "counter" else 0.0)
            yield _family(metric, values if isinstance(values, Mapping) else {(): values})


def _family(metric: Metric, values: Mapping[tuple[str, ...], Any]) -> Any:
    from prometheus_client import core

    kinds = {"counter": core.CounterMetricFamily, "gauge": core.GaugeMetricFamily,
             "histogram": core.HistogramMetricFamily}  # fmt: skip
    family = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        if isinstance(value, Spread):
            family.add_metric(labels, value.buckets(), value.total)
        else:
            family.add_metric(labels, value)
    return family


def serve(port: int, metrics: Sequence[Metric], tallies: Sequence[Tally], look: Look) -> None:
    """Answers on 127.0.0.1:`port` for the life of the process; 0: nothing. A port that is taken is logged, no more."""
    if not port:
        return
    from http.server import HTTPServer
    from socketserver import TCPServer

    from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector

    registry = CollectorRegistry()
    registry.register(Collector(metrics, tallies, look))
    ProcessCollector(registry=registry)
    handler = type("Handler", (MetricsHandler.factory(registry),), {"timeout": READER_SECONDS})

    class Server(HTTPServer):
        # HTTPServer would ask the name service for our name, which may hang.
        server_bind = TCPServer.server_bind

    try:
        server = Server(("127.0.0.1", port), handler)
    except OSError as error:
        log.warning("no metrics", extra={"action": "metrics", "port": port, "why": str(error)})
        return
    # It is never asked to stop, so it need not look whether it was.
    run = threading.Thread(target=server.serve_forever, args=(3600.0,), name="metrics", daemon=True)
    run.start()
    log.info("metrics", extra={"action": "metrics", "port": port})
