"""The demo's input: the docstrings of Python's standard library, and their embeddings.

Every machine that can run the project has these texts. The embeddings are computed at start by latent semantic analysis
(Deerwester et al., 1990): TF-IDF weights, reduced by truncated SVD.
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
"""A docstring in a payload is cut to this length; its embedding uses the complete text."""
SEED = 0

_SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "distutils", "turtledemo", "pydoc_data"}
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Docstring(NamedTuple):
    """The docstring of a module, class, function or method, and its location. `name` is unique in the corpus."""

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
    """The docstrings of the standard library, in the order of its files. Empty when its sources are not installed."""
    root = Path(sysconfig.get_path("stdlib"))
    docstrings: dict[str, Docstring] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED.isdisjoint(parts) and all(part.isidentifier() for part in parts):
            module = ".".join(parts).removesuffix(".__init__")
            for docstring in _docstrings(ast.parse(path.read_bytes()), module):
                docstrings.setdefault(docstring.name, docstring)
    return list(docstrings.values())


def _docstrings(tree: ast.Module, module: str) -> Iterator[Docstring]:
    if text := ast.get_docstring(tree):
        yield Docstring(module, module, "module", text, 1)
    yield from _inside(tree, module, module)


def _inside(scope: ast.AST, name: str, module: str) -> Iterator[Docstring]:
    """The docstrings of the definitions in `scope`, including those inside `if` and `try`. `name` is the name of `scope`."""
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
    """The embeddings of a corpus, `vectors`: float32, shape (texts, DIMENSIONS), unit length. Also embeds new texts."""

    def __init__(self, corpus: list[Docstring]) -> None:
        self._weights = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english", token_pattern=r"[A-Za-z][A-Za-z0-9]+")
        self._space = TruncatedSVD(DIMENSIONS, n_iter=4, random_state=SEED)
        counts = self._weights.fit_transform([_words(docstring) for docstring in corpus])
        self.vectors: NDArray[np.float32] = normalize(self._space.fit_transform(counts)).astype(np.float32)

    def vector(self, text: str) -> list[float]:
        """The embedding of any text. Words that are not in the corpus are ignored."""
        vector: list[float] = normalize(self._space.transform(self._weights.transform([text])))[0].tolist()
        return vector


def _words(docstring: Docstring) -> str:
    """The docstring and the words of its name."""
    return f"{_CAMEL_CASE.sub(' ', docstring.name.replace('_', ' '))}\n{docstring.text}"
