"""A writer over the journal in memory, where it writes to, and what of it is in the log."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from journal import codec
from journal.hlc import Clock
from journal.ids import encode_id
from journal.log import Entry
from journal.memory import AppendFault, MemoryJournal
from journal.records import Delete, PointOperation, Record
from journal.topics import Topics, shard_of
from journal.writer import Destination, Origin, Receipt, Writer
from tests.journal.entries import read

TOPICS = Topics()
HOMES = [[0, 3, 5, 1], [1, 3, 0, 0], [1, 2, 5, 1]]
DESTINATION = Destination("acme", 12, 34, HOMES)
ORIGIN = Origin("r-1", principal="key:ci")
NOW_MS = 1_000_000


@dataclass
class World:
    """A writer, its log, and the two clocks between them."""

    node_ms: int = NOW_MS
    log_ms: int = NOW_MS
    faults: Iterator[AppendFault | None] = field(default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        self.journal = MemoryJournal(lambda: self.log_ms, lambda _: next(self.faults, None))
        self.journal.ensure_topics(TOPICS.all())
        self.clock = Clock(lambda: self.node_ms)
        self.writer = Writer(self.journal, TOPICS, self.clock)

    def write(self, *operations: PointOperation, tier: int = 2, origin: Origin = ORIGIN) -> Receipt:
        return self.writer.write_points(DESTINATION, operations, tier, origin).result(0)

    def log(self) -> list[tuple[Entry, Record]]:
        partitions = [*TOPICS.data_partitions(), TOPICS.system_partition]
        return [(entry, codec.decode(entry.value)) for entry in read(self.journal, dict.fromkeys(partitions, 0))]


def ids_of(shard: int, count: int = 1) -> list[bytes]:
    """Ids of points in one of the three shards."""
    numbers = (encode_id(n) for n in range(10_000))
    return [point_id for point_id in numbers if shard_of(point_id, len(HOMES)) == shard][:count]


EVERYWHERE = Delete([ids_of(shard)[0] for shard in range(3)])
