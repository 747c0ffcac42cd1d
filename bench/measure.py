"""Measures a target, in this order: ingest, idle, searches, filtered searches, upserts, mixed reads and writes, searches after
the upserts, searches during bulk upserts, restart.

Uses time windows instead of numbers of requests, so that a slow target does not take long. Timed searches never repeat a query
(`data.Fresh`), so that no cache can answer them. Recall is computed over the real queries, in a separate pass.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bench.client import WARM_UP_S, Timings, per_second
from bench.data import Data, Filter, Fresh, complete, recall, truth_of
from bench.process import disk_mib
from bench.progress import say
from bench.target import Request, Target
from journal.records import Vectors

Figures = dict[str, float]

CLIENTS = (1, 4, 16)
SHARES = {"half": 0.5, "wide": 0.1, "narrow": 0.01, "rare": 0.001}
"""Filters, and the share of all points that each selects."""

MIXED_CLIENTS, MIXED_UPSERTS = 4, 0.1
SETTLE_TIMEOUT_S = 150.0
UPSERTS = 5000
_QUERIES, _FILTERED_QUERIES, _REPEATED_QUERIES = 400, 150, 100
"""Number of real queries for recall: without filter and with filter; and number of repeated queries."""

_QUIET_CPU = 0.1
_QUIET_S = 3.0  # longer than a server waits before its idle-time maintenance
_POLL_S = 0.05
_PROBES = 1000
_GENEROUS = 2.0
_LEAST_REQUESTS, _MOST_REQUESTS = 1000, 60_000
_SEED = 11


class Pace(NamedTuple):
    """`seconds`: the length of a time window."""

    seconds: float


def measure(target: Target, data: Data, pace: Pace, figures: Figures, caches: bool = False) -> None:
    """Measures a new target. Adds each figure to `figures` immediately, so that a later failure keeps the earlier ones. With
    `caches`, also measures repeated queries."""
    target.create(data.vectors.shape[1])
    run = Measurement(target, data, pace, figures)
    run.ingest()
    run.settle()
    run.search()
    if caches:
        run.repeated()
    for name, share in SHARES.items():
        run.filtered(name, data.filter_of_share(share))
    run.upserts()
    if target.replaces:
        run.mixed()
        run.after()
        run.beside()
    run.restart()


class Measurement:
    """The steps of `measure`; each adds its figures."""

    def __init__(self, target: Target, data: Data, pace: Pace, figures: Figures) -> None:
        self._target, self._data, self._pace, self._figures = target, data, pace, figures
        self._warm_up_s = min(WARM_UP_S, pace.seconds)
        self._fresh = Fresh(data.queries)
        self._random = random.Random(_SEED)

    def ingest(self) -> None:
        """Ingests all points with one client, then times the first search and the time until all are indexed."""
        target, count = self._target, len(self._data.vectors)
        batches = self._data.batches(min(target.batch, count))
        requests = [target.bulk(points, points is batches[-1]) for points in batches]
        first = target.search(self._fresh.take(1)[0])
        del batches
        self._say(f"ingest, {len(requests)} requests")
        acknowledged_s = sum(all_answered(target.run([requests], warm_up_s=0)[0]))
        begun_s = time.perf_counter()
        (first_s,) = all_answered(target.run([[first]], warm_up_s=0)[0])
        self._say("until searchable with index")
        wait_searchable(target, count, SETTLE_TIMEOUT_S)
        searchable_s = time.perf_counter() - begun_s
        self._figures |= {
            "ingest_acknowledged": count / acknowledged_s,
            "first_search": 1000 * first_s,
            "ingest_indexed": count / (acknowledged_s + searchable_s),
            "searchable_s": searchable_s,
        }

    def settle(self) -> None:
        """Waits until background work ends, then measures idle CPU, memory and disk."""
        self._say("until background work ends")
        begun_s = time.perf_counter()
        quiet_s = self._quiet() - begun_s
        self._say("idle")
        process = self._target.process
        before_s = process.cpu_s()
        time.sleep(self._pace.seconds)
        self._figures |= {
            "quiet_s": self._figures["searchable_s"] + max(0.0, quiet_s),
            "idle_cpu": 100 * (process.cpu_s() - before_s) / self._pace.seconds,
            "pss": process.pss_mib(),
            "disk": disk_mib(self._target.folder),
        }

    def search(self) -> None:
        self._say("search, recall")
        answers = self._answers(_QUERIES)
        self._figures["recall"] = recall(self._data, truth_of(self._data), answers)
        for clients in CLIENTS:
            self._say(f"search, {clients} {'clients' if clients > 1 else 'client'}")
            taken = self._window(self._search, clients)
            self._report(f"search{clients}", taken, per_second(taken))

    def repeated(self) -> None:
        """Repeats a few queries, to measure a cache of answers."""
        self._say("search, repeated queries")
        requests = list(map(self._search, self._fresh.take(_REPEATED_QUERIES)))
        for clients in (1, 4):
            enough = -(-_MOST_REQUESTS // clients // len(requests))
            taken = self._run([requests * enough] * clients)
            self._report(f"repeated{clients}", taken, per_second(taken))

    def filtered(self, name: str, only: Filter) -> None:
        self._say(f"search where {only.field} = {only.value}")
        truth = truth_of(self._data, self._data.rows_with(only))
        answers = self._answers(_FILTERED_QUERIES, only)
        self._figures |= {f"{name}_recall": recall(self._data, truth, answers), f"{name}_complete": complete(truth, answers)}
        self._report(name, self._window(lambda query: self._target.search(query, only)))

    def upserts(self) -> None:
        """Single upserts by one client. They rewrite points unchanged, so that the ground truth stays valid."""
        self._say("single upserts")
        taken = self._run([self._upserts(_MOST_REQUESTS)])
        self._report("upsert", taken, per_second(taken))

    def mixed(self) -> None:
        """Several clients; a share of MIXED_UPSERTS of their requests are upserts."""
        self._say("reads mixed with writes")
        streams = self._fresh_streams(self._search, MIXED_CLIENTS)
        places = [{at for at in range(len(stream)) if self._random.random() < MIXED_UPSERTS} for stream in streams]
        writes = iter(self._upserts(sum(map(len, places))))
        for stream, upserts in zip(streams, places, strict=True):
            for at in upserts:
                stream[at] = next(writes)
        taken = self._run(streams)
        self._figures["mixed_qps"] = per_second(taken)
        split: dict[bool, list[float]] = {True: [], False: []}
        for one, upserts in zip(taken, places, strict=True):
            for at, second in enumerate(one.seconds, one.skipped):
                split[at in upserts].append(second)
        for name, seconds in (("mixed_search", split[False]), ("mixed_upsert", split[True])):
            self._report(name, [Timings(0, seconds)])

    def after(self) -> None:
        """Searches after the upserts, which fragment the index."""
        self._quiet()
        self._say("search after the upserts")
        self._figures["after_recall"] = recall(self._data, truth_of(self._data), self._answers(_FILTERED_QUERIES))
        self._report("after", self._window(self._search))

    def beside(self) -> None:
        """Searches while another client rewrites all points as fast as possible."""
        self._say("search beside bulk upserts")
        batches = [self._target.bulk(points, last=False) for points in self._data.batches(self._target.batch)]
        enough = 1 + int(self._pace.seconds * _MOST_REQUESTS / len(self._data.vectors))
        (searches,) = self._fresh_streams(self._search, 1)
        taken = self._run([searches, batches * enough])
        written = per_second(taken[1:]) * len(self._data.vectors) / len(batches)
        self._report("beside", taken[:1])
        self._figures["beside_vectors"] = written

    def restart(self) -> None:
        """Final memory and disk; then the time from the start of the process to the answer of a search."""
        self._say("until background work ends")
        self._quiet()
        self._figures |= {"pss_after": self._target.process.pss_mib(), "disk_after": disk_mib(self._target.folder)}
        if not self._target.replaces:  # it has no durable data
            return
        self._say("restart")
        self._figures["start_s"] = restarted_s(self._target, self._search(self._fresh.take(1)[0]))

    def _search(self, query: Vectors) -> Request:
        return self._target.search(query)

    def _upserts(self, count: int) -> list[Request]:
        """Upserts of random points; the first UPSERTS requests are distinct, then they repeat."""
        rows = [self._random.randrange(len(self._data.vectors)) for _ in range(min(count, UPSERTS))]
        requests = [self._target.upsert(self._data.points([row])) for row in rows]
        return requests * -(-count // len(requests))

    def _window(self, search: Callable[[Vectors], Request], clients: int = 1) -> list[Timings]:
        """Runs fresh searches for one time window."""
        return self._run(self._fresh_streams(search, clients))

    def _run(self, streams: Sequence[Sequence[Request]]) -> list[Timings]:
        """Runs one time window, and counts failed requests."""
        taken = self._target.run(streams, self._pace.seconds, self._warm_up_s)
        self._figures["failed"] = self._figures.get("failed", 0.0) + sum(one.failed() for one in taken)
        for error in sorted({one.error for one in taken if one.error}):
            self._say(f"a request failed: {error[:500]}")
        return taken

    def _fresh_streams(self, search: Callable[[Vectors], Request], clients: int) -> list[list[Request]]:
        """More fresh searches than the clients can send in one window, estimated from a short probe."""
        probes = list(map(search, self._fresh.take(_PROBES)))
        (taken,) = self._target.run([probes], self._warm_up_s, 0)
        rate = 1 / float(np.median(taken.answered() or [self._warm_up_s]))
        count = int(_GENEROUS * rate * (self._warm_up_s + self._pace.seconds) * min(clients, 4))
        requests = list(map(search, self._fresh.take(min(_MOST_REQUESTS, max(count, _LEAST_REQUESTS)))))
        return [requests[at::clients] for at in range(clients)]

    def _answers(self, count: int, only: Filter | None = None) -> list[list[int]]:
        """The rows that the target returns for each of the first `count` real queries."""
        target = self._target
        return [target.rows_of(target.send(target.search(query, only))) for query in self._data.queries[:count]]

    def _quiet(self) -> float:
        """Waits for a window with almost no CPU use. Returns its start (`perf_counter`). Raises TimeoutError."""
        window_s = min(_QUIET_S, self._pace.seconds)
        until_s = time.perf_counter() + SETTLE_TIMEOUT_S
        while True:
            begun_s, before_s = time.perf_counter(), self._target.process.cpu_s()
            time.sleep(window_s)
            if self._target.process.cpu_s() - before_s < _QUIET_CPU * window_s:
                return begun_s
            if begun_s > until_s:
                raise TimeoutError(f"{self._target.name} still works {SETTLE_TIMEOUT_S} s after the last request")

    def _report(self, name: str, taken: Sequence[Timings], rate: float | None = None) -> None:
        """Adds latency percentiles, if there are answers, and the rate, if given."""
        seconds = [second for one in taken for second in one.answered()]
        if not seconds:
            return
        p50, p95, p99 = percentiles_ms(seconds, 50, 95, 99)
        self._figures |= {f"{name}_p50": p50, f"{name}_p95": p95, f"{name}_p99": p99}
        if rate is not None:
            self._figures[f"{name}_qps"] = rate

    def _say(self, text: str) -> None:
        say(f"{self._target.name}: {text}")


def all_answered(taken: Timings) -> list[float]:
    """The latency of each request, in seconds. Raises RuntimeError if any failed."""
    if taken.failed():
        raise RuntimeError(taken.error)
    return taken.seconds


def wait_searchable(target: Target, count: int, timeout_s: float) -> None:
    """Waits until all points are indexed. Raises TimeoutError."""
    until_s = time.perf_counter() + timeout_s
    while not target.searchable(count):
        if time.perf_counter() > until_s:
            raise TimeoutError(f"{target.name} has not indexed what it took {timeout_s:.0f} s ago")
        time.sleep(_POLL_S)


def restarted_s(target: Target, search: Request) -> float:
    """Restarts the target. Returns the seconds from its start to the answer of a search."""
    target.stop()
    begun_s = time.perf_counter()
    target.start()
    if not target.rows_of(target.send(search)):
        raise AssertionError(f"{target.name} finds nothing after a restart")
    return time.perf_counter() - begun_s


def percentiles_ms(seconds: Sequence[float], *percents: float) -> list[float]:
    return [float(value) for value in 1000 * np.percentile(seconds, percents)]
