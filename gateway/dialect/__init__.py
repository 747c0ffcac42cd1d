"""The dialect: typed structures of request bodies, their conversion to requests and operations, and of results to answers.

Owns everything that is specific to the dialect. Must not read or write. Pure modules can also run in another process.
"""
