"""Renders the report: the figures of each target, the ratios of Vecraft DB to its peers, and where a peer is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.data import NOISE, Data
from bench.machine import description
from bench.measure import CLIENTS, MIXED_CLIENTS, MIXED_UPSERTS, SHARES, Figures

OURS = "vecraft"
NONE = "—"

UP, DOWN = "↑", "↓"

EVEN = 1.05
"""Ratios up to this factor count as equal."""


class Row(NamedTuple):
    """A line of the table. `better` is UP or DOWN; a row that is not `compared` has no ratios."""

    key: str
    label: str
    unit: str
    better: str
    compared: bool = True


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"


def _search_rows(clients: int) -> list[Row]:
    label = f"search, {_clients(clients)}"
    percents = [Row(f"search{clients}_p{percent}", f"{label}, p{percent}", "ms", DOWN) for percent in (50, 95, 99)]
    return [Row(f"search{clients}_qps", label, "1/s", UP), *percents]


def _filter_rows(name: str, share: float) -> list[Row]:
    label = f"{100 * share:g} % filter"
    return [
        Row(f"{name}_p50", f"{label}, p50", "ms", DOWN),
        Row(f"{name}_recall", f"{label}, recall@10", "", UP),
        Row(f"{name}_complete", f"{label}, answers with all hits there are", "", UP),
    ]


_MIXED = f"mixed, {_clients(MIXED_CLIENTS)}, {MIXED_UPSERTS:.0%} upserts"

ROWS = (
    Row("ingest_acknowledged", "ingest, acknowledged", "vectors/s", UP),
    Row("ingest_indexed", "ingest, searchable with index", "vectors/s", UP),
    Row("searchable_s", "from acknowledged to searchable with index", "s", DOWN, compared=False),
    Row("quiet_s", "from acknowledged to the end of background work", "s", DOWN, compared=False),
    Row("first_search", "first search, right after the ingest", "ms", DOWN),
    Row("recall", "recall@10 with ties", "", UP),
    *(row for clients in CLIENTS for row in _search_rows(clients)),
    *(row for name, share in SHARES.items() for row in _filter_rows(name, share)),
    Row("upsert_qps", "single upserts, 1 client", "1/s", UP),
    Row("upsert_p50", "one upsert until readable, p50", "ms", DOWN),
    Row("upsert_p99", "one upsert until readable, p99", "ms", DOWN),
    Row("mixed_qps", f"{_MIXED}", "1/s", UP),
    Row("mixed_search_p50", "mixed, search, p50", "ms", DOWN),
    Row("mixed_search_p99", "mixed, search, p99", "ms", DOWN),
    Row("mixed_upsert_p50", "mixed, upsert, p50", "ms", DOWN),
    Row("mixed_upsert_p99", "mixed, upsert, p99", "ms", DOWN),
    Row("after_recall", "search after the upserts, recall@10", "", UP),
    Row("after_p50", "search after the upserts, p50", "ms", DOWN),
    Row("beside_p50", "search beside bulk upserts, p50", "ms", DOWN),
    Row("beside_p99", "search beside bulk upserts, p99", "ms", DOWN),
    Row("beside_vectors", "bulk upserts beside searches", "vectors/s", UP),
    Row("start_s", "start with the data, until a search is answered", "s", DOWN),
    Row("failed", "requests that failed, in all timed windows", "", DOWN, compared=False),
    Row("idle_cpu", "idle CPU", "%", DOWN, compared=False),
    Row("pss", "memory (PSS) after the ingest", "MiB", DOWN),
    Row("pss_after", "memory (PSS) after all", "MiB", DOWN),
    Row("disk", "disk after the ingest", "MiB", DOWN),
    Row("disk_after", "disk after all", "MiB", DOWN),
)
CACHED = (
    Row("repeated1_p50", "repeated queries (cache hits), 1 client, p50", "ms", DOWN),
    Row("repeated1_p99", "repeated queries (cache hits), 1 client, p99", "ms", DOWN),
    Row("repeated4_qps", "repeated queries (cache hits), 4 clients", "1/s", UP),
)
"""Measured only for Vecraft DB, without a comparison."""

ACKNOWLEDGING = ("parse JSON", "check the contract", "encode Avro", "append to the log, synced one by one")
"""Steps before the acknowledgement; the later ones are `REPLAYING`."""

REPLAYING = ("decode Avro", "check the contract", "apply to the shard (join, RocksDB, indexes)")
BUILDING = ("build one graph of all",)


def render(data: Data, notes: Sequence[str], figures: Mapping[str, Figures], parts: Mapping[str, float]) -> str:
    """The report as Markdown, without a title."""
    names = {share: data.filter_of_share(share) for share in SHARES.values()}
    filters = ", ".join(f"{100 * share:g} %: {only.field} = {only.value}" for share, only in names.items())
    conditions = [
        f"data: {data.source}, k = 10; filters: {filters}",
        description(),
        "all targets in one run, one after the other; a target has the machine to itself but for its clients",
        f"no timed search repeats a query, so no answer is cached: each is a real query with noise of {NOISE:g} of its length; "
        "recall is that of the real queries; only the lines on repeated queries are about answers that Vecraft DB has cached",
        "in-process peers cross no network: their clients are threads of the process with the library, whose memory is given, "
        "and share its Python lock",
    ]
    parted = [
        _bullets(conditions),
        _bullets(notes),
        _figures(figures),
        ["How many times better Vecraft DB is than each peer; where it is **worse**, the number is below 1:"],
        _advantages(figures),
        _verdicts(figures),
        _ingest(figures[OURS], parts),
    ]
    return "\n\n".join("\n".join(part) for part in parted if part)


def advantage(row: Row, ours: float | None, theirs: float | None) -> float | None:
    """How many times better ours is; below 1 it is worse. None when a value is missing or 0."""
    if not ours or not theirs:
        return None
    return ours / theirs if row.better == UP else theirs / ours


def _bullets(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _figures(figures: Mapping[str, Figures]) -> list[str]:
    rows = [*ROWS, *(row for row in CACHED if row.key in figures[OURS])]
    body = [
        [row.label, f"{row.unit} {row.better}".strip(), *(number(figures[name].get(row.key)) for name in figures)] for row in rows
    ]
    return table(["", "", *figures], body)


def _advantages(figures: Mapping[str, Figures]) -> list[str]:
    peers = _peers(figures)
    body = []
    for row in ROWS:
        times = [advantage(row, figures[OURS].get(row.key), figures[peer].get(row.key)) for peer in peers]
        if row.compared:
            body.append([row.label, *map(_times, times)])
    return table(["vecraft is better than", *peers], body) if peers else []


def _verdicts(figures: Mapping[str, Figures]) -> list[str]:
    """A line per peer: the number of better figures, and the list of worse ones, worst first."""
    lines = []
    for peer in _peers(figures):
        advantages = {
            row.label: advantage(row, figures[OURS].get(row.key), figures[peer].get(row.key)) for row in ROWS if row.compared
        }
        known = {label: times for label, times in advantages.items() if times is not None}
        lost = sorted((times, label) for label, times in known.items() if times < 1 / EVEN)
        won = sum(times > EVEN for times in known.values())
        worse = "; ".join(f"{label} ({number(1 / times)}x)" for times, label in lost) or "none"
        even = len(known) - won - len(lost)
        lines.append(f"{peer}: better in {won} figures, within {EVEN - 1:.0%} in {even}, worse in {len(lost)}: {worse}")
    return ["Against each peer, and by how much it is better than Vecraft DB where it is:", "", *_bullets(lines)] if lines else []


def _peers(figures: Mapping[str, Figures]) -> list[str]:
    return [name for name in figures if name != OURS]


def _times(times: float | None) -> str:
    if times is None:
        return NONE
    return f"{number(times)}x" if times >= 1 / EVEN else f"**{number(times)}x**"


def _ingest(ours: Figures, parts: Mapping[str, float]) -> list[str]:
    """The rate of each step, the bounds that follow, and the share of them that the server reaches."""
    body = [[name, number(rate), number(1e6 / rate)] for name, rate in parts.items()]
    bounds = {
        "before the acknowledgement, one after the other": (ACKNOWLEDGING, "ingest_acknowledged"),
        "the replay, one after the other": (REPLAYING, "ingest_acknowledged"),
        "both on one core, and one graph of all on another": (ACKNOWLEDGING + REPLAYING, "ingest_indexed"),
    }
    for name, (steps, key) in bounds.items():
        rate = 1 / sum(1 / parts[step] for step in steps)
        rate = min(rate, parts[BUILDING[0]]) if key == "ingest_indexed" else rate
        body.append([f"= {name}", number(rate), number(1e6 / rate), ratio(ours[key], rate)])
    return table(["ingest, step by step", "vectors/s", "us/vector", "server / bound"], body)


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [list(row) + [""] * (len(head) - len(row)) for row in body]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(head), line(ruler), *map(line, rows)]


def ratio(ours: float | None, theirs: float | None) -> str:
    return NONE if ours is None or not theirs else f"{number(ours / theirs)}x"


def number(value: float | None) -> str:
    """Formats a number with about three significant digits."""
    if value is None:
        return NONE
    decimals = next((decimals for bound, decimals in ((99.95, 0), (9.995, 1), (1.01, 2)) if value >= bound), 3)
    return f"{value:,.{decimals}f}"
