"""HTTP: the application, an endpoint for each route, the table of routes, the OpenAPI document, error answers, metrics.

Owns the conversion of bytes to requests and of results to bytes. Must not know what a route does.
"""
