"""The replayer: follows the journal and applies it to this process's catalog and shards.

Owns the loop, the verdict on each record, dead letters, the offsets that dashboards see, and what became of recent requests.
Must not serve reads, know of HTTP, or decide anything by the wall clock that replicas could decide differently.
"""
