"""Writes to the ingest topic without a schema registry: Avro in single-object framing, vectors as bytes of their numbers.

Exit status 0 says that the brokers have every record. After any other, run it again: as each record carries the idempotency key
that it had before, what has arrived is not applied twice.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import KafkaError, Message, Producer
from fastavro.schema import fingerprint, to_parsing_canonical_form

TOPIC = os.environ.get("VECRAFT_TOPIC_PREFIX", "vecraft") + ".ingest"
COLLECTION = os.environ.get("VECRAFT_COLLECTION", "songs")
SETTINGS = {
    "bootstrap.servers": os.environ.get("VECRAFT_BOOTSTRAP_SERVERS", "localhost:9092"),
    "acks": "all",
    "enable.idempotence": True,  # what the client sends again stands in the topic once, and in order
    "delivery.timeout.ms": 15_000,
    "partitioner": "murmur2_random",  # as Java's client does it: all changes of a point in one partition, whoever writes them
}

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas/ingest.v1.avsc").read_text())
FRAME = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))


def float32(*numbers: float) -> bytes:
    """A vector: its numbers as little-endian float32."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


CHANGES: list[dict[str, Any]] = [
    {"id": 11, "vector": float32(0.1, 0.9, 0.2, 0), "payload": '{"title": "Clair de lune", "year": 1905}'},
    {"id": 12, "vector": float32(0.9, 0.1, 0, 0.3), "payload": '{"title": "Boléro", "draft": true}'},
    {"id": "a movement", "vector": float32(0.5, 0.5, 0.5, 0.5)},
    {"id": 12, "op": "patch", "payload": '{"year": 1928, "draft": null}'},
    {"id": "a movement", "op": "delete"},
]


def encode(change: dict[str, Any]) -> bytes:
    """A change as Avro, behind the fingerprint of its schema."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, SCHEMA, {"collection": COLLECTION, **change})
    return FRAME + body.getvalue()


def main() -> int:
    producer = Producer(SETTINGS)
    failed = 0

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal failed
        if error is not None:
            failed += 1
            print(f"{message.key()!r} is not delivered: {error}", file=sys.stderr)

    for number, change in enumerate(CHANGES):
        headers = {"vecraft-tier": "1", "ce_source": "examples/producer.py", "ce_id": str(number)}
        while True:
            try:
                producer.produce(TOPIC, encode(change), str(change["id"]), headers=headers, on_delivery=delivered)
                break
            except BufferError:  # the client's queue is full
                producer.poll(1)
        producer.poll(0)
    producer.flush()  # each record is delivered or given up within the delivery timeout
    print(f"{len(CHANGES) - failed} of {len(CHANGES)} changes are in {TOPIC}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
