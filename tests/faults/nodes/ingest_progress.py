"""How far nodes have come with what a producer wrote."""

from __future__ import annotations

import httpx

from tests.faults.checker import COLLECTION
from tests.server import Server


def count(url: str) -> int:
    try:
        answer = httpx.post(f"{url}/collections/{COLLECTION}/points/count?consistency=eventual", json={}, timeout=30)
    except httpx.TransportError:
        return -1
    return int(answer.json()["result"]["count"]) if answer.status_code == 200 else -1


def both_ingest(servers: list[Server]) -> bool:
    """Whether each node has a share of the ingest topic, as far as what it has written tells."""
    pages = [httpx.get(f"{server.url}/metrics", timeout=30).text for server in servers]
    return all('vecraft_ingest_records_total{outcome="written"} 0.0' not in page for page in pages)


def lag(url: str) -> int:
    """Records of the ingest topic that nobody has written yet."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=30).text
    except httpx.TransportError:
        return -1
    found = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("vecraft_ingest_lag_records{")]
    return int(sum(found)) if found else -1
