"""The replayer: reads the journal and applies it to this process's catalog, shards and list of dead letters.

Owns the loop, its projections, the verdict on each record, the ingest topic, the consumer group offsets for dashboards, the
results of recent requests, pages of the log for people, and the audit of the log. Must not serve reads or know HTTP. Must not
use the wall clock for a decision that must be the same on all replicas.
"""
