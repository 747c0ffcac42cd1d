"""The catalog: collections, aliases, payload schemas and shard homes, as a fold over the system topic (Journal-3).

Owns what a collection is and how commands change it; the outcome of a command is decided when its record is applied, the
same on every node. Must not write to the journal, touch shards, or read a clock.
"""
