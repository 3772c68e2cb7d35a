"""Operations, compiled once into plans, which answer as Strawberry would, at a fraction of the cost."""

from gateway.graphql.compiled.plans import Bound, Compiler, Plan

__all__ = ["Bound", "Compiler", "Plan"]
