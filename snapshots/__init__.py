"""Snapshots: copies of the state of a node, and of collections, that a new start or another database can begin from.

Owns where they lie (a folder or S3), their manifests, how they are made, verified, pruned and restored, and the archives of the
dialect. The log stays the only truth: a snapshot saves the time of a replay, an archive is recovered by writing it to the log.
Must not know HTTP, nor how records are replayed; the wall clock is passed in.
"""
