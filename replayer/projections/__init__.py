"""The projections: what this process makes of the journal, each from the partitions that it reads.

Owns the folds: the catalog, the shards with their quarantine, and the list of dead letters. Must not poll the log for new
records, or decide when positions are announced and committed: the loop does both.
"""
