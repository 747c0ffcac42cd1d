"""Which brokers cannot be reached and why: for the log, for the health pages, and for the texts of errors.

librdkafka reports that something is wrong, many times per second and sometimes without the address, and never that all is well
again. So a report is only a reason to look: a probe, which is a new client of one address, says what is the case. While all is
well nothing is probed. While an address fails it is probed every RECHECK_S.

This file knows the texts of librdkafka, but not the library; `journal/kafka.py` has the probe.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from journal.log import BrokerState

log = logging.getLogger(__name__)

RECHECK_S = 2.0
_AT = re.compile(
    r"^(?:\[thrd:.*?\]: )?(?:\w+: )?(?:\w+://)?(?P<address>[^/\s]+:\d+)(?:/\S+)?: (?P<text>.*?)(?: \(after \d+ms.*)?$", re.S
)
"""A line of librdkafka, as logged or as reported: an address and what is wrong there."""


class Probed(NamedTuple):
    """What a probe of one address found: `cause` is empty when it answered, and then names the brokers of the cluster."""

    cause: str
    brokers: Collection[str] = ()


class Connection:
    """The state of the connection to the brokers. Thread-safe. `watch` runs in a thread of the owner until `close`."""

    def __init__(
        self,
        bootstrap: str,
        probe: Callable[[str], Probed],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bootstrap = tuple(dict.fromkeys(address.strip() for address in bootstrap.split(",") if address.strip()))
        self._probe = probe
        self._now = now
        self._suspects: set[str] = set()
        self._failing: dict[str, str] = {}
        self._since = now()
        self._remarks: tuple[str, ...] = ()
        self._changing = threading.Lock()
        self._checking = threading.Lock()
        self._suspected = threading.Event()
        self._closing = threading.Event()

    def suspect(self, text: str) -> None:
        """Notes a report of librdkafka, which may name an address. Cheap."""
        match = _AT.match(text)
        with self._changing:
            self._suspects.update([match["address"]] if match else self._bootstrap)
        self._suspected.set()

    def remark(self, texts: Iterable[str]) -> None:
        """Replaces what operators should know although everything works. A new remark is logged once."""
        texts = tuple(texts)
        for text in texts:
            if text not in self._remarks:
                log.warning("Kafka: %s", text)
        self._remarks = texts

    def state(self) -> BrokerState:
        """The state as of the latest probe."""
        with self._changing:
            return BrokerState(not self._failing, self._since, _causes(self._failing), self._remarks)

    def diagnose(self) -> str:
        """Probes the addresses that the client starts from now. Why they fail, in one text; empty when all answer."""
        with self._changing:
            self._suspects.update(self._bootstrap)
        self.check()
        return "; ".join(self.state().causes)

    def watch(self) -> None:
        """Checks after each report, and again until all is well."""
        while not self._closing.is_set():
            self._suspected.wait()
            self._suspected.clear()
            while not self._closing.is_set() and self.check():
                self._closing.wait(RECHECK_S)

    def close(self) -> None:
        """Ends `watch`, after the probe that is under way."""
        self._closing.set()
        self._suspected.set()

    def check(self) -> bool:
        """Probes what is suspected or failing. Returns whether anything fails."""
        with self._checking:
            with self._changing:
                addresses = self._suspects | self._failing.keys()
                self._suspects.clear()
            if not addresses <= set(self._bootstrap):
                addresses |= set(self._bootstrap)  # they know whether the others are still brokers of the cluster
            found: dict[str, Probed] = {}
            for address in sorted(addresses):
                if self._closing.is_set():
                    return False
                found[address] = self._probe(address)
            self._note(found)
            return bool(self._failing)

    def _note(self, found: Mapping[str, Probed]) -> None:
        """Takes over what a round of probes found. Brokers that those which answer do not know are forgotten."""
        known = set(self._bootstrap).union(*(probed.brokers for probed in found.values()))
        answered = any(not probed.cause for probed in found.values())
        failing = {
            address: probed.cause + self._origin(address)
            for address, probed in found.items()
            if probed.cause and (address in known or not answered)
        }
        with self._changing:
            before, self._failing = self._failing, failing
            if _kinds(before) != _kinds(failing):
                self._since = self._now()
        self._tell(before, failing)

    def _origin(self, address: str) -> str:
        if address in self._bootstrap:
            return ""
        return " (the cluster gives this address to its clients: advertised.listeners of the broker)"

    def _tell(self, before: dict[str, str], after: dict[str, str]) -> None:
        """Logs a new kind of trouble, and the end of all."""
        for address in dict(_kinds(after).items() - _kinds(before).items()):
            log.warning("Kafka: %s: %s", address, after[address])
        if before and not after:
            log.info("Kafka: all is well again with %s", ", ".join(before))


def _kinds(failing: Mapping[str, str]) -> dict[str, str]:
    """The causes without what is in brackets, such as one of several addresses of a name."""
    return {address: cause.partition(" (")[0] for address, cause in failing.items()}


def _causes(failing: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{address}: {cause}" for address, cause in failing.items())


def cause_of(said: Iterable[str], protocol: str, waited_s: float) -> str:
    """Why a new client got no answer from a broker, from what librdkafka said meanwhile. The most telling line decides.

    `protocol` is the client's security.protocol, `waited_s` how long it waited.
    """
    lines = [match["text"] if (match := _AT.match(line)) else line for line in said]
    for pattern, cause in _CAUSES:
        for line in lines:
            if pattern.search(line):
                return cause.format(line=line, protocol=protocol)
    if protocol in _CLOSED and any(_CLOSING.search(line) for line in lines):
        return _CLOSED[protocol].format(protocol=protocol)
    return f"no connection comes about ({lines[0]})" if lines else f"it does not answer within {waited_s:g} s"


_CAUSES = [
    (re.compile(pattern), cause)
    for pattern, cause in (
        ("Failed to resolve", "the host name cannot be resolved"),
        ("Connection refused", "nothing listens there (connection refused)"),
        ("PLAINTEXT broker listener|wrong version number", "it speaks no TLS, but security.protocol is {protocol}"),
        (
            "certificate verify failed",
            "its certificate cannot be trusted: ssl.ca.location has to name the authority that signed it, and the certificate "
            "has to name this host ({line})",
        ),
        (
            "alert (?:bad certificate|certificate required|unknown ca|certificate unknown|handshake failure)",
            "it demands a certificate that it trusts: ssl.certificate.location and ssl.key.location ({line})",
        ),
        ("Unsupported SASL mechanism", "it does not offer this sasl.mechanism ({line})"),
        ("not valid in current SASL state", "it takes no user names (SASL), but security.protocol is {protocol}"),
        (
            "[Aa]uthentication fail|SASL authentication error",
            "it does not accept the user name and password, or the token ({line})",
        ),
        ("SASL|OAUTHBEARER|token", "the client cannot authenticate ({line})"),
        ("SSL handshake failed", "no TLS connection comes about ({line})"),
        ("Connect to .* failed|[Cc]onnection setup timed out", "it cannot be connected to ({line})"),
    )
]
"""What librdkafka 2.16 says, the telling before the vague."""

_CLOSED = {
    "plaintext": "it closes the connection at once, as one does that expects TLS or SASL: security.protocol is {protocol}",
    "sasl_plaintext": "it closes the connection at once, as one does that expects TLS: security.protocol is {protocol}",
    "ssl": "it closes the connection at once, as one does that expects a user name (SASL): security.protocol is {protocol}",
}
"""A broker closes a connection without a word when the client speaks another protocol."""

_CLOSING = re.compile("Disconnected|Connection reset|Broken pipe")
