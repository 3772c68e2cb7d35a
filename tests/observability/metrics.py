"""Metrics as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from access.calls import Clients

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def samples(clients: Clients) -> Samples:
    """All there are now."""
    return parsed((await clients.http.get(f"{clients.dev.doors.admin}/metrics")).text)


def grown(before: Samples, after: Samples, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """By how much samples of this name have grown, if they have."""
    return {
        labels: value - before.get((each, labels), 0.0)
        for (each, labels), value in after.items()
        if each == name and value != before.get((each, labels), 0.0)
    }
