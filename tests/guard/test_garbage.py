"""No frame of a call is left to the garbage collector, whose work stops all calls: not when calls fail either."""

from __future__ import annotations

import contextlib
import gc
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from doors import Caller, Refused
from gateway.sandbox import seed
from stage import entered, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from doors import Door

SESSION = seed.CUSTOMER_SESSION
CALLS: dict[str, Callable[[Door], Awaitable[object]]] = {
    "a read": lambda door: door.get("acme", SESSION),
    "of no session": lambda door: door.get("acme", "nowhere"),
    "of no tenant": lambda door: door.get("nowhere", SESSION),
    "of a shopper nobody knows": lambda door: door.get_own("acme", Caller(token="revoked")),
    "a write": lambda door: door.add_attribute("acme", SESSION, "color", 1, Caller()),
}


@contextlib.contextmanager
def uncollected() -> Iterator[list[object]]:
    """While the block runs, what the garbage collector would collect is put in here instead."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("upstream", ["well", "failing", "spared"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_no_call_leaves_its_frames_behind(name: str, call: str, upstream: str, cache: str) -> None:
    settings: dict[str, object] = {"breaker": {"enabled": upstream == "spared", "min_calls": 2, "open_for": 600}}
    async with opened(upstream=settings, cache={"backend": cache}) as dev, entered(name, dev) as door:

        async def ask() -> None:
            with contextlib.suppress(Refused):
                await CALLS[call](door)

        if upstream != "well":
            dev.sandbox.faults.arm("status=500", times=None)
        for _ in range(5):
            await ask()
        with uncollected() as found:
            for _ in range(5):
                await ask()
            gc.collect()
            frames = [each.f_code.co_qualname for each in found if isinstance(each, FrameType)]

    assert frames == []
