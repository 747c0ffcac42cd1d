"""The benchmark measures what it says, on a few vectors; how fast anything is, is no test's business."""

from __future__ import annotations

from itertools import count

import numpy as np
import orjson
import pytest

from bench import kafka
from bench.__main__ import main
from bench.data import K, complete, generate, recall, truth_of
from bench.report import ROWS
from journal.log import Entry, TopicPartition
from journal.registry import SchemaRegistry
from replayer.ingest_format import change_of

VECTORS = 400


def test_a_small_run_reports_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "generated", "--vectors", str(VECTORS), "--peers", "faiss", "--seconds", "0.2"]) == 0
    out = capsys.readouterr().out
    lines = {cells[0]: cells[1:] for line in out.splitlines() if (cells := [cell.strip() for cell in line.split("|")[1:-1]])}
    assert lines[""][1:] == ["vecraft", "faiss", "vecraft / faiss"]
    for row in ROWS:
        assert float(lines[row.label][1].replace(",", "")) >= 0, row.label
    for row in ROWS:
        if row.key.endswith(("recall", "complete")):
            assert float(lines[row.label][1]) > 0.99, row.label  # so few vectors are compared one by one
    assert float(lines["recall@10 with ties"][2]) > 0.9
    assert "= the replay, one after the other" in lines


def test_chroma_is_named_when_it_cannot_be_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("bench.__main__.measure", lambda *_: {row.key: 1.0 for row in ROWS})
    monkeypatch.setattr("bench.__main__.VecraftServer", _Nothing)
    assert main(["--data", "generated", "--vectors", str(VECTORS), "--peers", "chroma"]) == 0
    assert "Chroma: not measured" in capsys.readouterr().out


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(SystemExit, match="'milvus' is not known, known are chroma, faiss"):
        main(["--data", "generated", "--vectors", str(VECTORS), "--peers", "milvus"])


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
        wide = self.data.rows_with("wide")
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
