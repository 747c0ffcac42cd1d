"""Graphs: they know how wide a search must be, and lie in the order in which a walk meets their vectors."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from catalog.collection import BinaryQuantization, Distance, HnswConfig, Quantization, ScalarQuantization
from shard.vectors.graph import (
    DEFAULT_EF,
    MEASURED_EFS,
    RECALL,
    FlatCodes,
    Graph,
    GraphSpec,
    faiss,
    similarities,
)

COARSE = GraphSpec(HnswConfig(m=4, ef_construct=24))
"""With so few links that the default width is too narrow."""


def uniform(count: int, seed: int, size: int = 24) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, size), np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def recall(graph: Graph, distance: Distance, vectors: np.ndarray, ef: int) -> float:
    """Of 200 queries; `vectors` in the order of the graph's ids."""
    hits = 0
    for query in uniform(200, 99):
        exact = np.sort(similarities(distance, vectors, query))[-10]
        hits += int((similarities(distance, vectors[graph.search(query, 22, ef, None)], query) >= exact - 1e-6).sum())
    return hits / 2000


@pytest.mark.parametrize("distance", list(Distance))
def test_a_graph_knows_the_width_that_holds_the_recall(distance: Distance) -> None:
    vectors = uniform(5000, 1)
    graph, order = Graph.build(vectors, distance, COARSE, held_out=200)
    assert sorted(order) == list(range(5000)), "those held out are in it too"
    assert recall(graph, distance, vectors[order], DEFAULT_EF) < RECALL - 0.03
    assert recall(graph, distance, vectors[order], graph.ef) >= RECALL - 0.01


def test_a_good_graph_needs_no_wide_search() -> None:
    graph, _ = Graph.build(uniform(3000, 1, size=4), Distance.COSINE, GraphSpec(), held_out=100)
    assert graph.ef == MEASURED_EFS[0]


def test_where_codes_limit_the_recall_no_wider_search_is_tried() -> None:
    """T8: one bit a dimension of 24 cannot find what the vectors could."""
    vectors = uniform(3000, 1)
    spec = GraphSpec(HnswConfig(), BinaryQuantization())
    graph, order = Graph.build(vectors, Distance.COSINE, spec, held_out=100)
    assert recall(graph, Distance.COSINE, vectors[order], MEASURED_EFS[-1]) < RECALL
    assert graph.ef < MEASURED_EFS[-2]


@pytest.mark.parametrize(("clusters", "factor", "least"), [(True, 1, RECALL), (False, 8, 0.95)])
@pytest.mark.parametrize("distance", [Distance.COSINE, Distance.EUCLID])
def test_one_bit_codes_know_how_many_candidates_they_need(distance: Distance, clusters: bool, factor: int, least: float) -> None:
    """Neighbours of real embeddings are clearly closer than all others, those of noise are not."""
    vectors = uniform(4100, 1, 256)
    if clusters:
        vectors += uniform(300, 2, 256)[np.random.default_rng(1).integers(300, size=4100)]
    vectors, queries = vectors[:4000], vectors[4000:]
    codes = FlatCodes.of(vectors, distance)
    assert codes is not None
    assert codes.factor == factor
    hits = 0
    for query in queries:
        exact = np.sort(similarities(distance, vectors, query))[-10]
        hits += int((similarities(distance, vectors[codes.search(query, 10, None)], query) >= exact - 1e-6).sum())
    assert hits / 1000 >= least


@pytest.mark.parametrize("links", [2, 4, 24])
def test_a_graph_lies_in_breadth_first_order(links: int) -> None:
    vectors = uniform(2000, 1)
    vectors[500:900] = vectors[0]  # copies: to some no link leads
    graph, order = Graph.build(vectors, Distance.COSINE, GraphSpec(HnswConfig(m=links)), held_out=20)
    assert sorted(order) == list(range(2000))
    met = breadth_first(graph)
    assert met == list(range(len(met)))


@pytest.mark.parametrize("quantization", [None, BinaryQuantization(), ScalarQuantization()])
def test_each_id_has_its_own_vector_and_code(quantization: Quantization | None) -> None:
    vectors = uniform(2000, 1)
    graph, order = Graph.build(vectors, Distance.COSINE, GraphSpec(HnswConfig(), quantization), held_out=20)
    assert all(at in graph.search(vectors[order[at]], 100, 500, None) for at in range(2000))


def breadth_first(graph: Graph) -> list[int]:
    """The ids that links lead to from the entry point, as the textbook says."""
    hnsw = graph._index.hnsw
    links, starts = faiss.vector_to_array(hnsw.neighbors), faiss.vector_to_array(hnsw.offsets)
    met = {hnsw.entry_point: None}
    waiting = deque(met)
    while waiting:
        start = int(starts[waiting.popleft()])
        for other in links[start : start + hnsw.nb_neighbors(0)].tolist():
            if other >= 0 and other not in met:
                met[other] = None
                waiting.append(other)
    return list(met)
