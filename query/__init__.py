"""Reads: filters, the plan for one shard, fan-out and merge, and the gate that holds a read until the state is new enough.

Owns what a request means and how it is answered from shards. Must not write, follow the journal, or know of HTTP.
"""
