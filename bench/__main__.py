"""`python -m bench`: measures Vecraft DB and its peers and prints tables; with `kafka` the journal on Kafka. Progress: stderr."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.chroma import Chroma
from bench.data import REAL, Data, generate, load
from bench.faiss_floor import FaissFloor
from bench.machine import Others
from bench.measure import Figures, Pace, measure
from bench.parts import rates
from bench.progress import say
from bench.report import render
from bench.target import Target
from bench.vecraft_server import VecraftServer

GENERATED_VECTORS = 20_000
PEERS: dict[str, Callable[[Path], Target]] = {"chroma": Chroma, "faiss": FaissFloor}


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark. Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["kafka"]:
        from bench import kafka  # only here, since it needs what the tests need

        return kafka.main(arguments[1:], _data)
    options = _parser().parse_args(arguments)
    data = _data(options.data, options.vectors)
    pace = Pace(options.seconds)
    figures: dict[str, Figures] = {}
    notes: list[str] = []
    makers: list[Callable[[Path], Target]] = [VecraftServer, *(PEERS[name] for name in _available(options.peers, notes))]
    for make in makers:
        others = Others()
        with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as folder, make(Path(folder)) as target:
            figures[target.name] = measure(target, data, pace)
        notes.append(f"{target.name}: {target.settings}; others took {others.share():.0%} of the machine meanwhile")
    say("ingest, step by step")
    print(render(data, notes, figures, rates(data)))
    return 0


def _available(names: str, notes: list[str]) -> list[str]:
    """The peers asked for, less those that cannot run here; `notes` says so."""
    wanted = [name for name in names.split(",") if name]
    if unknown := [name for name in wanted if name not in PEERS]:
        sys.exit(f"bench: peer {unknown[0]!r} is not known, known are {', '.join(PEERS)}")
    if "chroma" in wanted and importlib.util.find_spec("chromadb") is None:
        notes.append("Chroma: not measured, chromadb is not installed (pip install -e '.[bench]')")
        say(notes[-1])
        wanted.remove("chroma")
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
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a timed window (default: %(default)s)")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with the benchmark
    sys.exit(main())
