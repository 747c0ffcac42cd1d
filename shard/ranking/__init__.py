"""Ranking: the ranking requests to one shard, as values that can be encoded, and their execution on one view.

Owns scores and the query plan for one shard. Must not know of other shards, aliases of collections, or the dialect.
"""
