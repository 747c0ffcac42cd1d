"""What brokers may do to nodes: die, stand still, be far away (V21, J12; I2, I9). All real, and checked from outside."""

from __future__ import annotations

import os
import random
import statistics
import time

import httpx
import pytest

from journal.topics import Topics
from tests.conftest import result, until
from tests.faults.checker import COLLECTION, WAIT_S, Load, StrongReads
from tests.faults.conftest import Report, node
from tests.faults.proxy import proxies
from tests.kafka_server import ClusterBroker, KafkaCluster
from tests.server import Server

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("brokers")]

KILLS = int(os.environ.get("VECRAFT_FAULT_ROUNDS", "3"))


def leader(cluster: KafkaCluster, prefix: str, load: Load) -> ClusterBroker:
    """The broker that leads where the load writes now."""
    assert load.acknowledged
    return cluster.leader_of(Topics(prefix).tier(1), 0)


def test_the_leader_is_killed_under_load(
    nodes: list[Server], cluster: KafkaCluster, prefix: str, first: int, report: Report
) -> None:
    """V21, I2, I9: no acknowledged write is lost, no strong read is stale, and writing goes on by itself."""
    gaps = []
    with Load([server.url for server in nodes], first) as load, StrongReads(nodes[1].url, load) as reads:
        for _ in range(KILLS):
            load.more(20)
            broker = leader(cluster, prefix, load)
            broker.kill()
            gaps.append(load.more(5))
            broker.start()
            cluster.wait_in_sync()
        reads.more(50)
    for server in nodes:
        load.check(server.url)
    report(
        "partition leader killed (-9) under load",
        f"next acknowledged write after {statistics.median(gaps):.2f} s (p50 of {KILLS}), {max(gaps):.2f} s at most; "
        f"{len(load.acknowledged)} acknowledged, 0 lost; {reads.fresh} strong reads, 0 stale",
    )


def test_a_follower_is_killed_under_load(
    nodes: list[Server], cluster: KafkaCluster, prefix: str, first: int, report: Report
) -> None:
    """V21: what it followed goes on with the two that are left, once the controller has missed it."""
    with Load([server.url for server in nodes], first) as load:
        load.more(20)
        leaders = [cluster.leader_of(Topics(prefix).tier(1), partition) for partition in (0, 1)]  # those of the collection
        next(broker for broker in cluster.brokers if broker not in leaders).kill()
        gap_s = load.more(5)
    for server in nodes:
        load.check(server.url)
    report("partition follower killed (-9) under load", f"next acknowledged write after {gap_s:.2f} s; 0 lost")


def test_two_of_three_brokers_are_killed(nodes: list[Server], cluster: KafkaCluster, first: int, report: Report) -> None:
    """V21, T11: the minority refuses writes and strong reads, and serves what it has; no hand is needed after."""
    with Load([nodes[0].url], first) as load:
        load.more(20)
        for broker in cluster.brokers[:2]:
            broker.kill()
        down_s = time.monotonic()
        failed = len(load.indefinite) + len(load.definite)
        until(lambda: len(load.indefinite) + len(load.definite) > failed + 1, WAIT_S)
        known = next(iter(load.acknowledged))
        for server in nodes:
            read = httpx.post(f"{server.url}/collections/{COLLECTION}/points?consistency=eventual", json={"ids": [known]})
            assert [point["id"] for point in result(read)] == [known]
            strong = httpx.post(
                f"{server.url}/collections/{COLLECTION}/points?consistency=strong", json={"ids": [known]}, timeout=30
            )
            assert (strong.status_code, strong.headers["Retry-After"]) == (503, "1")
        assert not [at for at in load.acknowledged.values() if at > down_s + 5], "nothing is acknowledged by one broker alone"
        up_s = time.monotonic()
        cluster.start()
        started_s = time.monotonic() - up_s
        load.more(5)
        back_s = next(at for at in load.acknowledged.values() if at > up_s) - up_s
    for server in nodes:
        load.check(server.url)
    report(
        "two of three brokers killed (-9)",
        f"writes refused or left undecided, reads go on; writes again {back_s:.1f} s after the brokers were started "
        f"(which took them {started_s:.1f} s); 0 of {len(load.acknowledged)} lost",
    )


def test_a_broker_stands_still(nodes: list[Server], cluster: KafkaCluster, prefix: str, first: int, report: Report) -> None:
    """V21: SIGSTOP of the leader; its connections stay open and say nothing."""
    with Load([server.url for server in nodes], first) as load, StrongReads(nodes[1].url, load) as reads:
        load.more(20)
        broker = leader(cluster, prefix, load)
        broker.pause()
        gap_s = load.more(5)
        broker.resume()
        cluster.wait_in_sync()
        load.more(20)
        reads.more(20)
    for server in nodes:
        load.check(server.url)
    report(
        "partition leader stopped (SIGSTOP) and resumed",
        f"next acknowledged write after {gap_s:.1f} s; {len(load.acknowledged)} acknowledged, 0 lost; "
        f"{reads.fresh} strong reads, 0 stale",
    )


def test_the_network_between_a_node_and_the_brokers(
    nodes: list[Server], cluster: KafkaCluster, prefix: str, first: int, tmp_path_factory: pytest.TempPathFactory, report: Report
) -> None:
    """V21, T11: slow, cut, half-open. The node behind it says so and comes back; the others notice nothing."""
    with proxies(cluster) as network:
        far = node(tmp_path_factory.mktemp("far"), "far", prefix, cluster.proxied_bootstrap)
        far.start()
        try:
            rows = []
            with Load([far.url], first) as load, StrongReads(nodes[0].url, load) as reads:
                load.more(20)
                for proxy in network:
                    proxy.delay(0.1)
                load.more(5)
                slow_s = statistics.median(load.seconds[-5:])
                for proxy in network:
                    proxy.heal()
                for name in ("cut", "half_open"):
                    load.more(20)
                    failed = len(load.indefinite) + len(load.definite)
                    for proxy in network:
                        getattr(proxy, name)()
                    until(lambda failed=failed: len(load.indefinite) + len(load.definite) > failed, WAIT_S)
                    for proxy in network:
                        proxy.heal()
                    rows.append(f"{name.replace('_', '-')}: {load.more(5):.1f} s")
                reads.more(20)
            for server in (far, nodes[0]):
                load.check(server.url)
        finally:
            far.kill()
    report(
        "network between a node and the brokers",
        f"100 ms slower each way: a write takes {slow_s * 1000:.0f} ms; "
        f"after healing, first acknowledged write: {', '.join(rows)}; "
        f"0 of {len(load.acknowledged)} lost, 0 of {reads.fresh} strong reads of another node stale",
    )


def test_random_faults_one_after_the_other(
    nodes: list[Server], cluster: KafkaCluster, prefix: str, first: int, report: Report
) -> None:
    """J12: brokers and nodes die and stand still in an order that a seed decides."""
    choose = random.Random(4)
    done = []
    with Load([server.url for server in nodes], first, tier=0) as load:
        for _ in range(6):
            load.more(10)
            victim = choose.choice([*cluster.brokers, nodes[1]])
            if choose.random() < 0.5 and isinstance(victim, ClusterBroker):
                done.append("pause broker")
                victim.pause()
            else:
                done.append("kill broker" if isinstance(victim, ClusterBroker) else "kill node")
                victim.kill()
            load.more(5)
            cluster.start()
            if isinstance(victim, Server):
                victim.start()
                load._urls[1] = victim.url
    for server in nodes:
        load.check(server.url)
    report("random faults (" + ", ".join(done) + ")", f"{len(load.acknowledged)} acknowledged, 0 lost")
