"""The table: figures of each target, and Vecraft DB's as a ratio to each peer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.data import Data
from bench.machine import description
from bench.measure import CLIENTS, SHARES, Figures

OURS = "vecraft"
NONE = "—"

UP, DOWN = "↑", "↓"


class Row(NamedTuple):
    """A line of the table; `better` is the direction in which it is good; only what is `compared` gets ratios."""

    key: str
    label: str
    unit: str
    better: str
    compared: bool = True


ROWS = (
    Row("ingest_acknowledged", "ingest, acknowledged", "vectors/s", UP),
    Row("ingest_indexed", "ingest, searchable with index", "vectors/s", UP),
    Row("searchable_s", "from acknowledged to searchable with index", "s", DOWN, compared=False),
    Row("quiet_s", "from acknowledged to the end of background work", "s", DOWN, compared=False),
    Row("search_p50", "search k=10, 1 client, p50", "ms", DOWN),
    Row("search_p95", "search k=10, 1 client, p95", "ms", DOWN),
    Row("search_p99", "search k=10, 1 client, p99", "ms", DOWN),
    Row("recall", "recall@10 with ties", "", UP),
    Row("load_qps", f"search k=10, {CLIENTS} clients", "1/s", UP),
    Row("load_p99", f"search k=10, {CLIENTS} clients, p99", "ms", DOWN),
    Row("wide_p50", "10 % filter, p50", "ms", DOWN),
    Row("wide_recall", "10 % filter, recall@10", "", UP),
    Row("wide_complete", "10 % filter, answers with all hits there are", "", UP),
    Row("narrow_p50", "1 % filter, p50", "ms", DOWN),
    Row("narrow_recall", "1 % filter, recall@10", "", UP),
    Row("narrow_complete", "1 % filter, answers with all hits there are", "", UP),
    Row("upsert_p50", "one upsert until readable, p50", "ms", DOWN),
    Row("upsert_p99", "one upsert until readable, p99", "ms", DOWN),
    Row("upserts_per_s", "single upserts, 1 client", "1/s", UP),
    Row("after_p50", "search after the upserts, p50", "ms", DOWN),
    Row("after_recall", "search after the upserts, recall@10", "", UP),
    Row("beside_p50", "search beside bulk upserts, p50", "ms", DOWN),
    Row("beside_p99", "search beside bulk upserts, p99", "ms", DOWN),
    Row("beside_vectors", "bulk upserts beside searches", "vectors/s", UP),
    Row("idle_cpu", "idle CPU", "%", DOWN),
    Row("rss", "memory, RSS", "MiB", DOWN),
    Row("pss", "memory, PSS", "MiB", DOWN),
)
ACKNOWLEDGING = ("parse JSON", "check the contract", "encode Avro", "append to the log, synced one by one")
"""The steps before an acknowledgement; those after it are `REPLAYING`."""

REPLAYING = ("decode Avro", "check the contract", "apply to the shard (join, RocksDB, indexes)")
BUILDING = ("build one graph of all",)


def render(data: Data, notes: Sequence[str], figures: Mapping[str, Figures], parts: Mapping[str, float]) -> str:
    """The report as text, in Markdown."""
    filters = ", ".join(f"{100 * share:.0f} % filter: section = {data.section_of_share(share)}" for share in SHARES.values())
    heading = [f"data: {data.source}; {filters}", description(), *notes]
    return "\n".join([*heading, "", *_comparison(figures), "", *_ingest(figures[OURS], parts)])


def _comparison(figures: Mapping[str, Figures]) -> list[str]:
    peers = [name for name in figures if name != OURS]
    head = ["", "", *figures, *(f"{OURS} / {peer}" for peer in peers)]
    body = []
    for row in ROWS:
        values = {name: figures[name].get(row.key) for name in figures}
        ratios = [ratio(values[OURS], values[peer]) if row.compared else NONE for peer in peers]
        body.append([row.label, f"{row.unit} {row.better}".strip(), *map(number, values.values()), *ratios])
    return table(head, body)


def _ingest(ours: Figures, parts: Mapping[str, float]) -> list[str]:
    """What the steps allow, and what the server makes of it."""
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
    """About three digits that matter."""
    if value is None:
        return NONE
    decimals = next((decimals for bound, decimals in ((99.95, 0), (9.995, 1), (1.01, 2)) if value >= bound), 3)
    return f"{value:,.{decimals}f}"
