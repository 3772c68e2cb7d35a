"""What it costs to refuse hostile documents: `python bench/limits.py` prints CPU milliseconds for each of them.

Each is prepared as a request's would be, by a gateway that has not seen it before; of several runs the second slowest
counts. The last rows are large and mostly let through.
"""

from __future__ import annotations

import time
from typing import Final

from gateway.graphql.documents import Documents, NotExecutable
from gateway.graphql.schema import make_schema
from gateway.settings import GraphQL
from gateway.wiring.documents import limits_of

_RUNS: Final = 7
_BOUND: Final = 10.0
"""Milliseconds for a refusal."""

_INPUT = "mutation { addSessionContextAttribute(input: {%s}) { __typename } }"
_READ = 'sessionContext(tenant: "acme", sessionId: "1")'


def _fragments(number: int, body: str) -> str:
    return " ".join(f"fragment F{each} on Query {{ {body.format(each, each + 1)} }}" for each in range(number))


REFUSED: Final = {
    "deep: 10,000 levels": "{a" * 10_000 + "}" * 10_000,
    "deep: 5,000 levels, within the length": "{a" * 5_000 + "}" * 5_000,
    "deep: 199 levels, within the parser's": "{a" * 199 + "}" * 199,
    "deep: 150 levels of a list in an argument": "{ a(b: " + "[" * 150 + "]" * 150 + ") }" + "x",
    "wide: 100,000 fields": "{" + "a " * 100_000 + "}",
    "wide: 7,000 fields, within the length": "{" + "a " * 7_000 + "}",
    "wide: 900 fields, within the tokens": "{" + "a " * 900 + "}",
    "wide: 900 fields of different names": "{" + " ".join(f"a{each}" for each in range(900)) + "}",
    "aliased: 10,000 times": "{" + " ".join(f"a{each}: __typename" for each in range(10_000)) + "}",
    "aliased: 300 times, within the tokens": "{" + " ".join(f"a{each}: __typename" for each in range(300)) + "}",
    "directives: 450 on one field": "{ __typename " + "@a " * 450 + "}",
    "fragments: a circle of 100": "{ ...F0 } " + _fragments(99, "...F{1}") + " fragment F99 on Query { ...F0 }",
    "fragments: a circle of one": "{ ...F } fragment F on Query { ...F }",
    "fragments: each spreads the next twice": "{ ...F0 } "
    + _fragments(80, "...F{1} ...F{1}")
    + " fragment F80 on Query { __typename }",
    "fragments: 80 side by side": "{" + " ".join(f"...F{each}" for each in range(80)) + "} " + _fragments(80, "a{0}"),
    "inline fragments: 200 side by side": "{" + "... { a } " * 200 + "}",
    "overlapping: 20 x 12 fields of one name": "{" + (_READ + " { " + "currency " * 12 + "} ") * 20 + "}",
    "overlapping: 250 fields of one name": "{" + "__typename " * 250 + "}",
    "huge: 1 MB string": '{ a(b: "' + "x" * 1_000_000 + '") }',
    "huge: 16,000 characters of string": '{ a(b: "' + "x" * 16_000 + '") }',
    "huge: 500,000 comments": "#\n" * 500_000 + "{ __typename }",
    "huge: 8,000 comments, within the length": "#\n" * 8_000 + "{ __typename }",
    "huge: 16,000 blanks": " " * 16_000 + "{",
    "operations: 180 of them": " ".join(f"query Q{each} {{ a }}" for each in range(180)),
    "variables: 240 unused ones": "query (" + " ".join(f"$a{each}: ID" for each in range(240)) + ") { __typename }",
    "unknown fields in an input object: 320": _INPUT % " ".join(f"a{each}: 1" for each in range(320)),
    "one field in an input object, 320 times": _INPUT % ("a: 1 " * 320),
    "cost: 20 lists of 400 sessions": "query ($v: [ID!]! = ["
    + '"1" ' * 400
    + "]) {"
    + " ".join(f'a{each}: sessionContexts(tenant: "acme", sessionIds: $v) {{ currency }}' for each in range(20))
    + "}",
    "10 operations that use a variable 400 times": " ".join(f"query Q{each}($v: ID!) {{ ...F }}" for each in range(10))
    + ' fragment F on Query { sessionContexts(tenant: "acme", sessionIds: ['
    + "$v " * 400
    + "]) { currency } }",
}
"""By what is hostile about them."""

LET_THROUGH: Final = {
    "all fields of 19 sessions": "{"
    + " ".join(f"a{each}: {_READ} {{ sessionId currency language cartId siteCode }}" for each in range(19))
    + "}",
    "a chain of 100 fragments": "{ ...F0 } " + _fragments(100, "...F{1}") + " fragment F100 on Query { __typename }",
    "20 fragments side by side": "{"
    + " ".join(f"...F{each}" for each in range(20))
    + "} "
    + _fragments(20, "__typename"),
    "70 operations that use a variable twice": " ".join(f"query Q{each}($v: ID!) {{ ...F }}" for each in range(70))
    + ' fragment F on Query { sessionContexts(tenant: "acme", sessionIds: [$v $v]) { currency } }',
    "200 arguments": "{" + 'sessionContexts(tenant: "acme", sessionIds: [' + '"1" ' * 200 + "]) { sessionId }" + "}",
}


def outcome(text: str, documents: Documents) -> str:
    """What becomes of a document."""
    try:
        prepared = documents.by_text(text)
        prepared.valid()
        for each in prepared.operations:
            documents.check_cost(prepared, each, {})
    except NotExecutable as refusal:
        extensions = refusal.errors[0].extensions or {}
        return str(extensions.get("limit") or refusal.errors[0].message.partition("\n")[0][:60])
    return "-"


def cost(text: str, documents: Documents) -> float:
    """Milliseconds of CPU."""
    started = time.process_time_ns()
    outcome(text, documents)
    return (time.process_time_ns() - started) / 1e6


def main() -> None:
    """Print the table."""
    core, settings = make_schema(introspection=False).core, GraphQL()

    def fresh() -> Documents:
        return Documents(core, limits_of(settings), memory=settings.documents_memory)

    cost("{ __typename }", fresh())  # what is made once is made now
    print(f"{'document':48} {'characters':>10} {'ms':>7} {'again':>7}  refused for")
    for rows, bound in ((REFUSED, _BOUND), (LET_THROUGH, None)):
        for name, text in rows.items():
            runs = []
            for _ in range(_RUNS):
                documents = fresh()
                runs.append(cost(text, documents))
            again = min(cost(text, documents) for _ in range(_RUNS))
            worst = sorted(runs)[-2]  # one that the machine has spoiled may be left out
            mark = " !" if bound is not None and worst > bound else ""
            print(f"{name:48} {len(text):10} {worst:7.2f} {again:7.3f}  {outcome(text, documents)}{mark}")


if __name__ == "__main__":
    main()
