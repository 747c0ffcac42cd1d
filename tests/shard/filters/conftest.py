"""What the tests of filters share tells why it fails."""

import pytest

pytest.register_assert_rewrite("tests.shard.filters.pair")
