"""A client of the node that the module starts."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from vecraft.node import Node

WAIT_S = 20


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=WAIT_S) as client:
        yield client
