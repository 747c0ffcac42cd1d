"""One shard's state: a projection of the journal that may be thrown away and replayed (I1).

Owns point rows in RocksDB, vectors in FAISS segments, the payload index, and the join that makes any arrival order of the
tiers give the same state (I5). Must not read the journal, know of other shards, parse requests, or read a clock.
"""
