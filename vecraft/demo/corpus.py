"""The demo's input: the docstrings of the Python that runs it, and their meaning as vectors.

Every machine that can run the project has these texts. Their vectors come from latent semantic analysis (Deerwester et al.,
1990), computed on the spot: word counts weighted by rarity, projected on the directions in which the texts differ most.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

DIMENSIONS = 384
MAX_TEXT_CHARS = 500
"""A payload holds this much of a docstring; its vector is made from all of it."""
SEED = 0

_SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "distutils", "turtledemo", "pydoc_data"}
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Docstring(NamedTuple):
    """A module, class, function or method that has a docstring, and where it stands. `name` is unique in the corpus."""

    name: str
    module: str
    kind: str
    text: str
    line: int

    @property
    def summary(self) -> str:
        return self.text.partition("\n")[0]

    def payload(self) -> dict[str, object]:
        return {
            "name": self.name,
            "module": self.module,
            "kind": self.kind,
            "summary": self.summary,
            "text": self.text[:MAX_TEXT_CHARS],
            "line": self.line,
        }


def standard_library() -> list[Docstring]:
    """The docstrings of the running Python's own library, in the order of its files. Empty when the sources are not there."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Docstring] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED.isdisjoint(parts) and all(part.isidentifier() for part in parts):
            module = ".".join(parts).removesuffix(".__init__")
            for docstring in _docstrings(ast.parse(path.read_bytes()), module):
                found.setdefault(docstring.name, docstring)
    return list(found.values())


def _docstrings(tree: ast.Module, module: str) -> Iterator[Docstring]:
    if text := ast.get_docstring(tree):
        yield Docstring(module, module, "module", text, 1)
    yield from _inside(tree, module, module)


def _inside(scope: ast.AST, name: str, module: str) -> Iterator[Docstring]:
    """Those of the definitions in `scope`, which has that name; also in branches such as `if` and `try`."""
    for node in ast.iter_child_nodes(scope):
        if not isinstance(node, _DEFINITIONS):
            if isinstance(node, ast.stmt):
                yield from _inside(node, name, module)
            continue
        inner = f"{name}.{node.name}"
        if text := ast.get_docstring(node):
            yield Docstring(inner, module, _kind(node, scope), text, node.lineno)
        yield from _inside(node, inner, module)


def _kind(node: ast.AST, scope: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "method" if isinstance(scope, ast.ClassDef) else "function"


class LatentSemantics:
    """The space of a corpus: `vectors`, float32 of shape (texts, DIMENSIONS) and length 1, and those of new texts."""

    def __init__(self, corpus: list[Docstring]) -> None:
        self._weights = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english", token_pattern=r"[A-Za-z][A-Za-z0-9]+")
        self._space = TruncatedSVD(DIMENSIONS, n_iter=4, random_state=SEED)
        counts = self._weights.fit_transform([_words(docstring) for docstring in corpus])
        self.vectors: NDArray[np.float32] = normalize(self._space.fit_transform(counts)).astype(np.float32)

    def vector(self, text: str) -> list[float]:
        """The vector of a text, which need not be of the corpus; words that the corpus does not have add nothing."""
        vector: list[float] = normalize(self._space.transform(self._weights.transform([text])))[0].tolist()
        return vector


def _words(docstring: Docstring) -> str:
    """The docstring and the words of its name."""
    return f"{_CAMEL_CASE.sub(' ', docstring.name.replace('_', ' '))}\n{docstring.text}"
