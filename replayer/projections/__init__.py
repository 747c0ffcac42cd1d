"""The projections: state that this process folds from the journal, each from its own partitions.

Owns the catalog, the shards with their quarantine, and the list of dead letters. Must not poll the log for new records, and must
not announce or commit positions: the loop does this.
"""
