"""The ingest topic: what foreign producers write, brought into the journal exactly once (U2).

Owns the formats that producers may use, and the consumer group member that writes their changes. Must not apply anything to
shards: what it writes reaches them through the journal, as every other write does.
"""
