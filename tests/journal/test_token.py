"""Position tokens: they come back, they merge to the least upper bound, and nothing else is taken for one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal.hlc import MAX_STAMP
from journal.log import TopicPartition
from journal.token import MAX_TOKEN_CHARS, Token, advance, log_name, merge, parse_token
from journal.topics import Topics

TOPICS = Topics()
LOG = log_name("vecraft.system:one")
PARTITIONS = [*TOPICS.data_partitions(), TOPICS.system_partition]

offsets = st.integers(0, 36**12 - 1)
tokens = st.builds(Token, st.integers(0, MAX_STAMP), st.dictionaries(st.sampled_from(PARTITIONS), offsets))


def at_or_above(token: Token, other: Token) -> bool:
    return token.hlc >= other.hlc and all(token.positions.get(p, 0) >= offset for p, offset in other.positions.items())


@given(tokens)
@example(Token(MAX_STAMP, dict.fromkeys(PARTITIONS, 36**12 - 1)))
def test_a_token_comes_back_from_its_text(token: Token) -> None:
    """V10, N2"""
    text = token.text(TOPICS, LOG)
    assert parse_token(text, TOPICS, LOG) == token
    assert len(text) <= MAX_TOKEN_CHARS
    assert text.isascii()
    assert text.replace(".", "").replace("-", "").isalnum(), "it fits a header, a cookie and a URL as it is"


def test_a_token_is_text_that_people_can_read() -> None:
    """V10: a change of the form would lose the reads of clients that hold one."""
    token = Token(36, {TopicPartition("vecraft.tier2", 5): 37, TopicPartition("vecraft.system", 0): 3})
    assert token.text(TOPICS, LOG) == f"{LOG}.10.s-0-3.2-5-11"


@given(st.lists(tokens, max_size=4), tokens)
def test_merge_is_the_least_upper_bound(several: list[Token], bound: Token) -> None:
    """I9"""
    merged = merge(several)
    assert all(at_or_above(merged, token) for token in several)
    above = merge([*several, bound])
    assert at_or_above(above, merged), "whatever is above all of them is above the merged one"
    assert merge(reversed(several)) == merged
    assert merge([merged, *several]) == merged


@given(st.dictionaries(st.sampled_from(PARTITIONS), offsets), st.dictionaries(st.sampled_from(PARTITIONS), offsets))
def test_positions_only_move_forward(positions: dict[TopicPartition, int], to: dict[TopicPartition, int]) -> None:
    """I9"""
    before = dict(positions)
    advance(positions, to)
    for partition in PARTITIONS:
        assert positions.get(partition, 0) == max(before.get(partition, 0), to.get(partition, 0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        " 1",
        "1\n",
        "-1",
        "A",
        "١",
        "1_0",
        "zzzzzzzzzzzzz",
        "1.0",
        "1.0-0",
        "1.0-0-",
        "1.0-0-5.",
        "1..0-0-5",
        "1.4-0-5",
        "1.0-2-5",
        "1.2-6-5",
        "1.s-1-5",
        "1.x-0-5",
        "1.0-0--5",
        "1.0-0-5-6",
        "1.0-0-0000000000005",
        "1.0-0000-5",
        "1" * (MAX_TOKEN_CHARS + 1),
        "1" + ".0-0-5" * 200,
        "../../etc/passwd",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """V27"""
    for whole in (text, f"{LOG}.{text}"):
        with pytest.raises(ValueError, match="position token"):
            parse_token(whole, TOPICS, LOG)


@given(tokens)
def test_a_token_of_another_log_is_refused(token: Token) -> None:
    """V10: offsets of two logs have nothing to do with each other."""
    with pytest.raises(ValueError, match="another log"):
        parse_token(token.text(TOPICS, log_name("vecraft.system:other")), TOPICS, LOG)


@given(st.text(max_size=40))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    """V27"""
    try:
        token = parse_token(text, TOPICS, LOG)
    except ValueError:
        return
    assert parse_token(token.text(TOPICS, LOG), TOPICS, LOG) == token
