"""What is kept of a read."""

from __future__ import annotations

import sys

import msgspec
import pytest

from gateway.cache.entry import Entry
from gateway.cache.marks import Marks
from gateway.model import decode_session_context

CART = [{"sku": f"A-{each}", "quantity": each, "price": {"amount": 12.5, "currency": "EUR"}} for each in range(500)]
SHAPES: dict[str, object] = {
    "small": {"segment": "returning", "loyalty": {"tier": "gold", "points": 12}},
    "a cart": {"cart": CART},
    "text": {"note": "x" * 100_000},
    "text of other letters": {"note": "\u00e9\u20ac" * 20_000},
    "text with a single emoji": {"note": "x" * 100_000 + "\U0001f6d2"},
    "numbers": {"seen": list(range(1000, 21_000))},
    "attributes": {f"k{each}": f"v{each}" for each in range(5000)},
    "lists": {f"k{each}": [] for each in range(5000)},
    "objects": {"all": [{}] * 20_000},
    "nested": {"all": [[1.5]] * 20_000},
}


def deep_size(value: object) -> int:
    """Bytes of memory that a decoded value takes."""
    size = sys.getsizeof(value)
    match value:
        case dict():
            return size + sum(deep_size(key) + deep_size(each) for key, each in value.items())
        case list():
            return size + sum(map(deep_size, value))
        case None | bool():
            return 0
    return size


@pytest.mark.parametrize("shape", SHAPES)
def test_its_size_is_about_what_it_takes(shape: str) -> None:
    document = {"sessionId": "s", "metadata": {"version": 1}, "context": SHAPES[shape]}
    context = decode_session_context(msgspec.json.encode(document))
    generation = Marks(lambda: 0.0, lifetime=1, open_for=1).generation()

    takes = deep_size(context.source) + deep_size(context.context)

    assert takes / 2 < Entry(context, 0.0, generation).size < 3 * takes
