"""Admission: checks before any work is done: limits of the collection, rate limits, the memory budget, file descriptors.

Owns the checks and their error texts. Must not answer requests.
"""
