"""Handlers: one function for each route, which reads or writes through the services that it is given.

Must not parse bytes, know of sockets, or reach past the services into shards and the replayer.
"""
