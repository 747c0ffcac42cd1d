"""Opens the journal on Kafka, for a node or for a command, from the settings."""

from __future__ import annotations

import logging
import os

from journal.kafka import KafkaJournal
from journal.kafka_config import KafkaConfig, KafkaConfigError, load_kafka_config
from vecraft.settings import Settings, SettingsError


def node_journal(settings: Settings) -> KafkaJournal:
    """The journal of a node. Raises SettingsError when the configuration file cannot be used."""
    return _opened(settings, f"vecraft-{settings.node}")


def command_journal(settings: Settings, command: str) -> KafkaJournal:
    """The journal for a command that ends. Raises SettingsError when the configuration file cannot be used."""
    logging.getLogger("journal").setLevel(logging.ERROR)  # the error of the command says what a warning would
    return _opened(settings, f"vecraft-{command}")


def _opened(settings: Settings, client: str) -> KafkaJournal:
    try:
        config = load_kafka_config(settings.kafka_config, os.environ) if settings.kafka_config else KafkaConfig()
        return KafkaJournal(settings.bootstrap_servers, settings.append_timeout_s, settings.in_flight_mb << 20, config, client)
    except KafkaConfigError as error:
        raise SettingsError(str(error)) from error
