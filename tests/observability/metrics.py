"""Metrics as Prometheus reads them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from access.calls import Clients
    from prometheus_client import CollectorRegistry


def made(registry: CollectorRegistry) -> dict[str, tuple[str | None, set[str]]]:
    """Type and labels of each metric that the gateway makes, by its name."""
    return {
        f"{each._name}{'_total' if each._type == 'counter' else ''}": (each._type, set(each._labelnames))
        for each in registry._collector_to_names
        if isinstance(each, MetricWrapperBase)
    }


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def samples(clients: Clients) -> Samples:
    """All there are now."""
    return parsed((await clients.http.get(f"{clients.dev.doors.admin}/metrics")).text)


async def grows_to(
    clients: Clients, before: Samples, name: str, expected: Mapping[frozenset[tuple[str, str]], float]
) -> None:
    """Wait for samples of this name to grow by so much: a caller may have its answer before that is counted."""
    for _ in range(100):
        found = grown(before, await samples(clients), name)
        if found == expected:
            return
        await asyncio.sleep(0.02)
    assert found == expected


def grown(before: Samples, after: Samples, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """By how much samples of this name have grown, if they have."""
    return {
        labels: value - before.get((each, labels), 0.0)
        for (each, labels), value in after.items()
        if each == name and value != before.get((each, labels), 0.0)
    }
