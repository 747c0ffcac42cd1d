"""U2, J12: the ingest group under joins and leaves, a thousand of them, while records flow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from journal.ids import encode_id
from journal.log import JournalError
from journal.topics import INGEST_PARTITIONS
from replayer.ingest import Ingest
from tests.replayer.test_ingest import IngestRig, upsert

CHANGES = 1_000


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[IngestRig]:
    rig = IngestRig(tmp_path)
    yield rig
    rig.ingest.close()
    rig.replayer.close()


def test_a_thousand_joins_and_leaves(rig: IngestRig) -> None:
    """Members come, go, and are thrown out between reading and committing; every record is applied once, in its point's order."""
    choose = random.Random(11)
    members: list[Ingest] = [rig.ingest]
    produced = 0
    for _ in range(CHANGES):
        for _ in range(choose.randint(0, 3)):
            rig.produce(upsert(produced % 7, produced), partition=produced % 7 % INGEST_PARTITIONS)
            produced += 1
        if not members or (len(members) < 4 and choose.random() < 0.6):
            members.append(rig.member())
        else:
            leaving = members.pop(choose.randrange(len(members)))
            if choose.random() < 0.5:  # it has read, and written, when the group gives its share to others
                leaving._commit = lambda positions: None  # type: ignore[method-assign]
                leaving.step(0)
            leaving.close()
        for member in choose.sample(members, len(members)):
            member.step(0)
        rig.replayer.step(0)
    for member in members:
        member.close()
    rig.ingest = rig.member()
    rig.settle()
    last = {encode_id(point): {"n": max(range(point, produced, 7))} for point in range(7)}
    assert rig.payloads() == last
    assert rig.replayer.letters.list() == []
    assert rig.ingest.written < produced, "others have written most of it"


def test_a_member_on_a_log_that_fails_begins_again(rig: IngestRig) -> None:
    """A poll that fails is no reason to lose or repeat anything."""
    rig.produce(orjson.dumps(upsert(1, 1)))
    member = rig.ingest._member
    assert member is not None

    def fails(*_: object) -> None:
        raise JournalError("broken")

    member.poll = fails  # type: ignore[method-assign, assignment]
    with pytest.raises(JournalError):
        rig.ingest.step(0)
    rig.ingest.close()
    rig.ingest = rig.member()
    rig.settle()
    assert rig.payloads() == {encode_id(1): {"n": 1}}
