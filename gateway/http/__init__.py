"""HTTP: the application, one endpoint for each route, the table of routes, the OpenAPI document, errors as answers, metrics.

Owns the way from bytes to a request and from a result to bytes. Must not know what a route does.
"""
