"""One exchange with upstream: a request goes out, a whole and bounded answer comes back.

Speaks to an `httpx.AsyncBaseTransport` and leaves out `httpx.AsyncClient`: a gateway must not keep upstream's cookies
from one caller to the next nor follow its redirects with a token in hand, and the client's own machinery costs more
than the rest of the exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import httpx

from gateway.deadline import Deadline
from gateway.errors import UpstreamMalformed, UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "Http"]

MAX_BODY: Final = 10 * 1024 * 1024
"""Largest answer that is read, in bytes: the platform's own bound for a body (API reference)."""


_CONNECT_SHARE: Final = 0.6
"""How much of an exchange's time it may take to get a connection: less than all, so that what was never sent is told
from what was sent and not answered."""


class Answer(NamedTuple):
    """Upstream's whole answer. `body` is never shown to a caller."""

    status: int
    headers: httpx.Headers
    body: bytes


class Http:
    """Sends requests to one base URL. The transport is lent: whoever made it closes it.

    `timeout` bounds one exchange, in seconds; a caller's deadline that comes sooner bounds it further.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, base_url: str, *, timeout: float = 5.0) -> None:
        self._transport = transport
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout

    async def send(
        self,
        method: str,
        target: str,
        *,
        deadline: Deadline,
        headers: Mapping[str, str],
        content: bytes | None = None,
        auth: httpx.Auth | None = None,
    ) -> Answer:
        """Send, with whatever further requests `auth` asks for.

        `target` is an encoded path with its query. Raises UpstreamTimeout, UpstreamUnavailable when no whole answer
        came, UpstreamMalformed when it cannot be read, and what `auth` raises.
        """
        connecting = self._timeout * _CONNECT_SHARE
        timeout = httpx.Timeout(self._timeout, connect=connecting, pool=connecting).as_dict()
        request = httpx.Request(
            method, self._base_url + target, headers=headers, content=content, extensions={"timeout": timeout}
        )
        async with deadline.bound(f"{method} upstream"):
            return await self._with_auth(request, auth or httpx.Auth())

    async def _with_auth(self, request: httpx.Request, auth: httpx.Auth) -> Answer:
        """Drive the auth flow, as `httpx.AsyncClient` would (https://www.python-httpx.org/advanced/authentication/)."""
        flow = auth.async_auth_flow(request)
        try:
            request = await anext(flow)
            while True:
                answer = await self._exchange(request)
                try:
                    request = await flow.asend(httpx.Response(answer.status, headers=answer.headers, request=request))
                except StopAsyncIteration:
                    return answer
        finally:
            await flow.aclose()

    async def _exchange(self, request: httpx.Request) -> Answer:
        try:
            async with Deadline.after(self._timeout).bound("one exchange with upstream"):
                response = await self._transport.handle_async_request(request)
                try:
                    return Answer(response.status_code, response.headers, await _read(response))
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UpstreamUnreachable("no connection to upstream could be made") from error
        except httpx.TimeoutException as error:
            raise UpstreamTimeout("upstream did not answer in time") from error
        except httpx.DecodingError as error:
            raise UpstreamMalformed("upstream's answer is not in the encoding it names") from error
        except httpx.TransportError as error:
            raise UpstreamUnavailable("the connection to upstream failed") from error


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            raise UpstreamMalformed(f"upstream's answer is larger than {MAX_BODY} bytes")
    return bytes(body)
