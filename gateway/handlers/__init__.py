"""Handlers: one function for each route, which reads and writes through the given services.

Must not parse bytes, know of sockets, or access shards and the replayer without the services.
"""
