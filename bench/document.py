"""Updates `docs/benchmarks.md`: one section per benchmark, replaced when the benchmark runs again."""

from __future__ import annotations

import re
from pathlib import Path

PEERS, SCALING, DATATYPES = "Beside its peers", "As it grows", "Datatypes and quantisation"
COLLECTIONS, REWIND, SNAPSHOTS, FEED = "Many collections", "The past", "Snapshots", "Change feed"
"""Titles of the sections, in order."""

_HEAD = """# Benchmarks

Written by `python -m bench`, and by `python -m bench scaling`, `datatypes`, `collections`, `rewind`, `snapshots` and `feed`,
with `--write`; nothing here is typed by hand. Higher is better where a line says ↑, lower where it says ↓.
"""


def write(file: Path, title: str, text: str) -> None:
    """Replaces one section of the file; keeps the others."""
    sections = _sections(file.read_text()) if file.exists() else {}
    sections[title] = text.strip()
    titles = (PEERS, SCALING, DATATYPES, COLLECTIONS, REWIND, SNAPSHOTS, FEED)
    parts = [f"## {title}\n\n{sections[title]}\n" for title in titles if title in sections]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([_HEAD, *parts]))


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {title: body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}
