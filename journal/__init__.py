"""The journal: the only truth of the database. Everything else is a projection of it that can be replayed.

Owns the hybrid logical clock, the records and their Avro form, topics and routing, positions and tokens, the narrow
`Journal` interface with its three implementations (memory, embedded, Kafka), and the writer that turns operations into
records. Must not know collections' contents, shards or HTTP, and nothing above it may tell which implementation it runs on.
"""
