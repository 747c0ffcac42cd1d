"""HTTP: parse, admit, call, answer. The Qdrant REST dialect and the project's own paths, over one table of routes.

`http` has the way from bytes to a request and back, `dialect` what bodies ask for and how results are shown, `admission` what is
refused before any work, `handlers` a function for each route; they read and write through the services of this package.

Must not decide what a write means or how a read is answered.
"""
