#!/bin/sh
# Writes to the ingest topic from the shell, a JSON line for each change: three upserts, a patch, and a delete by tombstone.
set -eu

# Lines of key|body to the topic; returns when the brokers have them. The key is the point's id. Headers are those of all lines.
# murmur2 is how Java's client chooses partitions: so all changes of a point go to one, and stay in order, whoever writes them.
produce() {
    kcat -P -b "${VECRAFT_BOOTSTRAP_SERVERS:-localhost:9092}" -t "${VECRAFT_TOPIC_PREFIX:-vecraft}.ingest" -K '|' \
        -X acks=all -X enable.idempotence=true -X partitioner=murmur2_random -X message.timeout.ms=15000 \
        -H "vecraft-collection=${VECRAFT_COLLECTION:-songs}" -H vecraft-tier=1 "$@"
}

produce <<'END'
1|{"vector": [0.1, 0.9, 0.2, 0], "payload": {"title": "Gymnopédie No. 1", "year": 1888}}
2|{"vector": [0.9, 0.1, 0, 0.3], "payload": {"title": "The Rite of Spring", "draft": true}}
a free string|{"vector": [0.5, 0.5, 0.5, 0.5], "payload": {"title": "4′33″"}}
END

produce <<'END'
2|{"op": "patch", "payload": {"year": 1913, "draft": null}}
END

produce -Z <<'END'
a free string|
END
