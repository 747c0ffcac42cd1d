"""Reads of a collection: requests as values, the coordinator over the replicas of its shards, and the consistency gate.

Owns how an answer is computed from several shards: rounds, merging, fusion, diversity, groups. Must not know where a replica is,
access a shard directly, write, follow the journal, or know of HTTP.
"""
