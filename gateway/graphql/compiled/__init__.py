"""Operations, compiled once into plans, which answer as Strawberry's own execution does and cost a fraction of it."""

from gateway.graphql.compiled.plans import Compiler, Plan

__all__ = ["Compiler", "Plan"]
