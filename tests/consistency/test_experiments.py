"""No acknowledged write is lost, whoever writes beside it, and whichever node is killed meanwhile (V13, N5, I2, I5)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from tests.consistency.conftest import TwoNodes
from tests.consistency.experiments import EXPERIMENTS, Nodes
from tests.server import Server

Experiment = Callable[[Nodes, str], list[str]]
experiments = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.__name__)
KILL_BETWEEN = (30, 120)
"""Answers after which a node is killed; the shortest experiment has 164."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("node")).start()
    yield server
    server.kill()


@experiments
def test_one_node(server: Server, experiment: Experiment) -> None:
    assert not experiment(Nodes([server]), f"{experiment.__name__}")


@experiments
@pytest.mark.slow
def test_one_node_that_is_killed(server: Server, experiment: Experiment) -> None:
    kill_after = random.Random(experiment.__name__).randint(*KILL_BETWEEN)
    assert not experiment(Nodes([server], kill_after), f"{experiment.__name__}-killed")


@experiments
@pytest.mark.kafka
def test_two_nodes(two_nodes: TwoNodes, experiment: Experiment) -> None:
    assert not experiment(Nodes(two_nodes), f"{experiment.__name__}")


@experiments
@pytest.mark.kafka
def test_two_nodes_of_which_one_is_killed(two_nodes: TwoNodes, experiment: Experiment) -> None:
    kill_after = random.Random(experiment.__name__).randint(*KILL_BETWEEN)
    assert not experiment(Nodes(two_nodes, kill_after), f"{experiment.__name__}-killed")
