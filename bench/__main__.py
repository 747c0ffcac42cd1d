"""`python -m bench`: measures Vecraft DB and its peers, and prints tables. Subcommands: `scaling` (growth with the data),
`datatypes` (memory and recall of each), `collections` (many small ones), `rewind` (the past), `snapshots` (what they cost and
save), `feed` (how soon a change is told) and `kafka` (the journal on Kafka). Progress goes to stderr."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import collections, datatypes, document, rewind, scaling, snapshots
from bench.data import REAL, Data, generate, load
from bench.machine import OtherProcesses
from bench.measure import Figures, Pace, measure
from bench.parts import rates
from bench.peers import PEERS
from bench.progress import say
from bench.report import OURS, render
from bench.target import Target
from bench.vecraft_server import VecraftServer

GENERATED_VECTORS = 20_000


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark. Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["kafka"]:
        from bench import kafka  # imported here because it needs the test dependencies

        return kafka.main(arguments[1:], _data)
    if arguments[:1] == ["feed"]:
        from bench import feed  # for the same reason

        return feed.main(arguments[1:])
    if arguments[:1] == ["scaling"]:
        return scaling.main(arguments[1:])
    if arguments[:1] == ["datatypes"]:
        return datatypes.main(arguments[1:], _data)
    if arguments[:1] == ["rewind"]:
        return rewind.main(arguments[1:], _data)
    if arguments[:1] == ["collections"]:
        return collections.main(arguments[1:])
    if arguments[:1] == ["snapshots"]:
        return snapshots.main(arguments[1:], _data)
    options = _parser().parse_args(arguments)
    wanted = _wanted(options.peers)
    data, pace = _data(options.data, options.vectors), Pace(options.seconds)
    say("ingest, step by step")
    parts = rates(data)
    figures: dict[str, Figures] = {OURS: {}}
    notes = [_measure(VecraftServer, data, pace, figures[OURS])]
    for name in wanted:
        peer_figures: Figures = {}
        try:
            notes.append(_measure(PEERS[name], data, pace, peer_figures))
        except Exception as error:  # a failing peer must not stop the benchmark
            notes.append(_not_measured(name, error))
            say(notes[-1])
        if peer_figures:
            figures[name] = peer_figures
    text = render(data, notes, figures, parts)
    print(text)
    if options.write is not None:
        document.write(options.write, document.PEERS, text)
    return 0


def _measure(make: Callable[[Path], Target], data: Data, pace: Pace, figures: Figures) -> str:
    """Fills in the figures of a target. Returns a note about it. Raises when Vecraft fails, or a peer fails without figures."""
    others, failure = OtherProcesses(), ""
    with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as folder, make(Path(folder)) as target:
        try:
            measure(target, data, pace, figures, caches=target.name == OURS)
        except Exception as error:
            if not figures or target.name == OURS:
                raise
            failure = f"; not measured further, {_reason(error)}"
            say(f"{target.name}{failure}")
    return f"{target.name}: {target.settings}; others took {others.share():.0%} of the machine meanwhile{failure}"


def _not_measured(name: str, error: Exception) -> str:
    remedy = " (pip install -e '.[bench]')" if isinstance(error, ImportError) else ""
    return f"{name}: not measured, {_reason(error)}{remedy}"


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _wanted(names: str) -> list[str]:
    wanted = [name for name in names.split(",") if name]
    if unknown := [name for name in wanted if name not in PEERS]:
        sys.exit(f"bench: peer {unknown[0]!r} is not known, known are {', '.join(PEERS)}")
    return wanted


def _data(folder: Path | None, vectors: int | None) -> Data:
    if folder is None and not REAL.is_dir():
        say(f"{REAL} is not there: generating data")
        return generate(vectors or GENERATED_VECTORS)
    return load(folder or REAL, vectors) if folder != Path("generated") else generate(vectors or GENERATED_VECTORS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Vecraft DB beside its peers, as ratios.")
    parser.add_argument("--vectors", type=int, help="how many at most (default: all real ones)")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--data", type=Path, help=f"a folder like {REAL.name}, or 'generated' (default: {REAL} when there)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a timed window (default: %(default)s)")
    parser.add_argument(
        "--write", type=Path, help="a Markdown file whose section on peers is replaced, such as docs/benchmarks.md"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers stop with the benchmark
    sys.exit(main())
