"""The catalog: collections, aliases, payload schemas and shard homes, folded from the system topic (Journal-3).

Owns the definition of a collection and the effect of commands on it. The outcome of a command is decided when its record is
applied, and is the same on every node. Must not write to the journal, access shards, or read a clock.
"""
