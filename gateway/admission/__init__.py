"""Admission: what a request is refused for before any work is done: limits of its collection, rates, the memory budget.

Owns the checks and their texts. Must not answer requests.
"""
