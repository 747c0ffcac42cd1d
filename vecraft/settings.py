"""All settings in one typed table. Each is a flag of `vecraft serve`, a `VECRAFT_…` variable and a key of the TOML file, with
this precedence."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from catalog.collection import MAX_RETENTION_S


class SettingsError(Exception):
    """Invalid settings; the text names each setting and its bound."""


KAFKA_ONLY = ("bootstrap_servers", "kafka_config", "preset")
"""Settings that would be passed over in silence without a journal on Kafka."""


class Settings(BaseSettings):
    """The settings of a node."""

    model_config = SettingsConfigDict(env_prefix="VECRAFT_", extra="forbid", validate_default=True)

    data_dir: Path = Field(Path("data"), description="folder of journal/ (the truth, when embedded) and state/ (may be deleted)")
    host: str = Field("127.0.0.1", description="address to listen on; one that others can reach needs --insecure")
    port: int = Field(6333, ge=0, le=65535, description="port to listen on; 0 for any that is free")
    node: str = Field("node1", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="name of this node, unique on one journal")
    journal: Literal["embedded", "kafka"] = Field("embedded", description="where the log is kept")
    bootstrap_servers: str = Field("127.0.0.1:9092", description="Kafka brokers, comma-separated")
    kafka_config: Path | None = Field(
        None, description="properties file for connecting to Kafka: TLS, SASL, any setting of librdkafka (docs/kafka.md)"
    )
    topic_prefix: str = Field("vecraft", pattern=r"^[A-Za-z0-9._-]{1,64}$", description="first part of every topic's name")
    preset: Literal["dev", "test", "prod", "high-durability"] = Field(
        "dev", description="what topics on Kafka have to be like: created so, and refused at the start when they are not"
    )
    schema_registry_url: str = Field("", description="schema registry of those who write to the ingest topic")
    dead_letters_max: int = Field(1000, ge=1, le=100_000, description="dead letters kept of a collection; the oldest leave")
    dead_letters_days: float = Field(7, gt=0, le=3650, description="how long dead letters are kept")
    serving_threads: int = Field(2, ge=1, le=64, description="event loops that answer requests; they share one interpreter lock")
    log_format: Literal["text", "json"] = Field("text", description="a line of text, or a JSON object, for each entry of the log")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="what is logged at least; PUT /admin/log-level changes it while the node runs"
    )
    insecure: bool = Field(False, description="serve other machines although there is no authentication yet")
    max_drift_ms: int = Field(500, ge=1, le=60_000, description="clock skew at which a write is refused; the same on all nodes")
    max_lateness_ms: int = Field(
        10_000, ge=1, le=3_600_000, description="age at which a write's stamp is raised; the same on all nodes"
    )
    idempotency_window_s: int = Field(
        86_400, ge=1, description="how long an Idempotency-Key is remembered; the same on all nodes"
    )
    history_retention_s: int = Field(
        86_400,
        ge=0,
        le=MAX_RETENTION_S,
        description="how long earlier states of points are kept, unless a collection says otherwise; 0: not",
    )
    in_flight_mb: int = Field(64, ge=1, le=4096, description="writes that may wait for their acknowledgement; more get 429")
    memory_budget_mb: int = Field(
        0, ge=0, description="memory beyond which writes that add data are refused; 0 for 80 % of the machine's or container's"
    )
    append_timeout_s: float = Field(5.0, gt=0, le=300, description="longest wait for the log's acknowledgement")
    read_timeout_s: float = Field(5.0, gt=0, le=300, description="longest wait of a read for the state it demands")

    snapshots_dir: Path | None = Field(
        None, description="folder of the dialect's snapshots: archives of collections (default: snapshots/ in data_dir)"
    )
    snapshot_hosts: str = Field(
        "", description="hosts from whose URLs a collection may be recovered, comma-separated: host, or host:port"
    )
    snapshot_url: str = Field(
        "", description="place of this node's snapshots: file:///folder or s3://bucket/prefix (docs/snapshots.md)"
    )
    snapshot_every_s: float = Field(
        0, ge=0, le=31_536_000, description="seconds between two snapshots of this node; 0 makes them only when asked for"
    )
    snapshot_keep: int = Field(7, ge=1, le=10_000, description="latest snapshots that stay after a scheduled one")
    snapshot_keep_days: int = Field(0, ge=0, le=36_500, description="days of which the last snapshot stays, too")

    journal_retention_s: int | None = Field(
        None,
        ge=0,
        le=MAX_RETENTION_S,
        description="age from which records are cut off the log after each snapshot (docs/operations.md); without it never",
    )

    models_dir: Path | None = Field(
        None, description="folder of models that make dense vectors of texts, one sub-folder each (docs/inference.md)"
    )
    search_timeout_s: float = Field(
        2.0, gt=0, le=3600, description="longest work of a read that names no timeout, once that state is there"
    )

    max_answer_points: int = Field(100_000, ge=1, le=10_000_000, description="points in one answer; more are refused")

    @model_validator(mode="after")
    def _guarded(self) -> Settings:
        if not self.insecure and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached by others and there is no authentication yet; say --insecure if that is meant"
            )
        return self

    @model_validator(mode="after")
    def _on_kafka(self) -> Settings:
        given = [name for name in KAFKA_ONLY if name in self.model_fields_set]
        if given and self.journal != "kafka":
            raise ValueError(
                f"{' and '.join(given)} {'needs' if len(given) == 1 else 'need'} a journal on Kafka, and journal is "
                f"{self.journal}: say --journal kafka, or leave {'it' if len(given) == 1 else 'them'} out"
            )
        return self

    @model_validator(mode="after")
    def _with_place(self) -> Settings:
        if self.snapshot_every_s and not self.snapshot_url:
            raise ValueError("snapshot_every_s needs a place for snapshots: say --snapshot-url")
        if self.journal_retention_s is not None and not self.snapshot_url:
            raise ValueError("journal_retention_s needs snapshots, below which the log is cut: say --snapshot-url")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _toml_file)


PREFIX = "VECRAFT_"
OTHER_VARIABLES = frozenset(
    {"VECRAFT_CONFIG", "VECRAFT_URL", "VECRAFT_COLLECTION", "VECRAFT_KAFKA"}
    | {"VECRAFT_FAULT_RECORDS", "VECRAFT_FAULT_REPORT", "VECRAFT_FAULT_ROUNDS"}
    | {f"VECRAFT_{what}_PORT" for what in ("LEFT", "RIGHT", "KAFKA", "KAFKA2", "KAFKA3", "KAFKA_UI", "GRAFANA", "PROMETHEUS")}
)
"""Variables with the prefix that are no settings: the configuration file, and those of compose files, clients and tests."""

_toml_file: Path | None = None


def load_settings(flags: dict[str, object], toml_file: Path | None = None) -> Settings:
    """Merges flags, environment and TOML file. Raises SettingsError."""
    global _toml_file  # pydantic-settings has no way to pass the file as an argument
    if toml_file is not None and not toml_file.is_file():
        raise SettingsError(f"config {toml_file} is not a file")
    _toml_file = toml_file
    _check_variables(os.environ)
    try:
        return Settings(**flags)  # type: ignore[arg-type]
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config {toml_file} is not TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"config {toml_file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsError("; ".join(_plain(detail) for detail in error.errors())) from error  # type: ignore[arg-type]


def _check_variables(names: Iterable[str]) -> None:
    """Refuses variables that look like settings: one with a misspelled name would be ignored."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in names if name.startswith(PREFIX) and name not in known | OTHER_VARIABLES)
    if unknown:
        raise SettingsError("; ".join(_unknown(f"variable {name}", name, known) for name in unknown))


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"{what} is no setting" + (f", did you mean {near[0]}?" if near else "")


def _plain(detail: dict[str, object]) -> str:
    name = ".".join(str(part) for part in detail["loc"])  # type: ignore[attr-defined]
    if detail["type"] == "extra_forbidden":
        return _unknown(name, name, Settings.model_fields)
    text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{name}: {text}" if name else text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
