"""SIGHUP: reads the settings again, and applies what can change while the gateway runs.

That is who may call (`access`) and the tenants' clients. Certificate files need no SIGHUP: they are read again when
they change. Everything else needs a restart, and the log says what.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
from pydantic import BaseModel

from gateway.settings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from gateway.readiness import Readiness
    from gateway.settings import Settings, Tenant

__all__ = ["merged", "reloading"]

_CLIENT: Final = ("client_id", "client_secret", "client_secret_file")


@asynccontextmanager
async def reloading(
    settings: Settings,
    read: Callable[[], Settings],
    apply: Callable[[Settings], Awaitable[None]],
    readiness: Readiness,
) -> AsyncIterator[None]:
    """Obey SIGHUP while the block runs.

    `read` raises ConfigurationError for invalid settings: then nothing changes. Any other error, of `read` or `apply`,
    is a bug: it is logged, and the next SIGHUP is obeyed all the same.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, told.set)
    readiness.set("configuration", "ok", met=True)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_reload(settings, read, apply, readiness, told), name="reload when told")
        try:
            yield
        finally:
            task.cancel()


async def _reload(
    settings: Settings,
    read: Callable[[], Settings],
    apply: Callable[[Settings], Awaitable[None]],
    readiness: Readiness,
    told: asyncio.Event,
) -> None:
    log = structlog.stdlib.get_logger(__name__)
    while True:
        await told.wait()
        told.clear()
        try:
            in_force, left = merged(settings, await asyncio.to_thread(read))
            await apply(in_force)
        except ConfigurationError as error:
            readiness.set("configuration", "the newest cannot be used", met=True)
            log.error("not_reloaded", problems=error.problems)  # noqa: TRY400 - where it was found says nothing
            continue
        except Exception:
            readiness.set("configuration", "the newest could not be taken: see the log", met=True)
            log.exception("not_reloaded", problems=("a defect of the gateway",))
            continue
        settings = in_force
        readiness.set("configuration", f"a restart is needed for {', '.join(left)}" if left else "ok", met=True)
        log.info("reloaded", needs_restart=left)


def merged(current: Settings, found: Settings) -> tuple[Settings, tuple[str, ...]]:
    """The settings that apply from now on, and the names of those that differ and need a restart."""
    tenants = {
        name: _with_client(tenant, found.tenants[name]) if name in found.tenants else tenant
        for name, tenant in current.tenants.items()
    }
    in_force = current.model_copy(update={"access": found.access, "tenants": tenants})
    return in_force, tuple(_differences(in_force, found))


def _with_client(tenant: Tenant, found: Tenant) -> Tenant:
    return tenant.model_copy(update={name: getattr(found, name) for name in _CLIENT})


def _differences(one: BaseModel, other: BaseModel, path: str = "") -> Iterator[str]:
    for name in type(one).model_fields:
        yield from _between(getattr(one, name), getattr(other, name), f"{path}{name}")


def _between(one: object, other: object, path: str) -> Iterator[str]:
    if isinstance(one, BaseModel) and type(one) is type(other):
        yield from _differences(one, other, f"{path}.")
    elif isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from _between(one.get(name), other.get(name), f"{path}.{name}")
    elif one != other:
        yield path
