"""Strict mode: rates of reads and writes."""

from __future__ import annotations

import pytest

from catalog.strict_mode import StrictMode
from gateway.admission.strict_mode import RateLimiter, TooManyRequests
from gateway.http.errors import status_of


def test_a_rate_is_a_bucket_that_a_minute_fills() -> None:
    strict, limiter = StrictMode(True, read_rate_limit=6), RateLimiter("read_rate_limit")
    for _ in range(6):
        limiter.check_rate(strict, 100.0)
    with pytest.raises(TooManyRequests, match=r"Read rate limit exceeded, at most 6 a minute .*read_rate_limit") as raised:
        limiter.check_rate(strict, 100.0)
    assert status_of(raised.value)[::2] == (429, pytest.approx(10.0))
    with pytest.raises(TooManyRequests) as raised:
        limiter.check_rate(strict, 105.0)
    assert raised.value.retry_after_s == pytest.approx(5.0)
    limiter.check_rate(strict, 110.0)
    with pytest.raises(TooManyRequests):
        limiter.check_rate(strict, 110.0)
    limiter.check_rate(strict, 1000.0, cost=6)
    with pytest.raises(TooManyRequests):
        limiter.check_rate(strict, 999.0)  # a clock that steps back fills nothing


def test_who_waits_as_told_is_served() -> None:
    strict, limiter, now_s = StrictMode(True, write_rate_limit=7), RateLimiter("write_rate_limit"), 0.3
    limiter.check_rate(strict, now_s, cost=7)
    for cost in (1, 3, 7, 2, 5):
        with pytest.raises(TooManyRequests, match="Write rate") as raised:
            limiter.check_rate(strict, now_s, cost)
        assert raised.value.retry_after_s is not None
        now_s += raised.value.retry_after_s
        limiter.check_rate(strict, now_s, cost)


def test_a_request_larger_than_the_bucket_is_told_to_split() -> None:
    strict, limiter = StrictMode(True, read_rate_limit=5), RateLimiter("read_rate_limit")
    with pytest.raises(TooManyRequests, match="this request costs 6, more than a whole minute; split it") as raised:
        limiter.check_rate(strict, 0.0, cost=6)
    assert raised.value.retry_after_s is None
    limiter.check_rate(strict, 0.0, cost=5)


def test_a_new_limit_starts_with_a_full_bucket() -> None:
    limiter = RateLimiter("read_rate_limit")
    limiter.check_rate(StrictMode(True, read_rate_limit=1), 0.0)
    limiter.check_rate(StrictMode(True, read_rate_limit=2), 0.0, cost=2)


@pytest.mark.parametrize("off", [None, StrictMode(True), StrictMode(read_rate_limit=1), StrictMode(True, write_rate_limit=1)])
def test_a_rate_that_is_not_limited_takes_all(off: StrictMode | None) -> None:
    limiter = RateLimiter("read_rate_limit")
    for _ in range(10):
        limiter.check_rate(off, 0.0, cost=100)
