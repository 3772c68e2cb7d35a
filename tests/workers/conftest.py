"""Each file has a sandbox of its own behind its gateways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway import sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstream() -> AsyncIterator[sandbox.SandboxServer]:
    async with sandbox.serve(sandbox.Sandbox()) as upstream:
        yield upstream
