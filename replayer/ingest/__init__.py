"""The ingest topic: copies the records of foreign producers into the journal, exactly once (U2).

Owns the formats that producers may use, and the consumer group member that writes their changes. Must not apply anything to
shards: these writes reach them through the journal, like all others.
"""
