"""The benchmark: Vecraft DB beside its peers on the same data, machine and run, as ratios. `python -m bench`, or `make bench`.

A target is a database under test (`target`): a server (`server`) or a library in a process of its own (`embedded`). Each makes
requests for the same work, one client or several send them (`client`), `measure` times them and compares what they find with
exact neighbours (`data`), `report` prints the figures, `document` keeps them in docs/benchmarks.md. `scaling` shows how they
grow, `kafka` what the journal costs there. Not part of the installed packages; must not be imported by them.
"""
