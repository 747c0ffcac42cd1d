"""A real broker as companies and providers run it: TLS, client certificates, SASL, and an authorizer that denies by default.

    with SecuredKafka(tmp_path) as kafka:
        kafka.bootstrap       plain text, for the test itself: whoever comes here may do everything
        kafka.sasl            SASL_SSL with PLAIN, SCRAM-SHA-256 and OAUTHBEARER
        kafka.misnamed        the same by a name that the broker's certificate does not have
        kafka.tls             SSL that demands a certificate of the client
        kafka.files.ca        what a client must trust

Nobody but the test has any ACL. Passwords are those of `USERS`; an unsecured token is believed, whatever its principal.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kafka_server import BROKER_PORTS, KafkaServer, free_port, skip, why_not_java

USERS = {name: f"{name}-password" for name in ("node", "operator", "reader", "producer", "dashboard", "nobody")}
KEY_PASSWORD = "key-password"
CLIENT_NAME = "certified"
"""The principal of the client's certificate is `User:CN=` and this."""
_JAAS = "org.apache.kafka.common.security"


class Files(NamedTuple):
    """PEM files, beside the broker's data."""

    ca: Path
    """The authority that signed the broker's certificate and the client's."""
    broker: Path
    client: Path
    client_key: Path
    """Encrypted with KEY_PASSWORD."""
    other_ca: Path
    """An authority that signed neither."""


class SecuredKafka(KafkaServer):
    """Needs Java: the container of the public image has its own ways to be secured."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._sasl_port, self._tls_port = free_port(BROKER_PORTS), free_port(BROKER_PORTS)
        self.misnamed = f"localhost:{self._sasl_port}"
        self.sasl, self.tls = f"127.0.0.1:{self._sasl_port}", f"127.0.0.1:{self._tls_port}"
        data_dir.mkdir(parents=True, exist_ok=True)
        self.files = make_certificates(data_dir)

    def _format_arguments(self) -> list[str]:
        return [f"--add-scram=SCRAM-SHA-256=[name={name},password={password}]" for name, password in USERS.items()]

    def _settings(self, listen: str, logs: Path) -> dict[str, str]:
        plain = super()._settings(listen, logs)
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        return plain | {
            "listeners": f"{plain['listeners']},SASL_SSL://{listen}:{self._sasl_port},SSL://{listen}:{self._tls_port}",
            "advertised.listeners": f"{plain['advertised.listeners']},SASL_SSL://{self.sasl},SSL://{self.tls}",
            "listener.security.protocol.map": f"{plain['listener.security.protocol.map']},SASL_SSL:SASL_SSL,SSL:SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # who comes in plain text
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.files.broker),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.files.ca),
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,OAUTHBEARER",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{_JAAS}.plain.PlainLoginModule required {users};",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": f"{_JAAS}.scram.ScramLoginModule required;",
            "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config": (
                f'{_JAAS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            ),
        }


def secured_kafka_or_skip(data_dir: Path) -> SecuredKafka:
    """A started broker for a fixture, which must stop it. Without Java the test is skipped; in CI it fails."""
    if reason := why_not_java():
        skip(f"a secured broker needs Java and Maven: {reason}")
    kafka = SecuredKafka(data_dir)
    kafka.start()
    return kafka


def make_certificates(folder: Path) -> Files:
    """Makes an authority, the broker's certificate, a client's, and an authority that has nothing to do with them."""
    files = Files(*(folder / f"{name}.pem" for name in ("ca", "broker", "client", "client-key", "other-ca")))
    authority, authority_key = _signed("authority", is_authority=True)
    files.ca.write_bytes(_pem(authority))
    files.other_ca.write_bytes(_pem(_signed("other authority", is_authority=True)[0]))
    broker, key = _signed("broker", authority, authority_key)
    files.broker.write_bytes(_key_pem(key, serialization.NoEncryption()) + _pem(broker))
    client, key = _signed(CLIENT_NAME, authority, authority_key)
    files.client.write_bytes(_pem(client))
    files.client_key.write_bytes(_key_pem(key, serialization.BestAvailableEncryption(KEY_PASSWORD.encode())))
    return files


def _signed(
    name: str,
    authority: x509.Certificate | None = None,
    authority_key: ec.EllipticCurvePrivateKey | None = None,
    is_authority: bool = False,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for 127.0.0.1, but not for localhost, with its key, signed by the authority or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    )
    return builder.sign(authority_key or key, hashes.SHA256()), key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
