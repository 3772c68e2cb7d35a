"""TLS certificates of listeners, from files that may change while the gateway runs.

They are checked with OpenSSL, for gRPC too, which has a TLS library of its own and does not say what it refuses.
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
"""For TLS 1.2: only forward secrecy and authenticated encryption, which all ciphers of TLS 1.3 have."""

Marks: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class CertificateError(Exception):
    """The files cannot be used. Says which and why in one line, without any of their content."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """All are PEM."""

    certificate: Path
    """The listener's certificate, followed by intermediate certificates."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """CA certificates for clients, each of which then has to present a certificate."""


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The content of the files at one moment: certificate and key belong together."""

    context: ssl.SSLContext
    certificate: bytes
    key: SecretBytes
    client_ca: bytes | None
    expires_at: float
    """When the certificate expires, in Unix time; NaN if that cannot be read."""


class Certificates:
    """The content of the files, read again when they have changed. `name` is the listener's name in the log.

    Nothing watches the files: each new connection checks them, on whatever thread. Raises CertificateError if they
    cannot be used at first; later on, the last valid content stays in use.
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
        """The newest valid content. Raises nothing; an invalid change is logged once."""
        with self._lock:
            marks = _marks(self._files)  # before the files are read: a change in between is noticed the next time
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
    # Python's ssl can only read files. If these have not changed meanwhile, the bytes read above are the same pair.
    if (certificate, key) != (_read(files.certificate, "certificate_file"), _read(files.key, "key_file")):
        raise CertificateError("certificate_file or key_file: has changed while it was read")
    return Identity(context, certificate, SecretBytes(key), client_ca, _expires_at(certificate))


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """The context for a listener: each handshake, with or without a server name, uses the current certificate."""
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
    """What changes when a file is written or replaced; None for one that cannot be read."""
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
    """When the first certificate expires, which Python's ssl tells only for peers' certificates."""
    # 20 MB and a tenth of a second, which only TLS needs.
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:  # OpenSSL also accepts what is not DER
        return math.nan


def _refuse() -> NoReturn:
    """Called for a passphrase, for which OpenSSL would otherwise prompt on the terminal."""
    raise CertificateError("key_file: is encrypted, which it must not be")


def _what_is_wrong(error: ssl.SSLError) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
            return "certificate_file and key_file: do not belong together"
        case str(reason) if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
            return f"certificate_file: is too weak: {reason.lower().replace('_', ' ')}"
        case _:
            return "key_file: holds no private key in PEM that can be used"
