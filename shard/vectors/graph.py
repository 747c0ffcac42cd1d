"""Exact distances, and HNSW graphs over a fixed set of vectors. The only file that imports faiss.

Graphs only return candidates; scores are always computed from the stored float32 vectors (I10).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the import; concurrent single-threaded searches have more throughput

import faiss as _faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from catalog.collection import (
    BinaryQuantization,
    Datatype,
    Distance,
    HnswConfig,
    Memory,
    ProductQuantization,
    Quantization,
    ScalarQuantization,
    TurboQuantization,
)
from journal.records import Vectors
from shard.vectors.index import LARGEST, are_finite, finite
from shard.vectors.turbo import Rotation

faiss: Any = _faiss  # its stubs lack the search parameters and the numpy signatures

Mask = NDArray[np.bool_]
"""bool, shape (n,): which of a segment's n vectors a search may return."""

Bits = NDArray[np.uint8]
"""A mask as packed bits, eight vectors per byte."""

LocalIds = NDArray[np.int64]

_LEAST_SQUARE = 1e-30
"""Below it a float32 loses precision, and then becomes zero."""

_HALF_LIMIT = 60_000.0
"""The largest float16 is 65,504; vectors with values above _HALF_LIMIT get float32 codes."""

_READ_BYTES = 1 << 20
"""How much of a file is read at a time."""

_METRICS: dict[Distance, int] = {
    Distance.COSINE: faiss.METRIC_INNER_PRODUCT,
    Distance.DOT: faiss.METRIC_INNER_PRODUCT,
    Distance.EUCLID: faiss.METRIC_L2,
    Distance.MANHATTAN: faiss.METRIC_L1,
}


DEFAULT_EF = 88
"""The beam width (ef) for a graph that is too small to measure it, or whose file has none."""

RECALL = 0.98
NEIGHBOURS = 10
"""The measured width of a graph has this recall for this many neighbours."""

MEASURED_EFS = (DEFAULT_EF, 128, 176, 256, 352, 512, 704, 1024, 1408, 2048, 2816, 4096)
MEASURED_FACTORS = (1, 2, 4, 8)
SAMPLED = 50
"""How many vectors of a segment measure how many candidates its one-bit codes need. With more than the largest factor a search of
the codes would take as long as one of the vectors; the best hits among many segments need fewer."""

LEAST_GAIN = 0.95
"""Measuring stops at a width that leaves more than this share of the errors of the previous width."""

_CHUNK = 16_384
"""Vectors that are processed at a time, which bounds memory."""

_BY_INDEX = {
    Distance.COSINE: faiss.fvec_inner_products_by_idx,
    Distance.DOT: faiss.fvec_inner_products_by_idx,
    Distance.EUCLID: faiss.fvec_L2sqr_by_idx,
}


def exact_scores(distance: Distance, vectors: Vectors, query: Vectors) -> Vectors:
    """The dialect's score of each of `vectors`, shape (n, d), against `query`, shape (d,). Shape (n,), float32.

    Each vector is computed for itself, so that equal vectors have equal scores wherever they are. A matrix product is rounded in
    another way in its last rows.
    """
    return scores_at(distance, vectors, query, np.arange(len(vectors)))


def scores_at(distance: Distance, vectors: Vectors, query: Vectors, at: LocalIds) -> Vectors:
    """`exact_scores` of the vectors with the local ids `at`; does not copy the vectors if FAISS supports the distance."""
    if distance not in _BY_INDEX:
        with np.errstate(over="ignore"):
            return np.minimum(np.abs(vectors[at] - query).sum(axis=1), np.float32(LARGEST))  # type: ignore[no-any-return]
    scores = np.empty(len(at), np.float32)
    if not len(at):
        return scores
    vectors = np.ascontiguousarray(vectors, np.float32)
    at = np.ascontiguousarray(at, np.int64)
    query = np.ascontiguousarray(query, np.float32)
    by_index = _BY_INDEX[distance]
    by_index(*map(faiss.swig_ptr, (scores, query, vectors, at)), vectors.shape[1], 1, len(at))
    if distance is not Distance.EUCLID and are_finite(scores):
        return scores
    inexact = ~np.isfinite(scores)
    if distance is Distance.EUCLID:
        inexact |= scores < _LEAST_SQUARE
        scores = np.sqrt(scores)
    if len(wide := np.flatnonzero(inexact)):
        scores[wide] = _wide_scores(distance, vectors[at[wide]].astype(np.float64), query.astype(np.float64))
    return scores


def _wide_scores(distance: Distance, vectors: NDArray[np.float64], query: NDArray[np.float64]) -> Vectors:
    """The scores of vectors whose squares or products are too large or too small for float32."""
    wide = np.linalg.norm(vectors - query, axis=1) if distance is Distance.EUCLID else (vectors * query).sum(axis=1)
    return finite(wide)


def similarities(distance: Distance, vectors: Vectors, query: Vectors) -> Vectors:
    """The similarity of each vector (higher is closer): the score, or the negated distance (squared for Euclid). Shape (n,)."""
    scores = exact_scores(distance, vectors, query)
    return as_similarity(distance, scores)


def as_similarity(distance: Distance, scores: Vectors) -> Vectors:
    """Converts the dialect's scores to similarities (higher is closer); squares are float64, since they may be large."""
    if distance.higher_is_closer:
        return scores
    return -np.square(scores, dtype=np.float64) if distance is Distance.EUCLID else -scores


def bits_of(mask: Mask) -> Bits:
    """A mask as `Graph.search` takes it."""
    return np.packbits(mask, bitorder="little")


class GraphSpec(msgspec.Struct, frozen=True):
    """The build parameters of a graph; `datatype` is that of the stored vectors."""

    hnsw: HnswConfig = HnswConfig()
    quantization: Quantization | None = None
    datatype: Datatype = Datatype.FLOAT32

    @property
    def is_pinned(self) -> bool:
        """Whether the graph and its codes, which are one file, are held in the memory of the process, and not mapped."""
        codes = self.quantization
        always_ram = codes is not None and codes.memory is None and bool(codes.always_ram)
        return always_ram or Memory.PINNED in (self.hnsw.memory, None if codes is None else codes.memory)


class _GraphFile(msgspec.Struct):
    """The content of `graph.json`. Files of earlier releases have no `ef` and no `datatype`."""

    hnsw: HnswConfig = HnswConfig()
    quantization: Quantization | None = None
    ef: int = DEFAULT_EF
    datatype: Datatype = Datatype.FLOAT32


class CodeUse(NamedTuple):
    """How a search uses a graph's codes: whether candidates are ranked by their vectors, and how many times more to fetch."""

    rescore: bool = True
    oversampling: float = 1.0


DEFAULT_USE = CodeUse()


class Graph:
    """An immutable HNSW graph over n vectors with the local ids 0..n-1.

    `ef` is the beam width that reaches a recall@10 of RECALL.
    """

    def __init__(self, index: Any, spec: GraphSpec, ef: int = DEFAULT_EF) -> None:
        self._index = index
        self.spec = spec
        self.ef = ef
        self._coarseness = _coarseness(spec)
        self._rotation = Rotation.of(index.d) if _is_rotated(spec, index.metric_type) else None

    @classmethod
    def build(
        cls, vectors: Vectors, distance: Distance, spec: GraphSpec, held_out: int = 0, ef_construct: int | None = None
    ) -> tuple[Graph, LocalIds]:
        """Builds the graph of `vectors`, shape (n, d). Returns it and, for each of its local ids, the index in `vectors`.

        `ef_construct` is the beam width for the links of a new vector; None for that of `spec`.

        The last `held_out` vectors must be a random sample of all. They are inserted last. Before that, they are the queries
        by which `ef` is measured: like real queries, they come from the same distribution but are not in the graph.

        Takes about 18 s of one core for n = 62,000, d = 384. Holds no lock.
        """
        split = len(vectors) - held_out
        inner = _inner(vectors, distance, spec)
        codes = _codes(inner, distance, spec)
        # With separate codes the links are built from the full vectors.
        index = _empty_index(inner, distance, spec) if codes is None else faiss.IndexHNSWFlat(*_shape(inner, distance, spec))
        if not index.is_trained:
            index.train(inner)
        index.hnsw.efConstruction = ef_construct or spec.hnsw.ef_construct
        index.add(inner[:split])  # in one call: FAISS then inserts level by level, which improves recall by 0.02
        storages = _Storages(index, codes)
        storages.use_codes(inner[:split])
        graph = cls(index, spec)
        if held_out:
            graph.ef = _measured_ef(graph, distance, vectors[:split], vectors[split:])
            storages.use_vectors()
            index.add(inner[split:])
            storages.use_codes(inner[split:])
        order = _breadth_first(index)
        index.permute_entries(order)
        return graph, order

    @classmethod
    def read(cls, folder: Path) -> Graph:
        """Opens the graph in `folder`, memory-mapped unless it is pinned. Raises RuntimeError, OSError or ValueError if it is
        damaged."""
        read_ahead(folder / "graph.faiss")
        file = msgspec.json.decode((folder / "graph.json").read_bytes(), type=_GraphFile)
        spec = GraphSpec(file.hnsw, file.quantization, file.datatype)
        index = faiss.read_index(str(folder / "graph.faiss"), 0 if spec.is_pinned else faiss.IO_FLAG_MMAP_IFC)
        return cls(index, spec, file.ef)

    def write(self, folder: Path) -> None:
        """Writes `graph.faiss` and `graph.json`. Raises RuntimeError or OSError."""
        faiss.write_index(self._index, str(folder / "graph.faiss"))
        file = _GraphFile(self.spec.hnsw, self.spec.quantization, self.ef, self.spec.datatype)
        (folder / "graph.json").write_bytes(msgspec.json.encode(file))

    def code_bytes(self) -> int:
        """The size of the codes."""
        return int(faiss.downcast_index(self._index.storage).code_size) * len(self)

    def link_bytes(self) -> int:
        """The size of the links."""
        return int(4 * self._index.hnsw.neighbors.size() + 8 * len(self))

    def fetched(self, limit: int, use: CodeUse) -> int:
        """How many candidates to fetch for `limit` hits: more than `limit`, since codes are less exact than vectors."""
        return int(max(limit + 10 + limit // 4, limit * use.oversampling) * self._coarseness)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, query: Vectors, limit: int, ef: int, allowed: Bits | None) -> LocalIds:
        """Up to `limit` of the `allowed` vectors close to `query`, shape (d,), closest first by the graph's codes."""
        if self._rotation is not None:
            query = self._rotation.apply(query[np.newaxis])[0]
        if allowed is None:
            parameters = _unfiltered(ef)
        else:
            selector = faiss.IDSelectorBitmap(allowed)
            parameters = faiss.SearchParametersHNSW(efSearch=ef, sel=selector)
        ids = np.empty(limit, np.int64)
        scores = np.empty(limit, np.float32)
        # Calls the C function directly: the checks of the Python wrapper would take a tenth of the time of a search.
        pointers = map(faiss.swig_ptr, (np.ascontiguousarray(query, np.float32), scores, ids))
        vector, *results = pointers
        self._index.search_c(1, vector, limit, *results, parameters)
        return ids if ids[-1] >= 0 else ids[ids >= 0]

    def search_each(self, queries: Vectors, limit: int, ef: int) -> LocalIds:
        """As `search`, for each of `queries`, shape (q, d), among all vectors. Shape (q, limit), padded with -1."""
        queries = queries if self._rotation is None else self._rotation.apply(queries)
        _, ids = self._index.search(queries, limit, params=_unfiltered(ef))
        return ids  # type: ignore[no-any-return]


class _Storages:
    """The two storages of a graph: full vectors to build its links, and codes to search it."""

    def __init__(self, index: Any, codes: Any | None) -> None:
        """`codes` is None for a graph that has only one storage; the methods then do nothing."""
        self._index = index
        self._codes = codes
        self._vectors = index.storage

    def use_codes(self, added: Vectors) -> None:
        """Makes the graph search by codes; `added` are the vectors added since the last call."""
        if self._codes is not None:
            self._codes.add(added)
            self._index.storage = self._codes
            self._codes.this.disown()  # the graph frees its current storage
            self._vectors.this.own(True)

    def use_vectors(self) -> None:
        """Makes the graph search, and link new vectors, by full vectors."""
        if self._codes is not None:
            self._index.storage = self._vectors
            self._vectors.this.disown()
            self._codes.this.own(True)


def _measured_ef(graph: Graph, distance: Distance, vectors: Vectors, queries: Vectors) -> int:
    """The `ef` at which the recall of `graph` over `vectors` for `queries`, minus one standard error, reaches RECALL.

    Recall is measured at increasing widths, and interpolated between the last two: the error is a power function of the width.
    When it stops decreasing, the codes limit the recall, and a wider search would only be slower.
    """
    worst = _worst_neighbours(distance, vectors, queries)
    previous, more_errors, wanted = 0, 1.0, 1 - RECALL
    fetched = graph.fetched(NEIGHBOURS, DEFAULT_USE)
    for ef in MEASURED_EFS:
        errors = _errors(graph.search_each(queries, fetched, max(ef, fetched)), distance, vectors, queries, worst)
        if errors <= wanted:
            share = np.log(more_errors / wanted) / np.log(more_errors / max(errors, 1e-4))
            return int(previous * (ef / previous) ** share) if previous else ef
        if errors > LEAST_GAIN * more_errors:
            return previous
        previous, more_errors = ef, errors
    return MEASURED_EFS[-1]


def _errors(candidates: LocalIds, distance: Distance, vectors: Vectors, queries: Vectors, worst: Vectors) -> float:
    """The share of neighbours that are not among the candidates of each query (1 - recall), plus one standard error.

    `candidates` are padded with -1, shape (q, n). `worst`: see `_worst_neighbours`.
    """
    returned = [similarities(distance, vectors[at[at >= 0]], query) for at, query in zip(candidates, queries, strict=True)]
    hits = [min(NEIGHBOURS, int(np.count_nonzero(s >= least))) for s, least in zip(returned, worst, strict=True)]
    recalls = np.array(hits) / min(NEIGHBOURS, len(vectors))
    return 1 - float(recalls.mean() - recalls.std() / np.sqrt(len(recalls)))


def _worst_neighbours(distance: Distance, vectors: Vectors, queries: Vectors) -> Vectors:
    """The similarity of the furthest of the NEIGHBOURS exact neighbours of each query, minus a rounding margin. Shape (q,)."""
    count = min(NEIGHBOURS, len(vectors))
    if distance.higher_is_closer:
        best: Vectors = np.empty((len(queries), 0), np.float32)
        for start in range(0, len(vectors), _CHUNK):  # as matrix products, four times faster than FAISS
            with np.errstate(over="ignore", invalid="ignore"):
                best = np.hstack([best, queries @ vectors[start : start + _CHUNK].T])
            best = np.partition(best, best.shape[1] - count, axis=1)[:, -count:]
        worst = best.min(axis=1)
    else:
        _, ids = faiss.knn(queries, vectors, count, metric=_METRICS[distance])
        worst = np.array([similarities(distance, vectors[at], query).min() for at, query in zip(ids, queries, strict=True)])
    return worst - 1e-6 * np.maximum(1, np.abs(worst))  # type: ignore[no-any-return]


def _breadth_first(index: Any) -> LocalIds:
    """All ids in the order of a breadth-first traversal of the bottom level, from the entry point.

    In this order a search reads vectors and links that are close together in memory (Coleman et al., 2022, "Graph reordering
    for cache-efficient near neighbor search").
    """
    hnsw, count = index.hnsw, int(index.ntotal)
    links, starts = faiss.vector_to_array(hnsw.neighbors), faiss.vector_to_array(hnsw.offsets)[:-1].astype(np.int64)
    width = np.arange(hnsw.nb_neighbors(0))
    order, seen, first = np.empty(count, np.int64), np.zeros(count, np.bool_), np.empty(count, np.int64)
    order[0], read, end = hnsw.entry_point, 0, 1
    seen[hnsw.entry_point] = True
    while read < end:
        some = order[read : min(end, read + _CHUNK)]
        read += len(some)
        met = links[starts[some][:, np.newaxis] + width].ravel()
        met = met[met >= 0]
        met = met[~seen[met]]
        places = np.arange(len(met))
        first[met[::-1]] = places[::-1]  # for repeated indexes numpy keeps the last value: here the first in `met`
        met = met[first[met] == places]
        seen[met] = True
        order[end : end + len(met)] = met
        end += len(met)
    order[end:] = np.flatnonzero(~seen)  # vectors without incoming links
    return order


class ScannedCodes:
    """The codes that a graph would have, without the graph: a search compares all of them."""

    def __init__(self, index: Any, spec: GraphSpec) -> None:
        self._index = index
        self._rotation = Rotation.of(index.d) if _is_rotated(spec, index.metric_type) else None
        self.spec = spec

    @classmethod
    def trained(cls, vectors: Vectors, distance: Distance, spec: GraphSpec) -> ScannedCodes | None:
        """No codes yet, trained on some of the vectors, shape (n, d); None where there are none for the distance, and for product
        quantisation, which FAISS cannot search with a selector."""
        if isinstance(spec.quantization, ProductQuantization):
            return None
        inner = _inner(vectors, distance, spec)
        index = _codes(inner, distance, spec)
        if index is None and isinstance(spec.quantization, ScalarQuantization) and distance is not Distance.MANHATTAN:
            index = faiss.IndexScalarQuantizer(inner.shape[1], faiss.ScalarQuantizer.QT_8bit, _METRICS[distance])
            index.train(inner)
        return None if index is None else cls(index, spec)

    def add(self, vectors: Vectors) -> None:
        """Adds vectors, shape (n, d). Takes up to 0.05 s for a thousand."""
        self._index.add(vectors if self._rotation is None else self._rotation.apply(vectors))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def size_bytes(self) -> int:
        return int(self._index.code_size) * len(self)

    def search_each(self, queries: Vectors, limit: int, allowed: Bits | None) -> LocalIds:
        """The `limit` closest by the codes for each of `queries`, shape (q, d). Shape (q, limit), padded with -1."""
        queries = np.ascontiguousarray(queries if self._rotation is None else self._rotation.apply(queries), np.float32)
        parameters = None if allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed))
        _, ids = self._index.search(queries, limit, params=parameters)
        return ids  # type: ignore[no-any-return]


class _CodesFile(msgspec.Struct, frozen=True):
    factor: int


class FlatCodes:
    """One-bit codes of n vectors that wait for their graph: scanning the codes takes a tenth of the time of scanning the vectors.

    RaBitQ (Gao and Long, 2024). Of real embeddings the ten nearest are among a few dozen candidates; of others among several
    hundred. So `factor`, the multiple of these few dozen that reaches a recall@10 of RECALL, is measured.
    """

    def __init__(self, index: Any, factor: int = 1) -> None:
        self._index = index
        self.factor = factor

    @classmethod
    def of(cls, vectors: Vectors, distance: Distance, factor: int | None = None) -> FlatCodes | None:
        """The codes of `vectors`, shape (n, d); None for a distance without such codes. Takes 0.04 s for n = 10,000, and up to
        0.1 s more to measure `factor`, unless that of similar vectors is given."""
        if distance is Distance.MANHATTAN:
            return None
        index = faiss.IndexRaBitQ(vectors.shape[1], _METRICS[distance], 1)
        index.train(vectors)
        index.add(vectors)
        codes = cls(index)
        codes.factor = _measured_factor(codes, distance, vectors) if factor is None else factor
        return codes

    @classmethod
    def read(cls, folder: Path) -> FlatCodes:
        """Opens the codes in `folder`. Raises RuntimeError, OSError or ValueError if they are damaged."""
        file = msgspec.json.decode((folder / "codes.json").read_bytes(), type=_CodesFile)
        return cls(faiss.read_index(str(folder / "codes.faiss")), file.factor)

    def write(self, folder: Path) -> None:
        """Writes `codes.faiss` and `codes.json`. Raises RuntimeError or OSError."""
        faiss.write_index(self._index, str(folder / "codes.faiss"))
        (folder / "codes.json").write_bytes(msgspec.json.encode(_CodesFile(self.factor)))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, query: Vectors, limit: int, allowed: Bits | None) -> LocalIds:
        """Candidates for the `limit` closest: several times as many, unordered."""
        ids: LocalIds = self.search_each(query[np.newaxis], self.fetched(limit), allowed)[0]
        return ids[ids >= 0]

    def search_each(self, queries: Vectors, fetched: int, allowed: Bits | None) -> LocalIds:
        """The `fetched` closest by the codes for each of `queries`, shape (q, d). Shape (q, n), padded with -1."""
        parameters = None if allowed is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(allowed))
        _, candidates = self._index.search(queries, fetched, params=parameters)
        return candidates  # type: ignore[no-any-return]

    def fetched(self, limit: int) -> int:
        """How many candidates `search` takes for `limit` hits."""
        return min(len(self), self.factor * (4 * limit + 40))


def _measured_factor(codes: FlatCodes, distance: Distance, vectors: Vectors) -> int:
    """The smallest `factor` whose recall, minus one standard error, reaches RECALL; the largest if none does.

    A random sample of the vectors are the queries, and the others are searched: as in a graph, see `Graph.build`.
    """
    sampled = np.zeros(len(vectors), np.bool_)
    sampled[np.random.default_rng(len(vectors)).choice(len(vectors), min(SAMPLED, len(vectors) // 10), replace=False)] = True
    others, queries = np.flatnonzero(~sampled), vectors[sampled]
    if not len(queries):
        return 1
    worst = _worst_neighbours(distance, vectors[others], queries)
    for factor in MEASURED_FACTORS:
        codes.factor = factor
        candidates = codes.search_each(queries, codes.fetched(NEIGHBOURS), bits_of(~sampled))
        if _errors(candidates, distance, vectors, queries, worst) <= 1 - RECALL:
            break
    return codes.factor


def read_ahead(path: Path) -> None:
    """Reads a file into the page cache. Raises OSError.

    FAISS touches every page of a graph when it maps it; after a reboot these page faults take three times as long as reading the
    file sequentially.
    """
    room = bytearray(_READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(room):
            pass


@lru_cache(maxsize=64)
def _unfiltered(ef: int) -> Any:
    """Parameters of a search without a selector; cached, since creating them takes a tenth of the time of a search."""
    return faiss.SearchParametersHNSW(efSearch=ef)


def _coarseness(spec: GraphSpec) -> float:
    """How many times more candidates a search with such codes fetches, measured by recall on real embeddings."""
    match spec.quantization:
        case TurboQuantization(bits=bits):
            return {"bits1": 4.0, "bits1_5": 3.0, "bits2": 2.0, "bits4": 2.0}[bits]
        case None if spec.datatype is Datatype.TURBO4:
            return 2.0
        case BinaryQuantization(encoding=encoding):
            return 2.0 if encoding in ("two_bits", "one_and_half_bits") else 4.0
        case ProductQuantization(compression=compression):
            return {"x4": 2.0, "x8": 3.0}.get(compression, 8.0)
    return 1.0


def _shape(vectors: Vectors, distance: Distance, spec: GraphSpec) -> tuple[int, int, int]:
    return vectors.shape[1], spec.hnsw.m, _METRICS[distance]


def _is_rotated(spec: GraphSpec, metric: int) -> bool:
    """Whether a graph with such codes holds rotated vectors. Turbo4 vectors are rotated already; see `turbo`."""
    is_turbo = isinstance(spec.quantization, TurboQuantization) and metric != faiss.METRIC_L1
    return is_turbo and (spec.datatype is not Datatype.TURBO4 or spec.quantization.bits == "bits1_5")  # type: ignore[union-attr]


def _inner(vectors: Vectors, distance: Distance, spec: GraphSpec) -> Vectors:
    """The vectors as a graph with such codes holds them. One bit of each of half as many more dimensions is 1.5 bits."""
    if not _is_rotated(spec, _METRICS[distance]):
        return vectors
    assert isinstance(spec.quantization, TurboQuantization)
    size = vectors.shape[1]
    return Rotation.of(size + (size + 1) // 2 if spec.quantization.bits == "bits1_5" else size).apply(vectors)


def _codes(vectors: Vectors, distance: Distance, spec: GraphSpec) -> Any | None:
    """An empty storage for codes of few bits (RaBitQ: Gao and Long, 2024) or product codes, trained on the vectors; None when the
    graph needs no separate codes. Vectors that are stored as codes get no larger ones unless these are asked for."""
    size, metric = vectors.shape[1], _METRICS[distance]
    if distance is Distance.MANHATTAN:  # there are no such codes for it
        return None
    match spec.quantization:
        case BinaryQuantization(encoding=encoding):
            codes = faiss.IndexRaBitQ(size, metric, 2 if encoding in ("two_bits", "one_and_half_bits") else 1)
        case TurboQuantization(bits=bits):
            codes = (
                _four_bits(size, distance) if bits == "bits4" else faiss.IndexRaBitQ(size, metric, 2 if bits == "bits2" else 1)
            )
        case None if spec.datatype is Datatype.TURBO4:
            codes = _four_bits(size, distance)
        case ProductQuantization(compression=compression) if len(vectors) >= TRAINED:
            codes = faiss.IndexPQ(size, _parts(size, compression), 8, metric)
            codes.pq.cp.niter = PQ_ROUNDS
        case _:
            return None
    chance = np.random.default_rng(len(vectors))
    codes.train(vectors[np.sort(chance.permutation(len(vectors))[:TRAINED])])
    return codes


def _four_bits(size: int, distance: Distance) -> Any:
    """An empty storage for codes of four bits. TurboQuant's are for unit vectors; with the other distances vectors have lengths,
    which RaBitQ keeps. In a graph it takes five times as long to compare; with fewer bits it is as fast, and finds more."""
    if distance is Distance.COSINE:
        return faiss.IndexScalarQuantizer(size, faiss.ScalarQuantizer.QT_4bit_tqmse, _METRICS[distance])
    return faiss.IndexRaBitQ(size, _METRICS[distance], 4)


TRAINED = 10_000
PQ_ROUNDS = 8
"""Training vectors of the code books, and iterations of k-means; more improve little and take minutes."""


def _parts(size: int, compression: str) -> int:
    """The number of subvectors, one byte each, of product codes: the next lower number that divides the vector's size."""
    wanted = max(1, size * 4 // int(compression[1:]))
    return next(parts for parts in range(min(wanted, size), 0, -1) if size % parts == 0)


def _empty_index(vectors: Vectors, distance: Distance, spec: GraphSpec) -> Any:
    """The empty HNSW index for such vectors. Its codes only guide the search, so they are as small as the distance allows: one
    byte per dimension for unit vectors, whose values have a common range, or if requested; otherwise float16 if values fit."""
    size, links, metric = _shape(vectors, distance, spec)
    if isinstance(spec.quantization, ScalarQuantization) and distance is not Distance.MANHATTAN:
        index = faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_8bit, links, metric)
        if (quantile := spec.quantization.quantile) is not None and quantile < 1:
            codes = faiss.downcast_index(index.storage).sq
            codes.rangestat, codes.rangestat_arg = faiss.ScalarQuantizer.RS_quantiles, (1 - quantile) / 2
        return index
    if distance is Distance.COSINE:
        return faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_8bit_uniform, links, metric)
    if spec.datatype is Datatype.UINT8 and distance is not Distance.MANHATTAN:
        return faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_8bit_direct, links, metric)
    if distance is Distance.MANHATTAN or float(np.abs(vectors).max()) > _HALF_LIMIT:
        return faiss.IndexHNSWFlat(size, links, metric)
    return faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_fp16, links, metric)
