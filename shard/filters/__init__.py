"""Filters: conditions as values that can be encoded, and their evaluation on a point, an element of an array, and an index.

Owns the only definition of which points pass. Must not rank, or read anything except the given view.
"""
