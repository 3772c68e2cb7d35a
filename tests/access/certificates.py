"""A certificate authority of one's own, and what it issues, in files as a gateway has them."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

PASSPHRASE: Final = b"canary-of-a-passphrase"

HERE: Final = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))
"""What a listener's certificate is for."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes

    @property
    def secret(self) -> str:
        """A part of the key that must turn up nowhere."""
        return self.key.decode().splitlines()[1]

    def encrypted(self) -> Pair:
        """The same, with a passphrase on the key."""
        key = serialization.load_pem_private_key(self.key, None)
        encryption = serialization.BestAvailableEncryption(PASSPHRASE)
        return Pair(
            self.certificate,
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
        )


WEAK: Final = Pair(
    b"""\
-----BEGIN CERTIFICATE-----
MIIBdzCCASGgAwIBAgIUHJ/lCcOt0pmHWRQ44M5i6dA7vZcwDQYJKoZIhvcNAQEL
BQAwDzENMAsGA1UEAwwEd2VhazAgFw0yNjEyMDEwMTA2NDdaGA8yMTI2MTEwNzAx
MDY0N1owDzENMAsGA1UEAwwEd2VhazBcMA0GCSqGSIb3DQEBAQUAA0sAMEgCQQC7
DLxGOAhunSHPrfOy3Tll7vQ6LhA5g3S1RsCHEZW8d8KM0l0TRUWu73KzBnOE66Aw
LSUEn4zpif/D94g4PmsdAgMBAAGjUzBRMB0GA1UdDgQWBBQ/isMac5hALrziQcOt
/kEgTyilGTAfBgNVHSMEGDAWgBQ/isMac5hALrziQcOt/kEgTyilGTAPBgNVHRMB
Af8EBTADAQH/MA0GCSqGSIb3DQEBCwUAA0EADv4ElxUUhvts+ehQrKVYkwIY7Q2H
821cw7JSsVoPcBt6VydwygvXr3jEr6g05X2LX914kB77cUtebw/CsUIz6A==
-----END CERTIFICATE-----
""",
    b"""\
-----BEGIN PRIVATE KEY-----
MIIBVwIBADANBgkqhkiG9w0BAQEFAASCAUEwggE9AgEAAkEAuwy8RjgIbp0hz63z
st05Ze70Oi4QOYN0tUbAhxGVvHfCjNJdE0VFru9yswZzhOugMC0lBJ+M6Yn/w/eI
OD5rHQIDAQABAkEApQnyoT5VakvohlbkvH/nYiI5iZAVLrnnYv8fZs3EQXohGI3k
U6zlW2uv2Ujxl2cpcY3MzYououOVO1+Otn2GQQIhAPVJjg5f2PGxPK+yqsWkGUyF
WRE9NPmTjUPiku89FWSxAiEAwzgNi0nRITbw73jlpuQAWieCWtr5vEuqpSf0LbYF
OC0CIQDCyWKyL5NMe/9BV5Ud1q7wgYS1l/GVsIMiQa+FpPB0QQIhAMMozTl7QStw
TmtItGUkOEnoh4Omt9UK2/yhtZThC9S9AiEA1N/K9c48ly6LInQg93564GDAAJDq
835EjRxDOMgJFzM=
-----END PRIVATE KEY-----
""",
)
"""An RSA key of 512 bits, which no library makes any more. It is nobody's."""


@dataclass(frozen=True)
class Files:
    """Where a gateway finds a pair."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, folder: Path, pair: Pair) -> Files:
        """Write a pair for the first time."""
        files = cls(folder / "tls.crt", folder / "tls.key")
        files.write(pair)
        return files

    def write(self, pair: Pair) -> None:
        """Write a pair over what is there."""
        self.certificate.write_bytes(pair.certificate)
        self.key.write_bytes(pair.key)

    def section(self, **more: object) -> dict[str, object]:
        """As settings have them."""
        return {"tls": {"certificate_file": str(self.certificate), "key_file": str(self.key), **more}}


class Authority:
    """A CA. Its certificate is `pem`. All it makes is as RFC 5280 has it, which Python insists on from 3.13 on."""

    def __init__(self, name: str = "authority") -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = _pem(
            _unsigned(self._name, self._name, self._key, expired=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(_SIGNS, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def issue(
        self,
        *names: x509.GeneralName,
        common_name: str = "somebody",
        expired: bool = False,
        until: dt.datetime | None = None,
    ) -> Pair:
        """A pair for these subject alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = _unsigned(_name(common_name), self._name, key, expired=expired, until=until)
        builder = builder.add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Pair(
            _pem(builder.sign(self._key, hashes.SHA256())),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )

    def trusted(self) -> ssl.SSLContext:
        """For clients that trust this authority alone."""
        return ssl.create_default_context(cadata=self.pem.decode())


_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    expired: bool,
    until: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(until or now + dt.timedelta(days=-1 if expired else 1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
