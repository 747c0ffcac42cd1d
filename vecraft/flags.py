"""Command-line flags for all settings, generated from the table in `vecraft/settings.py`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Container
from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo

from vecraft.settings import Settings, load_settings

GROUPS = {
    "node": ("data_dir", "node", "host", "port", "insecure", "serving_threads", "memory_budget_mb"),
    "logs": ("log_format", "log_level"),
    "journal": ("journal", "in_flight_mb", "append_timeout_s"),
    "journal on Kafka": ("bootstrap_servers", "kafka_config", "topic_prefix", "preset"),
    "inference": ("models_dir",),
    "snapshots": (
        "snapshots_dir",
        "snapshot_hosts",
        "snapshot_url",
        "snapshot_every_s",
        "snapshot_keep",
        "snapshot_keep_days",
        "journal_retention_s",
    ),
    "reads": ("read_timeout_s", "search_timeout_s", "max_answer_points"),
    "ingest topic and dead letters": ("schema_registry_url", "dead_letters_max", "dead_letters_days"),
    "the same on all nodes": ("max_drift_ms", "max_lateness_ms", "idempotency_window_s"),
    "history": ("history_retention_s",),
}
"""All settings, in the groups that the help shows."""


def add_settings(parser: argparse.ArgumentParser, shown: Container[str] = Settings.model_fields) -> None:
    """Adds a flag for each setting. Every command accepts all, since they share file and environment; help lists only `shown`."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings (VECRAFT_CONFIG)")
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title) if any(name in shown for name in names) else parser
        for name in names:
            _add_setting(group, name, Settings.model_fields[name], name in shown)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings from parsed arguments, environment and config file. Raises SettingsError."""
    given = {name: value for name in Settings.model_fields if (value := getattr(options, name)) is not None}
    config = options.config or os.environ.get("VECRAFT_CONFIG")
    return load_settings(given, Path(config) if config else None)


def _add_setting(group: argparse._ActionsContainer, name: str, field: FieldInfo, is_shown: bool) -> None:
    flag = "--" + name.replace("_", "-")
    is_switch = field.annotation is bool
    default = "off" if is_switch else "none" if field.default in ("", None) else field.default
    text = f"{field.description} (default: {default}; VECRAFT_{name.upper()})".replace("%", "%%")
    shown = text if is_shown else argparse.SUPPRESS
    if is_switch:
        group.add_argument(flag, dest=name, action="store_true", default=None, help=shown)
        return
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)] or None
    kinds = {"int": "N", "float": "X"}
    metavar = None if choices else kinds.get(getattr(field.annotation, "__name__", ""), "TEXT")
    group.add_argument(flag, dest=name, choices=choices, metavar=metavar, default=None, help=shown)
