"""The benchmark measures what it says, on a few vectors; how fast anything is, is no test's business."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import orjson
import pytest

from bench import collections, datatypes, document, kafka, scaling, snapshots
from bench.__main__ import main
from bench.client import in_threads
from bench.data import NOISE, Clusters, Filter, Fresh, K, complete, generate, recall, truth_of
from bench.embedded import Embedded
from bench.faiss_floor import FaissFloor
from bench.peers import PEERS
from bench.report import DOWN, ROWS, UP, Row, _advantages, _verdicts, advantage
from journal.log import Entry, TopicPartition
from journal.registry import SchemaRegistry
from replayer.ingest.format import change_of

VECTORS = 400
SMALL = ["--data", "generated", "--vectors", str(VECTORS)]


@pytest.mark.slow
def test_a_small_run_reports_every_figure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.measure._PROBES", 50)
    monkeypatch.setattr("bench.measure.CLIENTS", (1, 2))  # as many processes
    rows = [row for row in ROWS if not row.key.startswith(("search4", "search16"))]
    file = tmp_path / "benchmarks.md"
    assert main([*SMALL, "--peers", "faiss", "--seconds", "0.04", "--write", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.strip() in file.read_text()
    lines = {cells[0]: cells[1:] for line in reversed(out.splitlines()) if (cells := _cells(line))}
    assert lines[""][1:] == ["vecraft", "faiss"]
    for row in rows:
        assert float(lines[row.label][1].replace(",", "")) >= 0, row.label
    for row in rows:
        if row.key.endswith(("recall", "complete")):
            assert float(lines[row.label][1]) > 0.99, row.label  # so few vectors are compared one by one
    assert float(lines["recall@10 with ties"][2]) > 0.9
    assert "repeated queries (cache hits), 4 clients" in lines
    assert "= the replay, one after the other" in lines


@pytest.mark.slow
def test_every_datatype_says_what_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variants in ("VARIANTS", "MULTI_VARIANTS"):
        monkeypatch.setattr(datatypes, variants, {name: datatypes.VARIANTS[name] for name in ("float16", "uint8")})
    file = tmp_path / "benchmarks.md"
    assert main(["datatypes", "--data", "generated", "--vectors", "1200", "--write", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.strip() in file.read_text()
    lines = [cells for line in out.splitlines() if (cells := _cells(line))]
    assert [cells[1] for cells in lines if cells[0] == "float16"] == ["768", "768"]
    assert [cells[1] for cells in lines if cells[0] == "uint8"] == ["384", "384"]
    assert all(float(cells[5]) > 0.9 for cells in lines if cells[0] == "float16")


@pytest.mark.slow
def test_a_small_run_of_many_collections_reports_every_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.md"
    assert main(["collections", "--numbers", "2", "--idle-seconds", "0.1", "--write", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"## {document.COLLECTIONS}\n\n{out.strip()}" in file.read_text()
    figures = {cells[0]: cells[2] for line in out.splitlines() if len(cells := _cells(line)) == 3}
    for row in collections.ROWS:
        assert float(figures[row.label].replace(",", "")) >= 0, row.label


@pytest.mark.slow
def test_a_small_run_of_snapshots_reports_every_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "benchmarks.md"
    arguments = ["--data", "generated", "--vectors", "1200", "--seconds", "0.5", "--write", str(file)]
    assert main(["snapshots", *arguments]) == 0
    out = capsys.readouterr().out
    assert f"## {document.SNAPSHOTS}\n\n{out.strip()}" in file.read_text()
    figures = {cells[0]: cells[1] for line in out.splitlines() if len(cells := _cells(line)) == 2}
    for text in snapshots.ROWS.values():
        assert float(figures[text].replace(",", "")) >= 0, text


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


class TestPeers:
    """What becomes of a peer that cannot be measured: the run goes on and says so."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        figures = {row.key: 1.0 for row in ROWS}
        monkeypatch.setattr("bench.__main__.measure", lambda target, data, pace, found, caches: found.update(figures))
        monkeypatch.setattr("bench.__main__.VecraftServer", _Nothing)

    def test_one_that_is_missing_is_named(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lancedb", None)
        monkeypatch.delitem(sys.modules, "bench.lance", raising=False)
        assert main([*SMALL, "--peers", "lancedb"]) == 0
        assert "- lancedb: not measured, import of lancedb halted; None in sys.modules (pip install" in capsys.readouterr().out

    def test_one_that_does_not_run_is_named(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PEERS, "broken", lambda folder: Embedded(_Broken, folder))
        assert main([*SMALL, "--peers", "broken"]) == 0
        assert "- broken: not measured, broken: OSError: no room" in capsys.readouterr().out

    def test_what_was_measured_of_one_that_fails_later_stays(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def measure(target: _Nothing, data: object, pace: object, found: dict[str, float], caches: bool) -> None:
            found.update({row.key: 1.0 for row in ROWS})
            if target.name == "failing":
                raise TimeoutError("too slow")

        monkeypatch.setattr("bench.__main__.measure", measure)
        monkeypatch.setitem(PEERS, "failing", _Failing)
        assert main([*SMALL, "--peers", "failing"]) == 0
        out = capsys.readouterr().out
        assert "of the machine meanwhile; not measured further, too slow" in out
        assert "- failing: better in 0 figures" in out

    def test_an_unknown_one_is_refused(self) -> None:
        with pytest.raises(SystemExit, match="'milvus' is not known, known are chroma, milvus-lite"):
            main([*SMALL, "--peers", "milvus"])


class _Nothing:
    """A target that is never asked anything."""

    name = "vecraft"
    settings = ""

    def __init__(self, folder: object) -> None:
        pass

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Failing(_Nothing):
    name = "failing"


class _Broken(FaissFloor):
    """An engine that cannot open anything."""

    name = "broken"

    def __init__(self, folder: Path) -> None:
        raise OSError("no room")


class TestFresh:
    """The queries that no cache has seen."""

    data = generate(VECTORS)

    def test_none_comes_twice_or_is_a_real_one(self) -> None:
        fresh = Fresh(self.data.queries)
        taken = np.concatenate([self.data.queries, fresh.take(1000), fresh.take(1000)])
        assert len(np.unique(taken, axis=0)) == len(taken)
        assert np.allclose(np.linalg.norm(taken, axis=1), 1, atol=1e-5)

    def test_the_truth_is_that_of_the_real_ones(self) -> None:
        taken = Fresh(self.data.queries).take(len(self.data.queries))
        assert (taken * self.data.queries).sum(axis=1).min() > 1 - NOISE**2
        exact = np.argsort(-(taken @ self.data.vectors.T), axis=1)[:, :K].tolist()
        assert recall(self.data, truth_of(self.data), exact) > 0.99

    def test_a_window_sends_each_request_once(self) -> None:
        sent = _Recorder()
        first, second = in_threads(lambda: sent, [list(range(50)), list(range(50, 90))], seconds=30, warm_up_s=0)
        assert sorted(sent.requests) == list(range(90))
        assert (len(first.seconds), len(second.seconds), first.failed()) == (50, 40, 0)

    def test_what_fails_is_counted_and_not_timed(self) -> None:
        (taken,) = in_threads(lambda: _Recorder(refuses=(3, 7)), [list(range(50))], seconds=30, warm_up_s=0)
        assert (taken.failed(), len(taken.answered()), taken.error) == (2, 48, "ValueError: 3 is refused")


class _Recorder:
    """A connection that remembers what was sent."""

    def __init__(self, refuses: tuple[int, ...] = ()) -> None:
        self.requests: list[int] = []
        self._refuses = refuses

    def send(self, request: int) -> None:
        self.requests.append(request)
        if request in self._refuses:
            raise ValueError(f"{request} is refused")

    def close(self) -> None:
        pass


class TestReport:
    """What the text says of given figures."""

    def test_losses_are_as_plain_as_wins(self) -> None:
        figures = {
            "vecraft": {"search1_p50": 2.0, "search1_qps": 500.0, "pss": 100.0},
            "peer": {"search1_p50": 1.0, "pss": 101.0},
        }
        lines = "\n".join([*_advantages(figures), *_verdicts(figures)])
        assert "**0.500x**" in lines
        assert "- peer: better in 0 figures, within 5% in 1, worse in 1: search, 1 client, p50 (2.00x)" in lines

    def test_less_is_better_where_the_line_says_so(self) -> None:
        up, down = Row("", "", "", UP), Row("", "", "", DOWN)
        assert (advantage(up, 2.0, 1.0), advantage(down, 2.0, 1.0)) == (2.0, 0.5)
        assert advantage(up, None, 1.0) is advantage(down, 1.0, 0.0) is None

    def test_a_section_is_replaced_and_the_other_stays(self, tmp_path: Path) -> None:
        file = tmp_path / "docs" / "benchmarks.md"
        for title, text in ((document.SCALING, "grows"), (document.PEERS, "old"), (document.PEERS, "new")):
            document.write(file, title, text)
        text = file.read_text()
        assert text.startswith("# Benchmarks\n")
        assert text.endswith("## Beside its peers\n\nnew\n\n## As it grows\n\ngrows\n")


class TestScaling:
    """The parts of `python -m bench scaling` that need no server."""

    def test_pieces_are_the_same_each_time_and_filters_pass_their_share(self) -> None:
        clusters = Clusters(10_000)
        points = clusters.points(5_000, 5_000)
        assert np.array_equal(points.vectors, Clusters(10_000).points(5_000, 5_000).vectors)
        shares = Counter(payload["section"] for payload in points.payloads)
        assert 0.08 < shares["wide"] / 5_000 < 0.12
        assert 0.005 < shares["narrow"] / 5_000 < 0.015

    def test_the_truth_by_pieces_is_the_truth(self) -> None:
        data = generate(VECTORS)
        truths = scaling.Truths(data.queries)
        for points in data.batches(150):
            truths.add(points)
        exact = np.argsort(-(data.queries @ data.vectors.T), axis=1)[:, :K].tolist()

        def score(query: int, row: int) -> float:
            return float(data.queries[query] @ data.vectors[row])

        assert truths.recall("all", exact, score) == 1
        assert truths.recall("all", [rows[:5] for rows in exact], score) == pytest.approx(0.5)
        narrow = data.rows_with(Filter("section", "narrow")).tolist()
        assert truths.recall("narrow", [narrow] * len(exact), score) == 1

    def test_growth_is_told_from_size_to_size(self) -> None:
        text = scaling.render({10: {"all_p50": 1.0}, 100: {"all_p50": 2.5}}, [])
        line = next(line for line in text.splitlines() if line.startswith("| search, p50"))
        assert _cells(line) == ["search, p50", "ms ↓", "1.000", "2.50", "2.50x"]


class TestTruth:
    """Recall as the benchmark counts it."""

    data = generate(VECTORS)

    def exact(self) -> list[list[int]]:
        return np.argsort(-(self.data.queries @ self.data.vectors.T), axis=1)[:, :K].tolist()

    def test_exact_neighbours_are_all_there_are(self) -> None:
        assert recall(self.data, truth_of(self.data), self.exact()) == 1

    def test_strangers_doubles_and_missing_hits_count_as_missed(self) -> None:
        truth, found = truth_of(self.data), self.exact()
        assert recall(self.data, truth, [[rows[0]] * K for rows in found]) == pytest.approx(1 / K)
        assert recall(self.data, truth, [rows[:5] for rows in found]) == pytest.approx(0.5)
        assert complete(truth, [rows[:5] for rows in found]) == 0

    def test_hits_outside_the_filter_do_not_count(self) -> None:
        wide = self.data.rows_with(Filter("section", "wide"))
        truth = truth_of(self.data, wide)
        assert truth.size == min(K, len(wide))
        assert recall(self.data, truth, [np.setdiff1d(rows, wide).tolist() for rows in self.exact()]) == 0

    def test_a_copy_of_a_neighbour_is_as_good(self) -> None:
        found = self.exact()
        vectors, last = self.data.vectors.copy(), found[0][K - 1]
        copy = next(row for row in range(VECTORS) if row not in found[0])
        vectors[copy] = vectors[last]
        copied = type(self.data)("", vectors, self.data.queries[:1], self.data.payloads)
        assert recall(copied, truth_of(copied), [[*found[0][: K - 1], copy]]) == 1


class TestKafka:
    """The parts of `python -m bench kafka` that need no broker."""

    def test_a_profile_counts_the_time_of_nested_parts_once(self) -> None:
        clock = count()
        profile = kafka.Profile(lambda: float(next(clock)))
        inner = profile.timed("inner", lambda: None)
        profile.timed("outer", lambda: (inner(), inner()))()
        assert {name: s for name, s in profile.seconds.items() if s} == {"inner": 2, "outer": 3}

    def test_a_profile_puts_every_function_back(self) -> None:
        functions = [getattr(owner, name) for _, owner, name in kafka.Profile.PARTS]
        with kafka.Profile():
            assert all(getattr(o, n) is not f for (_, o, n), f in zip(kafka.Profile.PARTS, functions, strict=True))
        assert [getattr(owner, name) for _, owner, name in kafka.Profile.PARTS] == functions

    def test_the_shares_of_a_replay_are_all_of_it(self) -> None:
        rows = kafka.share_rows({"a": 1.0, "b": 2.0}, 4.0, 1000)
        assert [row[0] for row in rows] == ["a", "b", "the rest", "= all"]
        assert [row[2] for row in rows] == ["25.0%", "50.0%", "25.0%", "100.0%"]

    @pytest.mark.parametrize(("slowest_s", "verdict"), [(0.025, "yes"), (0.026, "NO")])
    def test_only_the_99th_percentile_is_held_to_the_promise(self, slowest_s: float, verdict: str) -> None:
        """V15"""
        p50, p99 = kafka.write_rows("", [slowest_s] * 100, [0.001] * 100)
        assert (p50[-1], p99[-1]) == ("—", verdict)

    def test_both_forms_of_an_ingest_record_say_the_same(self) -> None:
        data, registry = generate(VECTORS), SchemaRegistry("")
        avro, json = (
            change_of(Entry(TopicPartition("ingest", 0), 0, 0, b"7", encode("c", 7, data), ()), registry)
            for encode in (kafka.avro, kafka.json)
        )
        assert avro == json
        assert avro.operation.vectors[0].array()[0].tolist() == data.vectors[7].tolist()
        assert orjson.loads(avro.operation.payloads[0]) == data.payloads[7]
