"""The house holds: floors import downwards only, and each fenced library is imported where the fence says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
FLOORS = {
    "schemas": set(),
    "payload": set(),
    "journal": {"schemas"},
    "catalog": {"journal", "payload"},
    "shard": {"catalog", "journal", "payload"},
    "replayer": {"shard", "catalog", "journal", "payload", "schemas"},
    "query": {"shard", "catalog", "journal", "payload"},
    "snapshots": {"shard", "catalog", "journal", "payload", "schemas"},
    "gateway": {"query", "replayer", "snapshots", "catalog", "journal", "payload", "shard"},
    "vecraft": {"gateway", "query", "replayer", "snapshots", "shard", "catalog", "journal", "payload", "schemas"},
}
FENCES = {
    "confluent_kafka": {"journal/kafka.py"},
    "faiss": {"shard/vectors/graph.py"},
    "rocksdict": {"journal/rocksdb.py", "journal/embedded.py", "shard/store.py"},
    "fastapi": {"gateway/http/app.py"},
    "mmh3": {"gateway/inference/bm25.py"},
    "obstore": {"snapshots/place.py"},
    "onnxruntime": {"gateway/inference/onnx_model.py"},
    "python_multipart": {"gateway/http/uploads.py"},
    "tokenizers": {"gateway/inference/onnx_model.py"},
    "uvicorn": {"gateway/http/connection.py", "vecraft/node.py"},
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FLOORS)
def test_lower_floors_do_not_import_higher_ones(package: str) -> None:
    for path in (REPO / package).rglob("*.py"):
        above = imports(path) & FLOORS.keys() - FLOORS[package] - {package}
        assert not above, f"{path.relative_to(REPO)} imports {above}"


@pytest.mark.parametrize("library", FENCES)
def test_fenced_libraries_stay_behind_their_fence(library: str) -> None:
    files = {
        str(path.relative_to(REPO)) for package in FLOORS for path in (REPO / package).rglob("*.py") if library in imports(path)
    }
    assert files == FENCES[library]


@pytest.mark.parametrize("package", ["journal", "catalog", "shard", "replayer", "query", "snapshots"])
def test_clocks_and_randomness_come_from_outside(package: str) -> None:
    """The core takes its clock as an argument: a default may name the wall clock, no function body may read it."""
    for path in (REPO / package).rglob("*.py"):
        tree = ast.parse(path.read_text())
        bodies = [
            inner for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for inner in node.body
        ]
        calls = [ast.unparse(call.func) for body in bodies for call in ast.walk(body) if isinstance(call, ast.Call)]
        wall = {
            name
            for name in calls
            if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow") or name.startswith("random.")
        }
        assert not wall, f"{path.relative_to(REPO)} calls {wall}"


@pytest.mark.parametrize("package", FLOORS)
def test_every_package_says_what_it_is_for(package: str) -> None:
    docstring = ast.get_docstring(ast.parse((REPO / package / "__init__.py").read_text())) or ""
    assert len(docstring.split()) > 15


def test_every_file_that_is_named_is_there() -> None:
    """In the documents, and in the docstrings and comments of the packages."""
    documents = [REPO / "README.md", *(REPO / "docs").glob("*.md")]
    sources = [path for package in FLOORS for path in (REPO / package).rglob("*.py")]
    names = "|".join([*FLOORS, "tests", "bench", "docs"])
    named = re.compile(rf"`((?:{names})/[\w/.-]*)`")
    missing = {
        (str(path.relative_to(REPO)), name)
        for path in [*documents, *sources]
        for name in named.findall(path.read_text())
        if not (REPO / name).exists()
    }
    assert not missing
