"""Writes to the ingest topic under a schema of its own, which it registers: any Avro record with fields of the right names does.

The id of the schema stands before each body (Confluent framing), or in a header; for that the registry must give schemas GUIDs.
"""

from __future__ import annotations

import argparse
import os
import sys

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer, prefix_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

TOPIC = os.environ.get("VECRAFT_TOPIC_PREFIX", "vecraft") + ".ingest"
COLLECTION = os.environ.get("VECRAFT_COLLECTION", "songs")
REGISTRY_URL = os.environ.get("VECRAFT_SCHEMA_REGISTRY_URL", "http://localhost:8081")
SETTINGS = {
    "bootstrap.servers": os.environ.get("VECRAFT_BOOTSTRAP_SERVERS", "localhost:9092"),
    "acks": "all",
    "enable.idempotence": True,
    "delivery.timeout.ms": 15_000,
    "partitioner": "murmur2_random",
}

SCHEMA = """{
  "type": "record",
  "name": "Song",
  "namespace": "music",
  "fields": [
    {"name": "id", "type": "long"},
    {"name": "vector", "type": {"type": "array", "items": "float"}},
    {"name": "payload", "type": {"type": "record", "name": "About", "fields": [
      {"name": "title", "type": "string"},
      {"name": "year", "type": "int"}
    ]}}
  ]
}"""

SONGS = [
    {"id": 21, "vector": [0.1, 0.9, 0.2, 0], "payload": {"title": "Spiegel im Spiegel", "year": 1978}},
    {"id": 22, "vector": [0.9, 0.1, 0, 0.3], "payload": {"title": "Music for 18 Musicians", "year": 1976}},
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schema-id-in-header", action="store_true")
    in_header = parser.parse_args().schema_id_in_header

    id_serializer = header_schema_id_serializer if in_header else prefix_schema_id_serializer
    serialize = AvroSerializer(SchemaRegistryClient({"url": REGISTRY_URL}), SCHEMA, conf={"schema.id.serializer": id_serializer})
    producer = Producer(SETTINGS)
    failed = 0

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal failed
        if error is not None:
            failed += 1
            print(f"{message.key()!r} is not delivered: {error}", file=sys.stderr)

    for song in SONGS:
        headers = {"vecraft-collection": COLLECTION, "ce_source": "examples/producer_registry.py", "ce_id": str(song["id"])}
        body = serialize(song, SerializationContext(TOPIC, MessageField.VALUE, headers))  # may add a header
        producer.produce(TOPIC, body, str(song["id"]), headers=headers, on_delivery=delivered)
        producer.poll(0)
    producer.flush()
    print(f"{len(SONGS) - failed} of {len(SONGS)} songs are in {TOPIC}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
