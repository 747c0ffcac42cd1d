"""HTTP: parses, admits and executes requests. The Qdrant REST dialect and the project's own paths, in one table of routes.

`http` converts bytes to requests and results to bytes, `dialect` converts bodies to requests and results to answers, `admission`
refuses requests before any work, `inference` makes vectors of texts, `handlers` has a function for each route. Handlers read and
write through the services of this package.

Must not decide what a write means or how a read is executed.
"""
