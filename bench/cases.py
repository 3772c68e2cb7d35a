"""What is measured: cases, each with those who take part in it and the load that it puts on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bench.answers import check_answer, check_sample, check_upstream
from bench.load import Sample, h2load, shoppers, wrk
from bench.stub import SESSION

if TYPE_CHECKING:
    from bench.contenders import Contender, Up
    from bench.stub import Stub

__all__ = ["CASES", "Case", "Measured", "load", "measure"]

Door: TypeAlias = Literal["graphql", "grpc"]


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    name: str
    door: Door
    cached: bool
    concurrency: tuple[int, ...]
    fields: tuple[str, ...] = ("all",)
    mode: Literal["", "misses", "callers", "pages"] = ""
    """`misses` asks for a new session every time, `callers` with one of many keys, `pages` as shoppers do."""

    @property
    def calls_upstream(self) -> bool:
        """Whether every request has to."""
        return not self.cached or self.mode == "misses"

    def takes(self, contender: Contender) -> bool:
        """Whether the contender takes part."""
        if self.mode == "callers":
            return contender.kind == "ours"
        if contender.floor is not None:
            return self.door == "graphql" and self.mode == "" and self.cached == (contender.floor == "body")
        if (contender.graphql if self.door == "graphql" else contender.rpc) is None:
            return False
        if self.mode == "pages":
            return contender.kind != "floor" and not (self.cached and contender.caches == "never")
        if contender.name == "grpc.aio echo":
            return self.cached
        return not self.cached or contender.caches == "as told"


CASES: Final = (
    Case("graphql-cached", "graphql", True, (1, 32, 256), ("all", "two")),
    Case("graphql-misses", "graphql", True, (32,), mode="misses"),
    Case("graphql-callers", "graphql", True, (32,), mode="callers"),
    Case("grpc-cached", "grpc", True, (1, 32)),
    Case("graphql-uncached", "graphql", False, (1, 32, 256), ("all", "two")),
    Case("grpc-uncached", "grpc", False, (1, 32)),
    Case("pages-graphql-cached", "graphql", True, (1, 16), mode="pages"),
    Case("pages-graphql-uncached", "graphql", False, (1, 16), mode="pages"),
    Case("pages-grpc-cached", "grpc", True, (1, 16), mode="pages"),
    Case("pages-grpc-uncached", "grpc", False, (1, 16), mode="pages"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, and what it took."""

    sample: Sample
    calls: int
    """Upstream."""
    cpu: float
    """Seconds, of the contender."""
    busy: float
    """Share of its core."""


def measure(case: Case, up: Up, fields: str, concurrency: int, *, seconds: float, stub: Stub) -> Measured:
    """One run. Raises Wrong when an answer, or what was called upstream, was not right."""
    up.process.check()
    size = 0.0 if case.mode == "pages" else check_answer(up, case.door, fields)
    calls, cpu = stub.requests(), up.process.cpu()
    sample = load(case, up, fields, concurrency, seconds)
    cpu, calls = up.process.cpu() - cpu, stub.requests() - calls
    if case.mode != "pages":
        check_sample(up, sample, size)
        if up.contender.kind != "floor" or up.contender.rpc is not None:
            echo = up.name == "grpc.aio echo"
            check_upstream(up, sample, calls, concurrency, expected=case.calls_upstream and not echo)
    return Measured(sample, calls, cpu, cpu / (sample.seconds * sample.total / sample.requests))


def load(case: Case, up: Up, fields: str, concurrency: int, seconds: float) -> Sample:
    """Put the case's load on it."""
    if case.mode == "pages":
        return shoppers(up, case.door, number=concurrency, seconds=1.5 * seconds)
    if case.door == "grpc":
        assert up.contender.rpc is not None
        return h2load(up.rpc_port, up.contender.rpc, streams=concurrency, seconds=seconds, directory=up.directory)
    dialect = up.contender.graphql
    path = f"/session-context/acme/context/{SESSION}" if dialect is None else dialect.path
    body = None if dialect is None else dialect.read_body(fields)
    return wrk(up.port, path, body, connections=concurrency, seconds=seconds, directory=up.directory, mode=case.mode)
