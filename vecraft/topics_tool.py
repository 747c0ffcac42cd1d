"""`vecraft topics create|describe|check`: the journal's topics on Kafka, beside what the preset promises."""

from __future__ import annotations

from collections.abc import Callable

from journal.kafka import KafkaJournal
from journal.topic_check import TopicFacts
from journal.topics import PRESETS, TIERS, Topics
from vecraft.settings import Settings

COLUMNS = ("topic", "partitions", "copies", "min ISR", "time", "retention", "cleanup", "compression")


def create(settings: Settings) -> None:
    """Creates the topics that are missing, and checks all. Raises JournalError, as `check` and `describe` do."""
    _with_journal(settings, lambda journal, topics: journal.ensure_topics(topics.all()))


def check(settings: Settings) -> None:
    """Raises Unfit with the promises that the topics would break."""
    _with_journal(settings, lambda journal, topics: journal.check_topics(topics.all()))


def describe(settings: Settings) -> None:
    """Prints what the topics are like."""
    _with_journal(settings, lambda journal, topics: None)


def _with_journal(settings: Settings, act: Callable[[KafkaJournal, Topics], None]) -> None:
    topics = Topics(settings.topic_prefix, settings.preset)
    journal = KafkaJournal(settings.bootstrap_servers, settings.append_timeout_s)
    try:
        act(journal, topics)
        _print_table(topics, journal.describe_topics(list(topics.all())))
    finally:
        journal.close()
    _print_amplification(settings.preset)


def _print_table(topics: Topics, found: dict[str, TopicFacts]) -> None:
    rows = [COLUMNS, *(_row(topic, found.get(topic)) for topic in topics.all())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(topic: str, facts: TopicFacts | None) -> tuple[str, ...]:
    if facts is None:
        return (topic, "missing", *[""] * (len(COLUMNS) - 2))
    retention = "for ever" if facts.retention_ms < 0 else f"{facts.retention_ms / 86_400_000:g} days"
    time = "LogAppendTime" if facts.log_times else "CreateTime"
    numbers = (facts.partitions, facts.replication, facts.min_insync)
    return (topic, *map(str, numbers), time, retention, facts.cleanup, facts.compression)


def _print_amplification(name: str) -> None:
    """Write amplification: a write goes to so many brokers, and once to every node that keeps its shard."""
    preset = PRESETS[name]
    print(f"\npreset {name}: each write is written")
    for tier in TIERS:
        total = preset.write_amplification(tier)
        print(
            f"  tier {tier}: {total} times ({preset.tiers[tier]} in the journal, {preset.storage} by nodes that keep the shard)"
        )
