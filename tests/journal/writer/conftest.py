"""A writer and its log, for each test."""

import pytest

from tests.journal.writer.written import World


@pytest.fixture
def world() -> World:
    return World()
