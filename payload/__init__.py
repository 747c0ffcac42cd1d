"""What the values of payloads mean: paths into them, numbers and moments, texts and their words, places, the types of index.

Owns every rule by which a payload value is read or compared, so that gateway, shard and catalog read it alike. Must not know of
collections, shards or requests; imports nothing of the project.
"""
