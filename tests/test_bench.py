"""The benchmark measures what it says, on a few vectors; how fast anything is, is no test's business."""

from __future__ import annotations

import numpy as np
import pytest

from bench.__main__ import main
from bench.data import K, complete, generate, recall, truth_of
from bench.report import ROWS

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
