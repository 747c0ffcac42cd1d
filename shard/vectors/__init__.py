"""The vectors of one name in one shard: segments and graphs for dense ones, a block of multi-vectors, postings of sparse ones.

Owns how vectors are stored, searched and compared; the one place that uses FAISS. Must not use payloads, points or the journal.
"""
