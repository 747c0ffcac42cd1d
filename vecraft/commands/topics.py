"""`vecraft topics create|describe|check|adopt`: creates the journal's topics on Kafka, compares them with the preset, or goes on
with another log."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from journal.log import JournalError
from journal.topics import PRESETS, TIERS, Topics
from vecraft.commands import journal_failure, print_table
from vecraft.flags import add_settings
from vecraft.settings import Settings

if TYPE_CHECKING:
    from journal.topic_check import TopicFacts

DESCRIPTION = """\
The journal's topics on Kafka. `vecraft serve` creates and checks them by itself; here this is done without starting a node.
Takes the settings of `vecraft serve`."""
EXAMPLES = """\
examples:
  vecraft topics check --bootstrap-servers broker1:9092,broker2:9092 --preset prod
  vecraft topics create --bootstrap-servers broker1:9092,broker2:9092 --preset prod
"""
ACTIONS = {
    "create": "create those that are missing, and check all",
    "describe": "print what they are like",
    "check": "say which promises of the preset they would break",
}
SHOWN = ("bootstrap_servers", "kafka_config", "topic_prefix", "preset", "append_timeout_s")
COLUMNS = ("topic", "partitions", "copies", "min ISR", "time", "retention", "cleanup", "compression")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    for action, text in ACTIONS.items():
        parser = actions.add_parser(action, help=text, description=f"Topics of the journal: {text}.")
        add_settings(parser, SHOWN)
        parser.set_defaults(journal="kafka")  # there are no topics elsewhere
    text = "go on with a log that is not the one this node knows; the node must be stopped"
    adopt = actions.add_parser(
        "adopt", help=text, description=f"{text.capitalize()}. Without --yes says what it is, and what would be lost."
    )
    adopt.add_argument("--yes", action="store_true", help="do it")
    add_settings(adopt, ("data_dir", "journal", *SHOWN))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Creates or checks the topics, and prints their configuration."""
    if options.action == "adopt":
        return _adopt(settings, options.yes)
    from vecraft.kafka import command_journal

    topics = Topics(settings.topic_prefix, settings.preset)
    try:
        journal = command_journal(settings, "topics")
        try:
            if options.action == "create":
                journal.ensure_topics(topics.all())
            elif options.action == "check":
                journal.check_topics(topics.all())
            _print_table(topics, journal.describe_topics(list(topics.all())))
        finally:
            journal.close()
    except JournalError as error:
        raise journal_failure(error, settings) from error
    _print_amplification(settings.preset)
    return 0


def _adopt(settings: Settings, confirmed: bool) -> int:
    from vecraft.adoption import adopt

    try:
        adopt(settings, confirmed)
    except JournalError as error:
        raise journal_failure(error, settings) from error
    return 0


def _print_table(topics: Topics, facts: dict[str, TopicFacts]) -> None:
    rows = [COLUMNS, *(_row(topic, facts.get(topic)) for topic in topics.all())]
    print_table(rows)


def _row(topic: str, facts: TopicFacts | None) -> tuple[str, ...]:
    if facts is None:
        return (topic, "missing", *[""] * (len(COLUMNS) - 2))
    retention = "for ever" if facts.retention_ms < 0 else f"{facts.retention_ms / 86_400_000:g} days"
    time = "LogAppendTime" if facts.log_times else "CreateTime"
    numbers = (facts.partitions, facts.replication, facts.min_insync)
    return (topic, *map(str, numbers), time, retention, facts.cleanup, facts.compression)


def _print_amplification(name: str) -> None:
    """Prints the write amplification per tier: copies on brokers, plus one copy on each node that has the shard."""
    preset = PRESETS[name]
    print(f"\npreset {name}: each write is written")
    for tier in TIERS:
        total = preset.write_amplification(tier)
        print(
            f"  tier {tier}: {total} times ({preset.tiers[tier]} in the journal, {preset.storage} by nodes that keep the shard)"
        )
