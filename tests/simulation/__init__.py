"""The simulator: whole histories from a seed, run through the real code and held against a model of the log (N5)."""
