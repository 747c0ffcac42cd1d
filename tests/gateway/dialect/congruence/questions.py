"""What the questions to both are made of: conditions, examples, prefetches, and the ways to ask."""

from __future__ import annotations

from typing import Any

import numpy as np
from qdrant_client import models

from tests.gateway.dialect.congruence.comparison import Ask
from tests.gateway.dialect.congruence.congruent_points import ALL, DENSE, MULTI, SPARSE, dense, multi, points, sparse


def field(key: str, **condition: object) -> models.FieldCondition:
    return models.FieldCondition(key=key, **condition)


def value(key: str, wanted: object) -> models.FieldCondition:
    return field(key, match=models.MatchValue(value=wanted))


def query(query: object = None, using: str | None = None, **kwargs: Any) -> Ask:
    return lambda client: client.query_points(ALL, query=query, using=using, **kwargs)


def known(*names: str) -> bool:
    """Whether this version of the client has these models: the questions are also asked by older ones."""
    return all(hasattr(models, name) for name in names)


RANDOM = np.random.default_rng(99)
EVEN = models.Filter(must=[field("n", range=models.Range(gte=5, lt=40))], must_not=[value("tag", "a")])
AT = {name: dense(RANDOM) for name in DENSE} | {name: multi(RANDOM) for name in MULTI}
AT |= {name: sparse(RANDOM, 20) for name in SPARSE}
BACK = {name: dense(RANDOM) for name in DENSE} | {name: multi(RANDOM) for name in MULTI}
BACK |= {name: sparse(RANDOM, 20) for name in SPARSE}
NAMES = list(AT)


def having(name: str, number: int) -> list[int | str]:
    """The first points that have a vector, and so can be examples."""
    return [point.id for point in points() if name in point.vector][:number]


def prefetch(name: str, limit: int = 20, **kwargs: Any) -> models.Prefetch:
    return models.Prefetch(query=AT[name], using=name, limit=limit, **kwargs)


LISTS = [prefetch("cos"), prefetch("dot", 15), prefetch("sparse", 25), prefetch("many")]


RRF = models.FusionQuery(fusion=models.Fusion.RRF)


def scroll(filter_: models.Filter | None = None, **kwargs: Any) -> Ask:
    return lambda client: client.scroll(ALL, filter_, **kwargs)


def must(*conditions: object) -> models.Filter:
    return models.Filter(must=list(conditions))
