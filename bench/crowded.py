"""A stub upstream that works on so many calls at a time and has others wait: `python -m bench.crowded PORT KIND`.

Work takes a time drawn from an exponential distribution, whose mean `PUT /mean` sets in seconds. A call that nobody
waits for any more is dropped by the kind that is `attentive`, and is worked on all the same by the one that is `deaf`,
as a pool of threads with a queue before it does. Tokens are had at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Final

from aiohttp import web

from bench.stub import document

__all__ = ["AT_A_TIME", "KINDS", "MEAN"]

AT_A_TIME: Final = 10
MEAN: Final = 0.025
"""Seconds, to begin with."""
KINDS: Final = ("deaf", "attentive")
_TOKEN: Final = {"access_token": "tok-0123456789abcdef", "token_type": "Bearer", "expires_in": 14399}
_SCOPE: Final = "tenant=acme sessioncontext.context_read sessioncontext.context_manage"


class Crowded:
    """What it answers, and how long that takes."""

    def __init__(self) -> None:
        self._mean = MEAN
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._chance = random.Random(7)  # noqa: S311 - to be had again
        self._answer = json.dumps(document()).encode()

    async def set_mean(self, request: web.Request) -> web.Response:
        """Of all work that begins from now on."""
        self._mean = float(await request.text())
        return web.Response(status=204)

    async def token(self, _: web.Request) -> web.Response:
        """As upstream's token endpoint."""
        return web.json_response({**_TOKEN, "scope": _SCOPE})

    async def read(self, _: web.Request) -> web.Response:
        """Of any session context."""
        async with self._places:
            await asyncio.sleep(self._chance.expovariate(1 / self._mean))
        return web.Response(body=self._answer, content_type="application/json")


async def _make() -> web.Application:
    crowded, app = Crowded(), web.Application()
    app.add_routes(
        [web.put("/mean", crowded.set_mean), web.post("/oauth/token", crowded.token), web.get("/{_:.*}", crowded.read)]
    )
    return app


if __name__ == "__main__":
    attentive = sys.argv[2] == "attentive"
    web.run_app(_make(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, handler_cancellation=attentive)
