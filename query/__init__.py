"""Reads of a collection: requests as values, the coordinator that asks the replicas of its shards, and the gate of consistency.

Owns how an answer is put together from shards: rounds, merging, fusion, diversity, groups. Must not know where a replica is, look
into a shard, write, follow the journal, or know of HTTP.
"""
