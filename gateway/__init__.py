"""HTTP: parse, admit, call, answer. The Qdrant REST dialect and the project's own paths, over one table of routes.

Owns request bodies, status codes, headers and the OpenAPI document. The only place that imports fastapi. Must not decide what a
write means or how a read is answered.
"""
