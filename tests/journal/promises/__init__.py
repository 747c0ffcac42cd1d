"""The contract of a journal by subject: mixins that `tests.journal.contract` joins and gives their fixtures."""

PARTITIONS = 3
"""How many each topic of a test has."""
