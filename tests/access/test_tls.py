"""TLS of both doors, with real certificates and clients; and callers that are known by theirs."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import json
import math
import os
import re
import socket
import ssl
import time
import warnings
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import PosixPath
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio
import structlog.testing
from access.certificates import HERE, WEAK, Authority, Files, Pair
from click.testing import CliRunner
from cryptography import x509
from observability.metrics import parsed
from processes import running

from gateway import cli, handshakes
from gateway.configuration import load_settings
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.rpc import server
from gateway.sandbox import seed
from gateway.settings import ConfigurationError
from gateway.tls import CertificateError, CertificateFiles, Certificates, load
from stage import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from stage import Dev

REQUEST = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)
QUERY = {"query": f'{{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'}
TENANT = {"acme": {"client_id": "acme-client", "client_secret": "acme-secret"}}
ANYWHERE = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")}
DOORS = ("graphql", "grpc")
AUTHORITY = Authority()
OTHERS = Authority("another authority")
FIRST, SECOND = (AUTHORITY.issue(*HERE, common_name=each) for each in ("first", "second"))


@dataclass
class Secured:
    """A gateway whose doors speak TLS."""

    dev: Dev
    files: Files

    @property
    def ports(self) -> dict[str, int]:
        return {
            "graphql": httpx.URL(self.dev.doors.graphql).port or 0,
            "grpc": int(self.dev.doors.grpc.rpartition(":")[2]),
        }

    async def shows(self, door: str, context: ssl.SSLContext | None = None) -> str:
        """The common name of the certificate that a new connection is shown."""
        context = context or AUTHORITY.trusted()
        context.set_alpn_protocols(["h2"] if door == "grpc" else ["http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", self.ports[door], ssl=context)
        certificate = writer.get_extra_info("peercert")
        writer.transport.abort()
        return str(dict(each for (each,) in certificate["subject"])["commonName"])


@asynccontextmanager
async def secured(
    folder: Path, *, client_ca: Path | None = None, **sections: dict[str, object]
) -> AsyncIterator[Secured]:
    """A gateway of one's own, at first with the first certificate."""
    files = Files.of(folder, FIRST)
    mutual = {} if client_ca is None else {"client_ca_file": str(client_ca)}
    graphql, grpc_section = files.section(), files.section(**mutual)
    async with opened(graphql=graphql, grpc=grpc_section, **sections) as dev:
        yield Secured(dev, files)


@asynccontextmanager
async def calling(
    address: str, shown: Pair | None = None, authority: Authority = AUTHORITY
) -> AsyncIterator[pb_grpc.SessionContextServiceAsyncStub]:
    """Calls over a connection of their own, with a client certificate or without."""
    pair = (None, None) if shown is None else (shown.key, shown.certificate)
    credentials = grpc.ssl_channel_credentials(authority.pem, *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield pb_grpc.SessionContextServiceStub(channel)


def with_key(key: str = "dev-key") -> Any:
    return (("x-api-key", key),)


async def served_by(secured: Secured) -> None:
    """Both doors answer to clients that trust the authority."""
    async with (
        httpx.AsyncClient(verify=AUTHORITY.trusted(), headers=dict(with_key())) as client,
        calling(secured.dev.doors.grpc) as managed,
    ):
        answer = await client.post(secured.dev.doors.graphql, json=QUERY)
        assert answer.json()["data"]["sessionContext"]["currency"] == "EUR"
        assert (await managed.GetSessionContext(REQUEST, metadata=with_key())).session_context.currency == "EUR"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    """For tests that leave its files alone."""
    async with secured(tmp_path_factory.mktemp("tls")) as gateway:
        yield gateway


async def test_both_doors_speak_tls_to_clients_that_trust_their_certificate(gateway: Secured) -> None:
    assert gateway.dev.doors.graphql.startswith("https://127.0.0.1:")
    await served_by(gateway)
    for door, protocol in (("graphql", "http/1.1"), ("grpc", "h2")):
        context = AUTHORITY.trusted()
        context.set_alpn_protocols(["x", protocol])
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[door], ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == protocol
        writer.transport.abort()

    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        async with httpx.AsyncClient(verify=OTHERS.trusted()) as client:
            await client.post(gateway.dev.doors.graphql, json=QUERY)
    async with calling(gateway.dev.doors.grpc, authority=OTHERS) as managed:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await managed.GetSessionContext(REQUEST, metadata=with_key())
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    await served_by(gateway)


def _weak(version: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
    context = AUTHORITY.trusted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("door", DOORS)
async def test_old_versions_of_tls_and_weak_ciphers_are_refused(gateway: Secured, door: str) -> None:
    for version, ciphers in (
        (ssl.TLSVersion.TLSv1, "ALL"),
        (ssl.TLSVersion.TLSv1_1, "ALL"),
        (ssl.TLSVersion.TLSv1_2, "AES128-SHA:AES256-GCM-SHA384"),  # no forward secrecy
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384"),  # CBC
    ):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await gateway.shows(door, _weak(version, ciphers))
    assert await gateway.shows(door, _weak(ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM")) == "first"


@pytest.mark.parametrize("door", DOORS)
async def test_what_is_no_tls_is_not_answered(gateway: Secured, door: str) -> None:
    with structlog.testing.capture_logs() as log:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports[door])
        writer.write(b"POST /graphql HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"HTTP/1.1" not in await reader.read()
        writer.close()
    assert log == []
    await served_by(gateway)


async def test_clients_with_idle_connections_do_not_hold_up_the_end(tmp_path: Path) -> None:
    async with httpx.AsyncClient(verify=AUTHORITY.trusted(), headers=dict(with_key())) as client:
        async with secured(tmp_path, shutdown={"grace": 20.0}) as gateway:
            assert (await client.post(gateway.dev.doors.graphql, json=QUERY)).status_code == 200
            began = time.monotonic()
        assert time.monotonic() - began < 5


# Certificates that change


async def test_connections_count_before_tls_is_agreed_on(tmp_path: Path) -> None:
    """Or whoever connects and says nothing could have any number of them, for ten seconds each."""
    files = Files.of(tmp_path, FIRST)
    async with opened(graphql={**files.section(), "max_connections": 3}) as dev:
        port = httpx.URL(dev.doors.graphql).port
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        further, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            assert await further.read() == b""
        for _, each in (*silent, (further, writer)):
            each.close()

        async def served() -> bool:
            async with httpx.AsyncClient(verify=AUTHORITY.trusted(), headers=dict(with_key())) as client:
                with suppress(httpx.TransportError):
                    return (await client.post(dev.doors.graphql, json=QUERY)).is_success
            return False

        async with asyncio.timeout(5):  # it hears of their end a little later
            while not await served():
                await asyncio.sleep(0.01)


async def test_who_does_not_come_to_agree_on_tls_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "_PATIENCE", 0.5)
    async with opened(graphql=Files.of(tmp_path, FIRST).section()) as dev, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(dev.doors.graphql).port)
        writer.write(b"\x16\x03\x01")
        assert await reader.read() == b""
        writer.close()


async def test_connections_are_taken_again_when_there_is_a_descriptor_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def taken_from(listener: socket.socket) -> Iterator[socket.socket]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError(errno.EMFILE, "too many open files")
        return there_are(listener)

    there_are = handshakes.taken_from
    monkeypatch.setattr(handshakes, "taken_from", taken_from)
    monkeypatch.setattr(handshakes, "_PAUSE", 0.1)
    async with (
        opened(graphql=Files.of(tmp_path, FIRST).section()) as dev,
        httpx.AsyncClient(verify=AUTHORITY.trusted(), headers=dict(with_key())) as client,
    ):
        assert (await client.post(dev.doors.graphql, json=QUERY)).is_success
        assert tries > 1


async def test_who_has_connected_and_says_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    files = Files.of(tmp_path, FIRST)
    async with asyncio.timeout(9):  # it may take ten for TLS to be agreed on, and the grace is longer
        async with opened(graphql=files.section(), shutdown={"grace": 60.0}) as dev:
            reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(dev.doors.graphql).port)
            writer.write(b"\x16\x03\x01")
            await writer.drain()
        assert await reader.read() == b""
        writer.close()


async def test_a_new_certificate_is_shown_to_new_connections_and_those_that_are_open_go_on(tmp_path: Path) -> None:
    async with (
        secured(tmp_path) as gateway,
        httpx.AsyncClient(verify=AUTHORITY.trusted(), headers=dict(with_key())) as client,
        calling(gateway.dev.doors.grpc) as managed,
    ):

        async def use() -> None:
            await client.post(gateway.dev.doors.graphql, json=QUERY)
            await managed.GetSessionContext(REQUEST, metadata=with_key())

        await use()
        with structlog.testing.capture_logs() as log:
            gateway.files.write(SECOND)
            for door in DOORS:
                assert await gateway.shows(door) == "second"
            await use()
            for door in DOORS:
                assert await gateway.shows(door) == "second"

        assert [(each["event"], each["listener"]) for each in log] == [
            ("certificate_reloaded", "graphql.tls"),
            ("certificate_reloaded", "grpc.tls"),
        ]


async def test_a_pair_that_is_written_by_halves_is_not_used_until_it_is_whole(tmp_path: Path) -> None:
    async with secured(tmp_path) as gateway:

        async def shown() -> list[str]:
            return [await gateway.shows(each) for each in DOORS for _ in range(3)]

        with structlog.testing.capture_logs() as log:
            gateway.files.certificate.write_bytes(SECOND.certificate)
            assert await shown() == ["first"] * 6
            gateway.files.key.write_bytes(SECOND.key[:40])
            assert await shown() == ["first"] * 6
            gateway.files.key.unlink()
            assert await shown() == ["first"] * 6
            gateway.files.key.write_bytes(SECOND.key)
            assert await shown() == ["second"] * 6

        for door in DOORS:
            lines = [each for each in log if each["listener"] == f"{door}.tls"]
            assert [each["event"] for each in lines] == [*["certificate_not_reloaded"] * 3, "certificate_reloaded"]
            assert lines[0]["problem"] == "certificate_file and key_file: do not belong together"
        assert SECOND.secret not in str(log)


async def test_metrics_tell_when_the_certificate_ends_that_is_shown(tmp_path: Path) -> None:
    """One that was renewed, and cannot be used, would be noticed by nobody else before the old one ends."""
    expired = AUTHORITY.issue(*HERE, expired=True)
    async with secured(tmp_path) as gateway, httpx.AsyncClient() as client:

        async def told() -> dict[str, float]:
            found = parsed((await client.get(f"{gateway.dev.doors.admin}/metrics")).text)
            return {
                door: found["session_gateway_certificate_expiry_timestamp_seconds", frozenset({("door", door)})]
                for door in DOORS
            }

        assert await told() == dict.fromkeys(DOORS, _end(FIRST))

        with structlog.testing.capture_logs() as log:  # nobody connects
            gateway.files.key.write_bytes(SECOND.key)
            assert await told() == dict.fromkeys(DOORS, _end(FIRST))
            assert [each["event"] for each in log] == ["certificate_not_reloaded"] * 2

        gateway.files.write(expired)
        assert await told() == dict.fromkeys(DOORS, _end(expired))


def _end(pair: Pair) -> float:
    return x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc.timestamp()


@pytest.mark.parametrize("year", [2049, 2050])
def test_the_end_is_read_in_both_forms_that_it_may_have(tmp_path: Path, year: int) -> None:
    """RFC 5280, 4.1.2.5: from 2050 on with four digits of the year."""
    end = dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    pair = AUTHORITY.issue(*HERE, until=end)
    files = Files.of(tmp_path, pair)

    assert load(CertificateFiles(files.certificate, files.key)).expires_at == end.timestamp()


def test_an_end_that_cannot_be_read_is_no_reason_not_to_use_the_certificate(tmp_path: Path) -> None:
    """OpenSSL takes what is no DER, and Python's libraries do not."""
    der = ssl.PEM_cert_to_DER_cert(FIRST.certificate.decode())
    odd = ssl.DER_cert_to_PEM_cert(re.sub(rb"(\d{12})Z", rb"\1+", der)).encode()
    files = Files.of(tmp_path, Pair(odd, FIRST.key))

    assert math.isnan(load(CertificateFiles(files.certificate, files.key)).expires_at)


def test_a_pair_that_is_replaced_while_it_is_read_is_not_mixed_with_the_next(tmp_path: Path) -> None:
    """Python's ssl reads the files itself, and gRPC is given what was read before: both have to be one pair."""

    class Replaced(PosixPath):
        def read_bytes(self) -> bytes:
            found = super().read_bytes()
            files.write(SECOND)
            return found

    files = Files.of(tmp_path, FIRST)
    with pytest.raises(CertificateError, match=r"has changed while it was read$"):
        load(CertificateFiles(Replaced(files.certificate), files.key))
    assert load(CertificateFiles(files.certificate, files.key)).certificate == SECOND.certificate


async def test_a_folder_that_is_put_in_anothers_place_is_seen(tmp_path: Path) -> None:
    """As Kubernetes does it: a link to a folder is replaced."""
    for name, pair in (("one", FIRST), ("two", SECOND)):
        (tmp_path / name).mkdir()
        Files.of(tmp_path / name, pair)
        for file in (tmp_path / name).iterdir():
            os.utime(file, (1_000_000_000, 1_000_000_000))
    link = tmp_path / "now"
    link.symlink_to("one")
    certificates = Certificates(CertificateFiles(link / "tls.crt", link / "tls.key"), "door")
    assert certificates.current().certificate == FIRST.certificate

    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)

    assert certificates.current().certificate == SECOND.certificate


# Certificates that cannot be used


def bad(folder: Path, what: str) -> Files:
    """Files that are wrong in one way."""
    files = Files.of(folder, FIRST)
    match what:
        case "another's key":
            files.key.write_bytes(SECOND.key)
        case "an encrypted key":
            files.write(FIRST.encrypted())
        case "a weak key":
            files.write(WEAK)
        case "a certificate for a key":
            files.key.write_bytes(FIRST.certificate)
        case "a key for a certificate":
            files.certificate.write_bytes(FIRST.key)
        case "a key cut off":
            files.key.write_bytes(FIRST.key[:-60])
        case "an empty certificate":
            files.certificate.write_bytes(b"")
        case "no key":
            files.key.unlink()
        case "a folder":
            files.certificate.unlink()
            files.certificate.mkdir()
    return files


BAD = {
    "another's key": "certificate_file and key_file: do not belong together",
    "an encrypted key": "key_file: is encrypted, which it must not be",
    "a weak key": "certificate_file: is too weak: ee key too small",
    "a certificate for a key": "key_file: holds no private key in PEM that can be used",
    "a key for a certificate": "certificate_file: holds no certificate in PEM that can be used",
    "a key cut off": "key_file: holds no private key in PEM that can be used",
    "an empty certificate": "certificate_file: holds no certificate in PEM that can be used",
    "no key": "key_file: cannot be read: No such file or directory",
    "a folder": "certificate_file: cannot be read: Is a directory",
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("door", DOORS)
def test_files_that_cannot_be_used_are_told_in_a_line(tmp_path: Path, door: str, what: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(None, {"tenants": TENANT, door: bad(tmp_path, what).section()})

    assert refused.value.problems == (f"{door}.tls: {BAD[what]}",)


def test_a_ca_that_is_none_is_told(tmp_path: Path) -> None:
    files = Files.of(tmp_path, FIRST)
    (tmp_path / "ca").write_bytes(FIRST.key)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(None, {"tenants": TENANT, "grpc": files.section(client_ca_file=str(tmp_path / "ca"))})

    assert refused.value.problems == ("grpc.tls: client_ca_file: holds no certificate in PEM that can be used",)


def test_certificates_of_callers_need_a_ca_that_has_issued_them() -> None:
    grant = {"permissions": ["sessions:read"], "tenants": ["*"]}
    with pytest.raises(ConfigurationError) as refused:
        load_settings(None, {"tenants": TENANT, "access": {"certificates": {"spiffe://prod/shop": grant}}})

    assert refused.value.problems == (
        "access.certificates: needs grpc.tls.client_ca_file, or no client shows a certificate",
    )


def test_files_can_be_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files.of(tmp_path, FIRST)
    monkeypatch.setenv("SESSION_GATEWAY_GRPC__TLS__CERTIFICATE_FILE", str(files.certificate))
    monkeypatch.setenv("SESSION_GATEWAY_GRPC__TLS__KEY_FILE", str(files.key))

    assert load_settings(None, {"tenants": TENANT}).grpc.tls is not None


def test_what_was_loaded_shows_no_key(tmp_path: Path) -> None:
    files = Files.of(tmp_path, FIRST)
    identity = load(CertificateFiles(files.certificate, files.key))

    assert FIRST.secret not in f"{identity!r} {identity}"


def test_files_that_go_bad_between_the_settings_and_the_listener_are_told(tmp_path: Path) -> None:
    files = bad(tmp_path, "another's key")
    with pytest.raises(CertificateError, match=r"^grpc\.tls: certificate_file and key_file: do not belong together$"):
        Certificates(CertificateFiles(files.certificate, files.key), "grpc.tls")


@pytest.mark.parametrize("command", ["serve", "check"])
def test_the_command_refuses_them_in_a_line(tmp_path: Path, command: str) -> None:
    files = bad(tmp_path, "an encrypted key")
    variables = {
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
        "SESSION_GATEWAY_GRAPHQL__TLS__CERTIFICATE_FILE": str(files.certificate),
        "SESSION_GATEWAY_GRAPHQL__TLS__KEY_FILE": str(files.key),
    }
    result = CliRunner().invoke(cli.main, [command], env=variables)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "session-gateway: graphql.tls: key_file: is encrypted, which it must not be\n"


# Callers that are known by their certificates

SHOP = "spiffe://prod.example/ns/shop/sa/backend"
HOST = "batch.internal.example"
SLOWED = "crawler.internal.example"
CALLERS: dict[str, object] = {
    "certificates": {
        SHOP: {"permissions": ["sessions:read"], "tenants": ["acme"]},
        HOST: {"permissions": ["sessions:read", "sessions:write"], "tenants": ["*"]},
        SLOWED: {"permissions": ["sessions:read"], "tenants": ["acme"], "rate": 0.01, "burst": 2},
    }
}


@asynccontextmanager
async def mutual(folder: Path) -> AsyncIterator[Secured]:
    ca = folder / "ca.crt"
    ca.write_bytes(AUTHORITY.pem)
    async with secured(folder, client_ca=ca, access=CALLERS) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mutual_once(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    async with mutual(tmp_path_factory.mktemp("mutual")) as gateway:
        yield gateway


@pytest.fixture
def trusting(mutual_once: Secured) -> Secured:
    """A gateway that knows callers by their certificates; the sandbox behind it is as new."""
    mutual_once.dev.sandbox.reset()
    return mutual_once


async def outcome(gateway: Secured, shown: Pair | None, *, key: str | None = None, method: str = "get") -> str:
    """How a call ends: `ok`, the reason of the error, or `handshake` when it does not get so far."""
    metadata = () if key is None else with_key(key)
    request = pb.AddAttributeRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION, attribute_name="a")
    request.value.bool_value = True
    async with calling(gateway.dev.doors.grpc, shown) as managed:
        try:
            if method == "get":
                await managed.GetSessionContext(REQUEST, metadata=metadata)
            elif method == "get elsewhere":
                await managed.GetSessionContext(
                    pb.GetSessionContextRequest(tenant="globex", session_id=seed.CUSTOMER_SESSION), metadata=metadata
                )
            else:
                await managed.AddAttribute(
                    request, metadata=(*metadata, ("saas-token", gateway.dev.sandbox.saas_token))
                )
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return "handshake"
            details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
            assert isinstance(details, bytes)
            return next(each for each in REASONS if each.encode() in details)
    return "ok"


REASONS = ("CALLER_UNAUTHENTICATED", "CALLER_NOT_PERMITTED", "CALLER_RATE_LIMITED", "SESSION_NOT_FOUND")


async def test_a_certificate_that_is_not_known_is_told_by_its_names(trusting: Secured) -> None:
    """What is configured under `access.certificates` is one of these, letter by letter."""
    stranger = AUTHORITY.issue(x509.UniformResourceIdentifier(f"{SHOP}-2"), x509.DNSName("pod-1.example"))
    async with calling(trusting.dev.doors.grpc, stranger) as managed:
        call = managed.GetSessionContext(REQUEST)
        assert await call.code() == grpc.StatusCode.UNAUTHENTICATED
        assert await call.details() == (
            f"no caller is configured for this client certificate, which is for {SHOP}-2, pod-1.example"
        )


async def test_a_caller_is_known_by_a_name_in_its_certificate(trusting: Secured) -> None:
    by_uri = AUTHORITY.issue(x509.UniformResourceIdentifier(SHOP))
    by_host = AUTHORITY.issue(x509.DNSName(HOST))
    by_one_of_many = AUTHORITY.issue(
        x509.DNSName("pod-1.example"), x509.UniformResourceIdentifier("spiffe://prod.example/x"), x509.DNSName(HOST)
    )
    assert await outcome(trusting, by_uri) == "ok"
    assert await outcome(trusting, by_uri, method="write") == "CALLER_NOT_PERMITTED"
    assert await outcome(trusting, by_uri, method="get elsewhere") == "CALLER_NOT_PERMITTED"
    for pair in (by_host, by_one_of_many):
        assert await outcome(trusting, pair) == "ok"
        assert await outcome(trusting, pair, method="write") == "ok"
        assert await outcome(trusting, pair, method="get elsewhere") == "SESSION_NOT_FOUND"


async def test_a_caller_by_certificate_may_have_a_rate_of_its_own(trusting: Secured) -> None:
    slowed, other = AUTHORITY.issue(x509.DNSName(SLOWED)), AUTHORITY.issue(x509.DNSName(HOST))
    outcomes = [await outcome(trusting, each) for each in (slowed, slowed, slowed, other)]
    assert outcomes == ["ok", "ok", "CALLER_RATE_LIMITED", "ok"]


async def test_the_log_names_the_caller_by_its_certificate(trusting: Secured) -> None:
    with structlog.testing.capture_logs() as log:
        await outcome(trusting, AUTHORITY.issue(x509.UniformResourceIdentifier(SHOP)), method="write")

    (line,) = (each for each in log if each["event"] == "refused")
    assert (line["principal"], line["kind"]) == (SHOP, "certificate")


@pytest.mark.parametrize(
    "names",
    [
        [],
        [x509.DNSName("unknown.example")],
        [x509.UniformResourceIdentifier(f"{SHOP}/more")],
        [x509.UniformResourceIdentifier(SHOP.upper())],
        [x509.DNSName(SHOP)],
        [x509.UniformResourceIdentifier(HOST)],
        [x509.RFC822Name(f"x@{HOST}")],
        [x509.DNSName(f"*.{HOST.partition('.')[2]}")],
    ],
    ids=["none", "unknown", "longer", "upper case", "URI as a host", "host as a URI", "mail", "wildcard"],
)
async def test_a_certificate_without_a_name_that_is_known_lets_nobody_in(
    trusting: Secured, names: list[x509.GeneralName]
) -> None:
    assert await outcome(trusting, AUTHORITY.issue(*names, common_name=HOST)) == "CALLER_UNAUTHENTICATED"
    assert not trusting.dev.sandbox.requests


async def test_no_certificate_or_one_that_is_not_good_is_refused_in_the_handshake(trusting: Secured) -> None:
    name = x509.UniformResourceIdentifier(SHOP)
    assert await outcome(trusting, None) == "handshake"
    assert await outcome(trusting, None, key="dev-key") == "handshake"
    assert await outcome(trusting, OTHERS.issue(name)) == "handshake"
    assert await outcome(trusting, AUTHORITY.issue(name, expired=True)) == "handshake"
    assert not trusting.dev.sandbox.requests
    assert await outcome(trusting, AUTHORITY.issue(name)) == "ok"


async def test_an_api_key_goes_before_the_certificate(trusting: Secured) -> None:
    reader = AUTHORITY.issue(x509.UniformResourceIdentifier(SHOP))
    assert await outcome(trusting, reader, key="dev-key", method="write") == "ok"
    assert await outcome(trusting, reader, key="wrong-key") == "CALLER_UNAUTHENTICATED"


async def test_clients_cas_are_read_again_too(tmp_path: Path) -> None:
    name = x509.UniformResourceIdentifier(SHOP)
    async with mutual(tmp_path) as gateway:
        assert await outcome(gateway, OTHERS.issue(name)) == "handshake"

        (tmp_path / "ca.crt").write_bytes(OTHERS.pem)

        assert await outcome(gateway, OTHERS.issue(name)) == "ok"
        assert await outcome(gateway, AUTHORITY.issue(name)) == "handshake"


def resumes(port: int, pair: Files, version: ssl.TLSVersion) -> bool:
    """Whether a second connection goes on with the first one's session, in which no certificate is looked at."""
    context = AUTHORITY.trusted()
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    session = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.recv(1)  # the session comes before it
            session, resumed = connection.session, connection.session_reused
    return bool(resumed)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_clients_certificate_is_looked_at_again_before_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    """It may have expired. By itself gRPC would take up a session again after two days."""
    (tmp_path / "client").mkdir()
    pair = Files.of(tmp_path / "client", AUTHORITY.issue(x509.UniformResourceIdentifier(SHOP)))
    async with mutual(tmp_path) as gateway:
        assert await asyncio.to_thread(resumes, gateway.ports["grpc"], pair, version)

        monkeypatch.setattr(server, "_RESUMABLE", 0.0)
        assert not await asyncio.to_thread(resumes, gateway.ports["grpc"], pair, version)


def hello_to(name: bytes) -> bytes:
    """The first bytes of a handshake for this server name, which Python itself would not send."""
    stands_for_it = "a" * len(name)
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        AUTHORITY.trusted().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=stands_for_it).do_handshake()
    return sent.read().replace(stands_for_it.encode(), name)


async def test_the_process_says_where_it_listens_and_logs_json_whatever_clients_do(tmp_path: Path) -> None:
    """A handshake that fails makes gRPC write lines of its own, if it is let."""
    files = Files.of(tmp_path, FIRST)
    (tmp_path / "ca").write_bytes(AUTHORITY.pem)
    pair = {"CERTIFICATE_FILE": str(files.certificate), "KEY_FILE": str(files.key)}
    variables = {
        **{
            f"SESSION_GATEWAY_{door}__TLS__{name}": value
            for door in ("GRAPHQL", "GRPC")
            for name, value in pair.items()
        },
        "SESSION_GATEWAY_GRPC__TLS__CLIENT_CA_FILE": str(tmp_path / "ca"),
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "acme-client",
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "acme-secret",
        "SESSION_GATEWAY_SHUTDOWN__GRACE": "0.2",
    }
    async with running("serve", **ANYWHERE, **variables) as process:
        line = json.loads(await process.says(r'(.*"listening".*)'))
        assert line["graphql"].startswith("https://")
        for shown in (None, OTHERS.issue(x509.DNSName(HOST))):
            async with calling(line["grpc"], shown) as managed:
                with pytest.raises(grpc.aio.AioRpcError):
                    await managed.GetSessionContext(REQUEST)
        async with httpx.AsyncClient(verify=OTHERS.trusted()) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(line["graphql"])
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(line["graphql"]).port)
        writer.write(hello_to(b"\xffcanary-of-a-server-name"))
        await reader.read()
        writer.close()
        await process.says("exception_ignored")
        files.key.write_bytes(SECOND.key)
        async with httpx.AsyncClient(verify=AUTHORITY.trusted()) as client:
            await client.get(line["graphql"])
        await process.says("certificate_not_reloaded")
        process.process.terminate()
        assert await process.end(within=5) == 0

    assert all(json.loads(each) for each in process.err), process.said
    for secret in (FIRST.secret, SECOND.secret, "canary"):
        assert secret not in process.said
