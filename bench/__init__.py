"""The benchmark: Vecraft DB beside its peers on the same data, machine and run, as ratios. `python -m bench`, or `make bench`.

A target is a database under test. Each gives requests for the same work (`target`), one client or several send them
(`client`), `measure` times them and compares what they find with exact neighbours (`data`), `report` prints the ratios.
Not part of the installed packages; must not be imported by them.
"""
