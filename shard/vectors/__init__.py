"""The vectors of one name in one shard: segments and graphs for dense ones, a block of multi-vectors, postings of sparse ones.

Owns how vectors are kept, found and compared; the one place that knows FAISS. Must not know of payloads, points or the journal.
"""
