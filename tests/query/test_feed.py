"""The text of a place in a feed is checked before it is believed."""

from __future__ import annotations

import pytest

from journal.ids import ExternalId, encode_id
from journal.stamps import MAX_VERSION
from query.feed import MAX_TOKEN_CHARS, Place, after, is_place, parse_place
from shard.replica import Cursor

LOG = "0a1b2c3d"


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize(
    "id_", [0, 2**64 - 1, "d6b0ad5e-6a1c-4a9e-9f2e-0c36a3a0d1f4", "x" * 512, "\N{GREEK SMALL LETTER PI}", None]
)
def test_a_place_is_read_as_it_was_written(id_: ExternalId | None, initial: bool) -> None:
    place = Place(Cursor(MAX_VERSION, b"" if id_ is None else encode_id(id_)), initial)
    text = place.text(LOG, 35**5)
    assert is_place(text)
    assert len(text) <= MAX_TOKEN_CHARS
    assert parse_place(text, LOG, 35**5) == place


GOOD = Place(Cursor(77, encode_id(5))).text(LOG, 9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (Place(Cursor(77)).text("99999999", 9), "of another log"),
        (Place(Cursor(77)).text(LOG, 8), "of another collection"),
        (GOOD[:-1], "not a place"),
        (GOOD + "AAAA", "not a place"),
        (GOOD.replace(".c.", ".x."), "not a place"),
        (GOOD.upper(), "not a place"),
        (GOOD + "\n", "not a place"),
        (f"f.{LOG}.9.c.{'z' * 13}.", "not a place"),
        ("f." + "a" * MAX_TOKEN_CHARS, "not a place"),
        ("f.", "not a place"),
    ],
)
def test_what_is_no_place_here_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_place(text, LOG, 9)


def test_the_place_after_a_stamp_is_above_all_its_versions_and_below_the_next() -> None:
    assert Cursor(4 * 7 + 3, b"\xff" * 600) < after(7).cursor < Cursor(4 * 8, encode_id(0))
