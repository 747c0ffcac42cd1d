"""Asks a node all questions of this package that have one answer, with whatever version of the client is installed.

`python -m tests.gateway.dialect.congruence.asking URL` prints the version and the answers by label, as JSON.
The points are there already.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from typing import Any

from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import Ask, plain
from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT
from tests.gateway.dialect.congruence.questions import NAMES, must, scroll
from tests.gateway.dialect.congruence.test_examples import examples
from tests.gateway.dialect.congruence.test_filters import CONDITIONS
from tests.gateway.dialect.congruence.test_groups import GROUPS
from tests.gateway.dialect.congruence.test_nearest import nearest
from tests.gateway.dialect.congruence.test_reads import READS
from tests.gateway.dialect.congruence.test_stages import STAGES


def questions() -> dict[str, Ask]:
    """Those that this version of the client can ask."""
    conditions = {label: one if isinstance(one, models.Filter) else must(one) for label, one in CONDITIONS.items()}
    tables: dict[str, dict[str, Ask]] = {"read": READS, "stage": STAGES, "group": GROUPS}
    tables["filter"] = {label: scroll(filter_, limit=COUNT) for label, filter_ in conditions.items()}
    tables["count"] = {label: lambda client, f=filter_: client.count(ALL, f) for label, filter_ in conditions.items()}  # type: ignore[misc]
    tables |= {f"near {name}": nearest(name) for name in NAMES} | {f"examples {name}": examples(name) for name in NAMES}
    return {f"{table}: {label}": ask for table, asked in tables.items() for label, ask in asked.items()}


def answers(client: QdrantClient) -> dict[str, Any]:
    """The answer to each question, as JSON has it."""
    told = {label: plain(ask(client)) for label, ask in questions().items()}
    read: dict[str, Any] = json.loads(json.dumps(told))
    return read


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps([version("qdrant-client"), answers(QdrantClient(url=sys.argv[1], timeout=30))]))
