"""Connection settings of Kafka clients from a properties file: TLS, SASL, and whatever else librdkafka can be told.

One setting per line, `name=value`, as in librdkafka's examples and in the files of Kafka's own tools. Lines that are empty or
begin with `#` do not count. A value is taken as it stands, without quotes or escapes. `${file:PATH}` in a value stands for the
content of a file without its last line end, `${env:NAME}` for a variable of the environment.

Settings that promises of the database rest on are refused with the reason. Whether a name exists and a value is valid decides
librdkafka, when the first client is made and before it connects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MAX_FILE_BYTES = 64 << 10
"""Bound of the properties file, and of each file that it refers to."""

_REFERENCE = re.compile(r"\$\{(\w*):([^}]*)\}")
_SECRET = re.compile(r"password|secret|\.pem|passphrase|token|jaas|oauthbearer\.config")
_HIDDEN = "(hidden)"

_ACKNOWLEDGED = "acknowledged means that all in-sync replicas have the record, once and in order"
_OFFSETS = "nodes keep their positions themselves, and read every record from there"
_GROUPS = "nodes name and share their groups themselves"
_CALLBACK = "it is no setting for a file"
_OWN = {
    "acks": _ACKNOWLEDGED,
    "request.required.acks": _ACKNOWLEDGED,
    "enable.idempotence": _ACKNOWLEDGED,
    "enable.gapless.guarantee": _ACKNOWLEDGED,
    "max.in.flight": _ACKNOWLEDGED,
    "max.in.flight.requests.per.connection": _ACKNOWLEDGED,
    "message.send.max.retries": _ACKNOWLEDGED,
    "queuing.strategy": _ACKNOWLEDGED,
    "retries": _ACKNOWLEDGED,
    "transactional.id": _ACKNOWLEDGED,
    "delivery.report.only.error": "writes wait for the acknowledgement",
    "message.max.bytes": "records of 900 KB have to fit",
    "isolation.level": "the journal is read as written, the ingest topic without aborted transactions",
    "auto.commit.enable": _OFFSETS,
    "auto.commit.interval.ms": _OFFSETS,
    "auto.offset.reset": _OFFSETS,
    "enable.auto.commit": _OFFSETS,
    "enable.auto.offset.store": _OFFSETS,
    "enable.partition.eof": _OFFSETS,
    "group.id": _GROUPS,
    "group.instance.id": _GROUPS,
    "group.protocol": _GROUPS,
    "group.remote.assignor": _GROUPS,
    "partition.assignment.strategy": _GROUPS,
    "allow.auto.create.topics": "topics are created with the settings of the preset only",
    "topic.blacklist": "the topics of the journal have to be seen",
    "bootstrap.servers": "--bootstrap-servers has it",
    "metadata.broker.list": "--bootstrap-servers has it",
    "client.id": "it is made of --node and the role of the client",
    "delivery.timeout.ms": "--append-timeout-s has it",
    "message.timeout.ms": "--append-timeout-s has it",
    "queue.buffering.max.kbytes": "--in-flight-mb has it",
    "statistics.interval.ms": "/metrics shows the statistics of one interval",
    "default.topic.config": _CALLBACK,
    "enabled_events": _CALLBACK,
    "logger": _CALLBACK,
    "on_commit": _CALLBACK,
    "on_delivery": _CALLBACK,
}
"""Settings that a file may not have, each with the reason."""


class KafkaConfigError(Exception):
    """The file cannot be used; the text is one sentence that names the file and the setting, and shows no secret."""


class KafkaConfig:
    """Settings for every Kafka client of a process. Shows names only, never a value."""

    def __init__(
        self, source: str = "", settings: Mapping[str, str] | None = None, secrets: frozenset[str] = frozenset()
    ) -> None:
        self._source = source
        self._settings = dict(settings or {})
        self._secrets = secrets

    def __repr__(self) -> str:
        return f"KafkaConfig({self._source!r}, {sorted(self._settings)})"

    @property
    def protocol(self) -> str:
        """`security.protocol` in lower case: plaintext, ssl, sasl_plaintext or sasl_ssl."""
        return self._settings.get("security.protocol", "plaintext").lower()

    def over(self, defaults: Mapping[str, object]) -> dict[str, object]:
        """The defaults, with what the file says in their place."""
        return {**defaults, **self._settings}

    def hidden(self, text: str) -> str:
        """What librdkafka says, without the secrets of these settings."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        return text

    def refused(self, reason: str) -> KafkaConfigError:
        """An error for what librdkafka says about these settings."""
        reason = self.hidden(reason).strip()
        return KafkaConfigError(f"kafka_config {self._source}: {reason}" if self._source else reason)


def load_kafka_config(path: Path, environment: Mapping[str, str]) -> KafkaConfig:
    """Reads a properties file and what it refers to. Raises KafkaConfigError."""
    settings: dict[str, str] = {}
    secrets: set[str] = set()
    for number, line in enumerate(_text_of(path, f"kafka_config {path}").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, text = (part.strip() for part in line.partition("="))
        where = f"kafka_config {path}, line {number}"
        if not separator or not name:
            raise KafkaConfigError(f"{where}: it is not of the form name=value")
        if name in settings:
            raise KafkaConfigError(f"{where}: {name} is there twice")
        if reason := _reason_against(name):
            raise KafkaConfigError(f"{where}: {name} cannot be set here: {reason}")
        found: list[str] = []
        settings[name] = _resolved(text, environment, f"{where}: {name}", found)
        secrets.update(found if not _SECRET.search(name) else [*found, settings[name]])
    return KafkaConfig(str(path), settings, frozenset(secrets - {""}))


def _reason_against(name: str) -> str | None:
    if name.startswith("test."):
        return "it would put a simulated cluster in the place of the journal"
    return _CALLBACK if name.endswith("_cb") else _OWN.get(name)


def _resolved(text: str, environment: Mapping[str, str], where: str, found: list[str]) -> str:
    """The value without references; what they stood for is added to `found`."""

    def content(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind == "file":
            found.append(_text_of(Path(name), f"{where}: file {name}").removesuffix("\n").removesuffix("\r"))
        elif kind == "env":
            if name not in environment:
                raise KafkaConfigError(f"{where}: there is no variable {name}")
            found.append(environment[name])
        else:
            raise KafkaConfigError(f"{where}: ${{{kind}:…}} is not known, ${{file:PATH}} and ${{env:NAME}} are")
        return found[-1]

    return _REFERENCE.sub(content, text)


def _text_of(path: Path, what: str) -> str:
    """The content of a small text file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KafkaConfigError(f"{what} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise KafkaConfigError(f"{what} has more than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:  # its text would show a part of the content
        raise KafkaConfigError(f"{what} is not UTF-8 text") from None
