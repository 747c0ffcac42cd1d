"""Opens the journal on Kafka, for a node or for a command, from the settings."""

from __future__ import annotations

import logging
import os

from journal.kafka import KafkaJournal
from journal.kafka_config import KafkaConfig, KafkaConfigError, load_kafka_config
from vecraft.settings import Settings, SettingsError


def node_journal(settings: Settings) -> KafkaJournal:
    """The journal of a node. Raises SettingsError when the configuration file cannot be used."""
    return _opened(settings, f"vecraft-{settings.node}", replayer_group(settings))


def command_journal(settings: Settings, command: str) -> KafkaJournal:
    """The journal for a command that ends. Raises SettingsError when the configuration file cannot be used."""
    logging.getLogger("journal").setLevel(logging.CRITICAL)  # the error of the command says it
    return _opened(settings, f"vecraft-{command}", f"{settings.topic_prefix}.reader")


def replayer_group(settings: Settings) -> str:
    """The group under which this node commits what it has applied."""
    return f"{settings.topic_prefix}.replayer.{settings.node}"


def _opened(settings: Settings, client: str, group: str) -> KafkaJournal:
    try:
        config = load_kafka_config(settings.kafka_config, os.environ) if settings.kafka_config else KafkaConfig()
        return KafkaJournal(
            settings.bootstrap_servers, settings.append_timeout_s, settings.in_flight_mb << 20, config, client, group
        )
    except KafkaConfigError as error:
        raise SettingsError(str(error)) from error
