"""The benchmark: compares Vecraft DB with its peers, with the same data, machine and run. `python -m bench`, or `make bench`.

A target (`target`) is a database under test: a server (`server`), or a library in its own process (`embedded`). Each target
prepares requests for the same work, clients send them (`client`), `measure` times them and computes recall against the exact
neighbours (`data`), `report` renders the figures, `document` stores them in docs/benchmarks.md. `scaling` measures how the costs
grow with the data, `kafka` measures the journal on Kafka. Not installed; the installed packages must not import it.
"""
