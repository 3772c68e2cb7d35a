"""When garbage is collected: not while modules are imported, and seldom once the doors are open."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["settle", "uncollected"]

_COLLECTIONS: Final = (20_000, 20, 20)
"""Objects, and collections of the younger generation, after which garbage is collected (gc.set_threshold)."""


@contextmanager
def uncollected() -> Iterator[None]:
    """For imports: nothing is collected in the block, and what is there at its end is not looked at from then on.

    Modules stay, with all that they make as they are imported; to look for garbage among it, over and over while it
    grows, was an eighth of the time that a start takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def settle() -> None:
    """Spare the garbage collector what it looks at in vain, for this process's whole life.

    It went again and again through all that is there when the doors are open: a fifth of the time of reads that ask
    upstream, by the profile. What comes and goes hardly ever holds a cycle: to look at that less often saves a tenth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTIONS)
