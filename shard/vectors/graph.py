"""FAISS, and nothing else: exact distances, and HNSW graphs over a fixed set of vectors. The one file that imports faiss.

Graphs only propose candidates; scores always come from the stored float32 vectors (I10).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the import; concurrent single-threaded searches beat parallel ones

import faiss as _faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from catalog.collection import (
    BinaryQuantization,
    Distance,
    HnswConfig,
    ProductQuantization,
    Quantization,
    ScalarQuantization,
)
from journal.records import Vectors

faiss: Any = _faiss  # its stubs know neither the search parameters nor the numpy signatures

Mask = NDArray[np.bool_]
"""bool, shape (n,): which of a segment's n vectors may be found."""

Bits = NDArray[np.uint8]
"""A mask with eight vectors a byte."""

LocalIds = NDArray[np.int64]

_HALF_LIMIT = 60_000.0
_READ_BYTES = 1 << 20
"""float16 ends at 65,504; vectors with larger values keep float32 codes."""

_METRICS: dict[Distance, int] = {
    Distance.COSINE: faiss.METRIC_INNER_PRODUCT,
    Distance.DOT: faiss.METRIC_INNER_PRODUCT,
    Distance.EUCLID: faiss.METRIC_L2,
    Distance.MANHATTAN: faiss.METRIC_L1,
}


_BY_INDEX = {
    Distance.COSINE: faiss.fvec_inner_products_by_idx,
    Distance.DOT: faiss.fvec_inner_products_by_idx,
    Distance.EUCLID: faiss.fvec_L2sqr_by_idx,
}


def exact_scores(distance: Distance, vectors: Vectors, query: Vectors) -> Vectors:
    """The dialect's score of each of `vectors`, shape (n, d), against `query`, shape (d,). Shape (n,), float32."""
    if distance.higher_is_closer:
        return vectors @ query
    difference = vectors - query
    if distance is Distance.EUCLID:
        scores: Vectors = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    else:
        scores = np.abs(difference).sum(axis=1)
    return scores


def scores_at(distance: Distance, vectors: Vectors, query: Vectors, at: LocalIds) -> Vectors:
    """`exact_scores` of the vectors at some places, without a copy of them where FAISS can do that."""
    if distance not in _BY_INDEX or not len(at):
        return exact_scores(distance, vectors[at], query)
    scores = np.empty(len(at), np.float32)
    at = np.ascontiguousarray(at, np.int64)
    query = np.ascontiguousarray(query, np.float32)
    by_index = _BY_INDEX[distance]
    by_index(*map(faiss.swig_ptr, (scores, query, vectors, at)), vectors.shape[1], 1, len(at))
    return np.sqrt(scores) if distance is Distance.EUCLID else scores


def similarities(distance: Distance, vectors: Vectors, query: Vectors) -> Vectors:
    """How close each vector is, the higher the closer: the score, or the distance (squared, for Euclid) negated. Shape (n,)."""
    scores = exact_scores(distance, vectors, query)
    return as_similarity(distance, scores)


def as_similarity(distance: Distance, scores: Vectors) -> Vectors:
    """Scores in the dialect's form, the higher the closer."""
    if distance.higher_is_closer:
        return scores
    return -(scores * scores) if distance is Distance.EUCLID else -scores


def bits_of(mask: Mask) -> Bits:
    """A mask as `Graph.search` takes it."""
    return np.packbits(mask, bitorder="little")


class GraphSpec(msgspec.Struct, frozen=True):
    """How a graph is built."""

    hnsw: HnswConfig = HnswConfig()
    quantization: Quantization | None = None


class CodeUse(NamedTuple):
    """How a search uses a graph's codes: whether the vectors themselves rank what the codes find, and how much more to find."""

    rescore: bool = True
    oversampling: float = 1.0


class Graph:
    """An immutable HNSW graph over n vectors, known by their index 0..n-1."""

    def __init__(self, index: Any, spec: GraphSpec) -> None:
        self._index = index
        self.spec = spec
        self._coarseness = _coarseness(spec.quantization)

    @classmethod
    def build(cls, vectors: Vectors, distance: Distance, spec: GraphSpec) -> Graph:
        """Builds the graph of `vectors`, shape (n, d). Takes about n/9000 seconds at d = 384; holds no lock meanwhile."""
        codes = _codes(vectors, distance, spec.quantization)
        index = _empty_index(vectors, distance, spec) if codes is None else faiss.IndexHNSWFlat(*_shape(vectors, distance, spec))
        if not index.is_trained:
            index.train(vectors)
        index.hnsw.efConstruction = spec.hnsw.ef_construct
        index.add(vectors)  # all at once: FAISS then inserts level by level, which is worth two points of recall
        if codes is not None:  # the links are those of the whole vectors; only the codes stay
            whole = index.storage
            codes.this.disown()
            index.storage = codes
            whole.this.own(True)
        return cls(index, spec)

    @classmethod
    def read(cls, folder: Path) -> Graph:
        """The graph that `write` put into `folder`, mapped. Raises RuntimeError, OSError or ValueError when it is damaged."""
        spec = msgspec.json.decode((folder / "graph.json").read_bytes(), type=GraphSpec)
        _read_ahead(folder / "graph.faiss")
        return cls(faiss.read_index(str(folder / "graph.faiss"), faiss.IO_FLAG_MMAP_IFC), spec)

    def write(self, folder: Path) -> None:
        faiss.write_index(self._index, str(folder / "graph.faiss"))
        (folder / "graph.json").write_bytes(msgspec.json.encode(self.spec))

    def code_bytes(self) -> int:
        """What the codes take."""
        return int(faiss.downcast_index(self._index.storage).code_size) * len(self)

    def link_bytes(self) -> int:
        """What the links take."""
        return int(4 * self._index.hnsw.neighbors.size() + 8 * len(self))

    def fetched(self, limit: int, use: CodeUse) -> int:
        """How many to find for `limit` hits: more than asked for, since codes are coarser than the vectors that decide."""
        return int(max(limit + 10 + limit // 4, limit * use.oversampling) * self._coarseness)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, query: Vectors, limit: int, ef: int, allowed: Bits | None) -> LocalIds:
        """Up to `limit` vectors close to `query`, closest first by the graph's own codes; only `allowed` ones."""
        if allowed is None:
            parameters = _unfiltered(ef)
        else:
            selector = faiss.IDSelectorBitmap(allowed)
            parameters = faiss.SearchParametersHNSW(efSearch=ef, sel=selector)
        ids = np.empty(limit, np.int64)
        scores = np.empty(limit, np.float32)
        # The call below its Python wrapper, whose checks would cost as much as a tenth of the search.
        pointers = map(faiss.swig_ptr, (np.ascontiguousarray(query, np.float32), scores, ids))
        vector, *results = pointers
        self._index.search_c(1, vector, limit, *results, parameters)
        return ids if ids[-1] >= 0 else ids[ids >= 0]


class FlatCodes:
    """One bit a dimension of n vectors that wait for their graph: a scan of them finds candidates in a tenth of the time.

    RaBitQ (Gao and Long, 2024), whose estimates are good enough that a few dozen candidates hold the ten nearest.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def of(cls, vectors: Vectors, distance: Distance) -> FlatCodes | None:
        """The codes of `vectors`, shape (n, d), in about n/280,000 seconds; None where the distance knows none."""
        if distance is Distance.MANHATTAN:
            return None
        index = faiss.IndexRaBitQ(vectors.shape[1], _METRICS[distance], 1)
        index.train(vectors)
        index.add(vectors)
        return cls(index)

    def search(self, query: Vectors, limit: int, allowed: Bits | None) -> LocalIds:
        """Candidates for the `limit` closest: several times as many, in no order that counts."""
        parameters = None if allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed))
        fetched = min(int(self._index.ntotal), 4 * limit + 40)
        _, found = self._index.search(query[np.newaxis], fetched, params=parameters)
        ids: LocalIds = found[0]
        return ids[ids >= 0]


def _read_ahead(path: Path) -> None:
    """Brings a file into the system's cache. FAISS touches every page of a graph as it maps it; after a reboot those page faults
    take three times as long as reading the file from beginning to end."""
    room = bytearray(_READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(room):
            pass


@lru_cache(maxsize=64)
def _unfiltered(ef: int) -> Any:
    """Parameters of a search without a selector; making them costs as much as a tenth of the search."""
    return faiss.SearchParametersHNSW(efSearch=ef)


def _coarseness(quantization: Quantization | None) -> float:
    """How many times more candidates such codes need, found by measuring recall on real embeddings."""
    match quantization:
        case BinaryQuantization(encoding=encoding):
            return 2.0 if encoding in ("two_bits", "one_and_half_bits") else 4.0
        case ProductQuantization(compression=compression):
            return {"x4": 2.0, "x8": 3.0}.get(compression, 8.0)
    return 1.0


def _shape(vectors: Vectors, distance: Distance, spec: GraphSpec) -> tuple[int, int, int]:
    return vectors.shape[1], spec.hnsw.m, _METRICS[distance]


def _codes(vectors: Vectors, distance: Distance, quantization: Quantization | None) -> Any | None:
    """Binary codes (RaBitQ: Gao and Long, 2024) or product codes of the vectors; None where the graph makes its own."""
    size, metric = vectors.shape[1], _METRICS[distance]
    if distance is Distance.MANHATTAN:  # which such codes do not know
        return None
    match quantization:
        case BinaryQuantization(encoding=encoding):
            codes = faiss.IndexRaBitQ(size, metric, 2 if encoding in ("two_bits", "one_and_half_bits") else 1)
        case ProductQuantization(compression=compression) if len(vectors) >= PQ_TRAINED:
            codes = faiss.IndexPQ(size, _parts(size, compression), 8, metric)
            codes.pq.cp.niter = PQ_ROUNDS
        case _:
            return None
    chance = np.random.default_rng(len(vectors))
    codes.train(vectors[np.sort(chance.permutation(len(vectors))[:PQ_TRAINED])])
    codes.add(vectors)
    return codes


PQ_TRAINED = 10_000
PQ_ROUNDS = 8
"""Vectors that code books are made from, and rounds of k-means; more gain little and take minutes."""


def _parts(size: int, compression: str) -> int:
    """Into how many parts, of a byte each, product codes cut a vector: the next number that divides its size."""
    wanted = max(1, size * 4 // int(compression[1:]))
    return next(parts for parts in range(min(wanted, size), 0, -1) if size % parts == 0)


def _empty_index(vectors: Vectors, distance: Distance, spec: GraphSpec) -> Any:
    """The index for such vectors. Its codes only steer the walk, so they are as coarse as the distance bears: one byte a
    dimension for unit vectors, whose values share one range, or where that is asked for; half floats where they fit."""
    size, links, metric = _shape(vectors, distance, spec)
    if isinstance(spec.quantization, ScalarQuantization) and distance is not Distance.MANHATTAN:
        index = faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_8bit, links, metric)
        if (quantile := spec.quantization.quantile) is not None and quantile < 1:
            codes = faiss.downcast_index(index.storage).sq
            codes.rangestat, codes.rangestat_arg = faiss.ScalarQuantizer.RS_quantiles, (1 - quantile) / 2
        return index
    if distance is Distance.COSINE:
        return faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_8bit_uniform, links, metric)
    if distance is Distance.MANHATTAN or float(np.abs(vectors).max()) > _HALF_LIMIT:
        return faiss.IndexHNSWFlat(size, links, metric)
    return faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_fp16, links, metric)
