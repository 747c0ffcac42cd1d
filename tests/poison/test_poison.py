"""I6, I11: a node goes on under poison, applies the good records in between, and tells of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.poison.__main__ import embedded, on_a_broker, run


@pytest.mark.slow
def test_the_embedded_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with embedded(tmp_path) as node:
        run(20_000, *node)
    assert "good points are as written" in capsys.readouterr().out


@pytest.mark.kafka
def test_kafka(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with on_a_broker(tmp_path) as node:
        run(3_000, *node)
    assert "good points are as written" in capsys.readouterr().out
