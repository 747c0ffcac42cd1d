"""The vectors of one name in one shard: segments with graphs for dense vectors, one array of multi-vectors, postings of sparse
vectors.

Owns how vectors are stored, searched and compared; only this package uses FAISS. Must not use payloads, points or the journal.
"""
