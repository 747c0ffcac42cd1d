"""One shard's state: a projection of the journal that may be thrown away and replayed (I1).

Owns point rows in RocksDB, vectors in FAISS segments, the payload index, and the join, by which the state does not depend on the
order in which records of different tiers arrive (I5). Must not read the journal, know of other shards, parse requests, or read a
clock.
"""
