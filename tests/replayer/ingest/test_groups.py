"""U2, J12: the ingest group under joins and leaves, a thousand of them, while records flow."""

from __future__ import annotations

import random

import orjson
import pytest

from journal.ids import encode_id
from journal.log import Batch, Indefinite, JournalError
from journal.topics import INGEST_PARTITIONS
from replayer.ingest.member import Ingest
from tests.replayer.ingest.ingest_rig import IngestRig, upsert

CHANGES = 1_000


class Late:
    """A member that was thrown out of the group with a batch in its hands, and does not know it yet."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def poll(self, *_: object) -> Batch:
        return self._batch

    def commit(self, positions: object, epochs: object) -> None:
        raise Indefinite("not this member's partitions any more")

    def close(self) -> None:
        pass


def test_a_thousand_joins_and_leaves(rig: IngestRig) -> None:
    """Members come and go; some still write what they held when others had written it, and more, long before."""
    choose = random.Random(11)
    members: list[Ingest] = [rig.ingest]
    late: list[Ingest] = []
    produced = 0
    for _ in range(CHANGES):
        for _ in range(choose.randint(0, 3)):
            rig.produce(upsert(produced % 7, produced), partition=produced % 7 % INGEST_PARTITIONS)
            produced += 1
        if not members or (len(members) < 4 and choose.random() < 0.6):
            members.append(rig.member())
        else:
            leaving = members.pop(choose.randrange(len(members)))
            assert leaving._member is not None
            batch = leaving._member.poll(0)
            leaving.close()
            leaving._member = Late(batch)  # type: ignore[assignment]
            late.append(leaving)
        for member in choose.sample(members, len(members)):
            member.step(0)
        if late and choose.random() < 0.3:
            late.pop(0).step(0)
        rig.replayer.step(0)
    for member in members:
        member.close()
    rig.ingest = rig.member()
    rig.settle()
    for member in late:
        member.step(0)
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
