"""Inference: vectors from the texts of requests, by BM25 or by a model that runs in this process.

Owns the computation of BM25, the loading and running of models, and the threads that they run in. It happens before a write is
put into the journal, which only holds vectors. Must not know collections or shards.
"""
