"""Ranking: what one shard is asked to rank by, as values that can be encoded, and how it does that on one view.

Owns scores and the plan for one shard. Must not know of other shards, collections' aliases, or the dialect.
"""
