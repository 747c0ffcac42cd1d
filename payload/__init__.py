"""The semantics of payload values: paths, numbers, timestamps, text and its tokens, geo coordinates, types of index.

Owns all rules by which payload values are parsed and compared, so that gateway, shard and catalog do it the same way. Must not
know collections, shards or requests; imports nothing from the project.
"""
