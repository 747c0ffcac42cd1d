"""The audit of the log: checkpoints of its hash chains are noted while it grows, and the log is verified with them later (N12).

Owns the file of checkpoints, the background task that notes them, and the verification. Must not apply records, nor trust what
the node has applied: only the log and the checkpoints count here.
"""
