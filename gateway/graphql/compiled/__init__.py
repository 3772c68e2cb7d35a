"""Operations, compiled once into plans, which answer as Strawberry's own execution does and cost a fraction of it."""

from gateway.graphql.compiled.plans import Bound, Compiler, Plan

__all__ = ["Bound", "Compiler", "Plan"]
