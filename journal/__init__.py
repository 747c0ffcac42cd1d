"""The journal: the source of truth of the database. All other state is a projection of it and can be rebuilt by replay.

Owns the hybrid logical clock, the records and their Avro encoding, topics and routing, positions and tokens, the `Journal`
interface with its three implementations (memory, embedded, Kafka), and the writer that turns operations into records.
Must not know the contents of collections, shards or HTTP. Code above it must not depend on which implementation is used.
"""
