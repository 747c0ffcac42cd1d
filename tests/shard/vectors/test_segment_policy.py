"""What is sealed, merged and cleaned, and when: decisions without files or graphs."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from shard.vectors.segment_policy import SegmentPolicy

POLICY = SegmentPolicy(seal_rows=100, seal_rows_idle=20, coded_rows=50, max_segment_rows=1000)


class Size(NamedTuple):
    """Of a segment, in rows."""

    count: int
    alive_count: int
    ef: int = 88


def sizes(*counts: int) -> list[Size]:
    return [Size(count, count) for count in counts]


@pytest.mark.parametrize(
    ("rows", "idle", "full"), [(99, False, False), (100, False, True), (19, True, False), (20, True, True), (0, True, False)]
)
def test_fewer_rows_fill_a_segment_while_nothing_is_written(rows: int, idle: bool, full: bool) -> None:
    assert POLICY.is_full(rows, idle) is full


def test_only_what_takes_long_to_scan_gets_codes() -> None:
    assert [POLICY.needs_codes(rows) for rows in (49, 50)] == [False, True]


@pytest.mark.parametrize(
    ("segments", "merged"),
    [
        ([], []),
        ([100], []),
        ([100, 20], []),  # less than a quarter of the largest
        ([100, 25], [100, 25]),
        ([10, 10, 100, 10], [100, 10, 10, 10]),  # together they are enough
        ([400, 60, 30], [60, 30]),  # too little for the largest, enough for the next
        ([800, 300], []),  # more than a segment may have
        ([800, 300, 100], [300, 100]),
    ],
)
def test_segments_merge_when_the_smaller_ones_are_a_quarter_of_the_largest(segments: list[int], merged: list[int]) -> None:
    assert [size.count for size in POLICY.to_merge(sizes(*segments))] == merged


def test_segments_that_are_hard_to_search_are_not_merged() -> None:
    """A graph of both would need a width that is as much larger as the graph is."""
    hard, easy = Size(100, 100, POLICY.max_merged_ef + 1), Size(100, 100, POLICY.max_merged_ef)
    assert POLICY.to_merge([hard, easy, Size(20, 20), Size(10, 10)]) == [easy, Size(20, 20), Size(10, 10)]
    assert not POLICY.to_merge([hard, easy])


def test_files_are_written_when_many_rows_wait() -> None:
    policy = SegmentPolicy(unsaved_rows=100)
    assert not policy.to_save(sizes(40, 60))
    assert [size.count for size in policy.to_save(sizes(40, 61))] == [40]


def test_a_build_takes_the_oldest_that_wait_up_to_a_number_of_rows() -> None:
    policy = SegmentPolicy(max_build_rows=100)
    assert [size.count for size in policy.to_build(sizes(40, 60, 1))] == [40, 60]
    assert [size.count for size in policy.to_build(sizes(170, 60))] == [170], "at least one"
    assert not policy.to_build([])


def test_a_row_is_built_a_number_of_times_that_is_logarithmic_in_the_collection() -> None:
    segments: list[Size] = []
    policy, built = SegmentPolicy(), 0
    for _ in range(100):
        segments.append(Size(10_000, 10_000))
        built += 10_000
        while merged := policy.to_merge(segments):
            count = sum(size.count for size in merged)
            for size in merged:
                segments.remove(size)
            segments.append(Size(count, count))
            built += count
    assert built < 10 * 1_000_000
    assert len(segments) <= 8


def test_segments_are_cleaned_of_many_dead_rows() -> None:
    segments = [Size(100, 100), Size(100, 80), Size(100, 79), Size(10, 0)]
    assert POLICY.to_clean(segments) == segments[2:]
    assert not POLICY.to_merge([Size(100, 79)])


@pytest.mark.parametrize(("rows", "held_out"), [(0, 0), (99, 0), (10_000, 100), (1_000_000, 400)])
def test_a_small_share_is_held_out_to_measure_with(rows: int, held_out: int) -> None:
    assert POLICY.held_out_rows(rows) == held_out


def test_large_graphs_are_built_with_more_candidates() -> None:
    policy = SegmentPolicy(large_rows=50)
    assert [policy.ef_construct(100, rows) for rows in (49, 50)] == [100, 200]
