"""A replayer over a memory journal, for the tests of its projections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replayer.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.replayer.close()
