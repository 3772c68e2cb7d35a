"""TLS certificates of listeners, from files that may change while they are in use.

OpenSSL is the judge of what is in them, for gRPC too, which has a TLS of its own and tells nobody what it dislikes.
"""

from __future__ import annotations

import math
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

import structlog
from pydantic import SecretBytes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CertificateError", "CertificateFiles", "Certificates", "Identity", "load", "server_context"]

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption alone. All of TLS 1.3's are like that."""

Marks: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class CertificateError(Exception):
    """The files cannot be used. Says which and why in one line, and nothing of what they hold."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """All are PEM."""

    certificate: Path
    """The listener's certificate, and after it those between it and the CA's."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """Certificates of the CAs of clients, each of which has to show a certificate then."""


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """What the files held at one moment: the certificate and the key belong together."""

    context: ssl.SSLContext
    certificate: bytes
    key: SecretBytes
    client_ca: bytes | None
    expires_at: float
    """When the certificate ends, in Unix time; NaN if that cannot be read."""


class Certificates:
    """What the files hold, read again when they have changed. `name` says in the log whose they are.

    Nothing watches the files: whoever takes a connection asks, on whatever thread. Raises CertificateError when they
    cannot be used at first; from then on the last that could be used stay.
    """

    def __init__(self, files: CertificateFiles, name: str) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._marks = _marks(files)
        try:
            self._identity = load(files)
        except CertificateError as error:
            raise CertificateError(f"{name}: {error}") from None
        self._log = structlog.stdlib.get_logger(__name__).bind(listener=name)

    def current(self) -> Identity:
        """The newest that can be used. Raises nothing; a change that cannot be used is logged once."""
        with self._lock:
            marks = _marks(self._files)  # before the files are read: what changes in between is seen the next time
            if marks != self._marks:
                self._marks = marks
                self._read_again()
            return self._identity

    def _read_again(self) -> None:
        try:
            self._identity = load(self._files)
        except CertificateError as error:
            self._log.error("certificate_not_reloaded", problem=str(error))
        else:
            self._log.info("certificate_reloaded")


def load(files: CertificateFiles) -> Identity:
    """Read the files. Raises CertificateError."""
    certificate, key = _read(files.certificate, "certificate_file"), _read(files.key, "key_file")
    client_ca = None if files.client_ca is None else _read(files.client_ca, "client_ca_file")
    _check_certificates(certificate, "certificate_file")
    if client_ca is not None:
        _check_certificates(client_ca, "client_ca_file")
    context = _context()
    try:
        context.load_cert_chain(files.certificate, files.key, password=_refuse)
    except ssl.SSLError as error:
        raise CertificateError(_what_is_wrong(error)) from None
    except OSError as error:
        raise CertificateError(f"certificate_file or key_file: cannot be read: {error.strerror}") from None
    # Python's ssl reads files and nothing else. That they have not changed meanwhile makes these bytes the same pair.
    if (certificate, key) != (_read(files.certificate, "certificate_file"), _read(files.key, "key_file")):
        raise CertificateError("certificate_file or key_file: has changed while it was read")
    return Identity(context, certificate, SecretBytes(key), client_ca, _expires_at(certificate))


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """For a listener: each handshake, with a server name or without, takes the certificate there is by then."""
    context = certificates.current().context

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = certificates.current().context

    context.sni_callback = choose
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _marks(files: CertificateFiles) -> Marks:
    """What tells that a file was written, or another put in its place; None for one that cannot be seen."""
    return tuple(_mark(each) for each in (files.certificate, files.key, files.client_ca) if each is not None)


def _mark(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateError(f"{setting}: cannot be read: {error.strerror}") from None


def _check_certificates(pem: bytes, setting: str) -> None:
    try:
        _context().load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise CertificateError(f"{setting}: holds no certificate in PEM that can be used") from None


def _expires_at(pem: bytes) -> float:
    """When the first certificate ends. Python's ssl tells that of others' alone."""
    # 20 MB and a tenth of a second, for those alone who have TLS.
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:  # OpenSSL takes what is not DER, too
        return math.nan


def _refuse() -> NoReturn:
    """Asked for a passphrase, where OpenSSL would ask whoever sits at the terminal."""
    raise CertificateError("key_file: is encrypted, which it must not be")


def _what_is_wrong(error: ssl.SSLError) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            return "certificate_file and key_file: do not belong together"
        case str(reason) if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
            return f"certificate_file: is too weak: {reason.lower().replace('_', ' ')}"
        case _:
            return "key_file: holds no private key in PEM that can be used"
