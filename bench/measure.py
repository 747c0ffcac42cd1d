"""What is measured of a target, in this order: ingest, idleness, searches, filtered searches, memory, upserts, searches after
them, searches beside bulk upserts.

Timed windows rather than counts, so that a slow target does not make the run long. A figure that a target does not have is
left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from bench.client import WARM_UP, repeat
from bench.data import Data, Truth, complete, recall, truth_of
from bench.progress import say
from bench.target import BATCH, Request, Session, Target

Figures = dict[str, float]

CLIENTS = 4
SHARES = {"wide": 0.10, "narrow": 0.01}
"""The filters, and the share of all vectors that each lets through."""

SETTLE_TIMEOUT_S = 150.0
UPSERTS = 1000
_FILTERED_QUERIES = 200
_QUIET_CPU = 0.1
_QUIET_S = 3.0  # longer than a server waits before it takes itself for idle and tidies up
_POLL_S = 0.1
_SEED = 11


class Pace(NamedTuple):
    """`seconds`: the length of a timed window."""

    seconds: float


def measure(target: Target, data: Data, pace: Pace) -> Figures:
    """All figures of a target that has just been entered."""
    target.create(data)
    session = target.session()
    try:
        figures = _ingest(target, session, data, pace)
        figures |= _idle(target, pace)
        figures |= _search(target, session, data, pace)
        for name, share in SHARES.items():
            figures |= _filtered(target, session, data, pace, name, data.section_of_share(share))
        figures |= _memory(target)
        figures |= _upsert(target, session, data, pace)
        figures |= _beside(target, session, data, pace)
    finally:
        session.close()
    return figures


def _ingest(target: Target, session: Session, data: Data, pace: Pace) -> Figures:
    requests = target.ingest(data)
    count = len(data.vectors)
    say(f"{target.name}: ingest, {len(requests)} requests")
    begun_s = time.perf_counter()
    for request in requests:
        session.send(request)
    acknowledged_s = time.perf_counter() - begun_s
    say(f"{target.name}: until searchable with index")
    while not target.searchable(session, count):
        if time.perf_counter() - begun_s > acknowledged_s + SETTLE_TIMEOUT_S:
            raise TimeoutError(f"{target.name} has not indexed what it took {SETTLE_TIMEOUT_S} s ago")
        time.sleep(_POLL_S)
    indexed_s = time.perf_counter() - begun_s
    say(f"{target.name}: until background work ends")
    quiet_s = max(indexed_s, _quiet(target, pace) - begun_s)
    figures = {"ingest_acknowledged": count / acknowledged_s, "ingest_indexed": count / indexed_s}
    if target.process is not None:
        figures |= {"searchable_s": indexed_s - acknowledged_s, "quiet_s": quiet_s - acknowledged_s}
    return figures


def _idle(target: Target, pace: Pace) -> Figures:
    if target.process is None:
        return {}
    say(f"{target.name}: idle")
    before_s = target.process.cpu_s()
    time.sleep(pace.seconds)
    return {"idle_cpu": 100 * (target.process.cpu_s() - before_s) / pace.seconds}


def _search(target: Target, session: Session, data: Data, pace: Pace) -> Figures:
    say(f"{target.name}: search")
    requests = target.searches(data)
    figures = {"recall": recall(data, truth_of(data), _found(target, session, requests))}
    p50, p95, p99 = percentiles_ms(repeat(session, requests, pace.seconds), 50, 95, 99)
    say(f"{target.name}: search, {CLIENTS} clients")
    load = target.load(requests, CLIENTS, pace.seconds)
    figures |= {"search_p50": p50, "search_p95": p95, "search_p99": p99, "load_qps": load.per_second}
    return figures | {"load_p99": percentiles_ms(load.seconds, 99)[0]}


def _filtered(target: Target, session: Session, data: Data, pace: Pace, name: str, section: str) -> Figures:
    say(f"{target.name}: search in section {section}")
    requests = target.searches(data, section)[:_FILTERED_QUERIES]
    found = _found(target, session, requests)
    truth: Truth = truth_of(data, data.rows_with(section))
    return {
        f"{name}_p50": percentiles_ms(repeat(session, requests, pace.seconds), 50)[0],
        f"{name}_recall": recall(data, truth, found),
        f"{name}_complete": complete(truth, found),
    }


def _memory(target: Target) -> Figures:
    return {} if target.process is None else {"rss": target.process.rss_mib(), "pss": target.process.pss_mib()}


def _upsert(target: Target, session: Session, data: Data, pace: Pace) -> Figures:
    """Writes points again as they are, so that the truth stays; then searches what is no longer in one piece."""
    say(f"{target.name}: single upserts")
    rows = np.random.default_rng(_SEED).permutation(len(data.vectors))[:UPSERTS]
    taken = repeat(session, target.upserts(data, rows), pace.seconds, at_most=len(rows))
    p50, p99 = percentiles_ms(taken, 50, 99)
    figures = {"upsert_p50": p50, "upsert_p99": p99, "upserts_per_s": len(taken) / sum(taken)}
    if not target.replaces:
        return figures
    _quiet(target, pace)
    say(f"{target.name}: search after the upserts")
    requests = target.searches(data)
    figures["after_recall"] = recall(data, truth_of(data), _found(target, session, requests))
    return figures | {"after_p50": percentiles_ms(repeat(session, requests, pace.seconds), 50)[0]}


def _beside(target: Target, session: Session, data: Data, pace: Pace) -> Figures:
    """Searches while another client writes all points again, batch by batch."""
    if not target.replaces:
        return {}
    say(f"{target.name}: search beside bulk upserts")
    searches, batches = target.searches(data), target.ingest(data)
    writing = target.session()
    with ThreadPoolExecutor(1) as pool:  # it only waits for the socket
        written = pool.submit(repeat, writing, batches, pace.seconds)
        p50, p99 = percentiles_ms(repeat(session, searches, pace.seconds), 50, 99)
        seconds = written.result()
    writing.close()
    return {"beside_p50": p50, "beside_p99": p99, "beside_vectors": min(BATCH, len(data.vectors)) * len(seconds) / sum(seconds)}


def _found(target: Target, session: Session, requests: Sequence[Request]) -> list[list[int]]:
    """The rows that each request finds; also the warm-up."""
    for request in requests[:WARM_UP]:
        session.send(request)
    return [target.found(session.send(request)) for request in requests]


def _quiet(target: Target, pace: Pace) -> float:
    """Waits for a while in which the target does next to nothing. Returns when that began, by `perf_counter`."""
    window_s = min(_QUIET_S, pace.seconds)
    until_s = time.perf_counter() + SETTLE_TIMEOUT_S
    while True:
        begun_s = time.perf_counter()
        if target.process is None:
            return begun_s
        before_s = target.process.cpu_s()
        time.sleep(window_s)
        if target.process.cpu_s() - before_s < _QUIET_CPU * window_s:
            return begun_s
        if begun_s > until_s:
            raise TimeoutError(f"{target.name} still works {SETTLE_TIMEOUT_S} s after the last request")


def percentiles_ms(seconds: Sequence[float], *percents: float) -> list[float]:
    return [float(value) for value in 1000 * np.percentile(seconds, percents)]
