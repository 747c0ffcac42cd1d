"""Filters: conditions as values that can be encoded, and what they mean for a point, an element of an array, and an index.

Owns the one definition of which points pass. Must not rank, and never reads anything but the view it is given.
"""
