"""The replayer: follows the journal and applies it to this process's catalog, shards and list of dead letters.

Owns the loop, its projections, the verdict on each record, the ingest topic, the offsets that dashboards see, and what became of
recent requests. Must not serve reads, know of HTTP, or decide anything by the wall clock that replicas could decide differently.
"""
