"""What the tests of the ingest share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replayer.ingest.ingest_rig import IngestRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[IngestRig]:
    rig = IngestRig(tmp_path)
    yield rig
    rig.ingest.close()
    rig.replayer.close()
