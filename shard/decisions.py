"""What became of records with conditions, and of requests with an idempotency key that wrote such records."""

from __future__ import annotations

import msgspec


class Decision(msgspec.Struct, array_like=True, omit_defaults=True):
    """What became of a record with conditions: its stamp, and the points for which the condition did not hold.

    Final when the shard is closed up to the stamp. `ids` are the points of the record, if it has an idempotency key.
    """

    stamp: int
    failed: set[bytes]
    ids: list[bytes] = []


class Attempt(msgspec.Struct, array_like=True, omit_defaults=True):
    """The latest attempt of a request with an idempotency key: its number and request id.

    `offsets` are those of the records of all attempts, `stamp` is that of the first record. There is a `result` when the
    request has ended.
    """

    stamp: int
    number: int
    request_id: str
    offsets: list[int] = []
    result: bytes | None = None

    def accepts(self, number: int, request_id: str) -> bool:
        """Whether a record of this attempt is applied: the request has not ended, and no later attempt has begun."""
        return self.result is None and (number > self.number or (number, request_id) == (self.number, self.request_id))
