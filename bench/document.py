"""`docs/benchmarks.md`: a section for each benchmark that was run, replaced when it is run again."""

from __future__ import annotations

import re
from pathlib import Path

PEERS, SCALING = "Beside its peers", "As it grows"
"""The sections, in their order."""

_HEAD = """# Benchmarks

Written by `python -m bench --write` and `python -m bench scaling --write`; nothing here is typed by hand. Higher is better
where a line says ↑, lower where it says ↓.
"""


def write(file: Path, title: str, text: str) -> None:
    """Puts the text into its section; the others stay."""
    sections = _sections(file.read_text()) if file.exists() else {}
    sections[title] = text.strip()
    parts = [f"## {title}\n\n{sections[title]}\n" for title in (PEERS, SCALING) if title in sections]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([_HEAD, *parts]))


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {title: body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}
