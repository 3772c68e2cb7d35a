"""The published contracts hold what they promise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from google.protobuf.descriptor_pb2 import MethodOptions
from graphql import (
    FieldNode,
    GraphQLObjectType,
    GraphQLSchema,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    build_schema,
    get_named_type,
    parse,
    validate,
    visit,
)

from gateway import contracts, errors
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.graphql.schema import make_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from gateway.sandbox import Sandbox
    from stage import Dev


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return build_schema(make_schema().as_str())


def _root_fields(schema: GraphQLSchema) -> Iterator[str]:
    for root in (schema.query_type, schema.mutation_type):
        assert root is not None
        yield from root.fields


def test_every_root_field_has_an_example_of_its_name(schema: GraphQLSchema) -> None:
    assert set(contracts.example_operations()) == set(_root_fields(schema))


def test_grpc_clients_repeat_reads_and_nothing_else() -> None:
    """By the service config, or where they go by what the contract says of a method, as gRPC's for Java can."""
    (repeated,) = json.loads(contracts.service_config())["methodConfig"]
    methods = [each for service in pb.DESCRIPTOR.services_by_name.values() for each in service.methods]
    reads = [each.full_name for each in methods if each.name.startswith(("Get", "BatchGet"))]

    assert [f"{each['service']}.{each['method']}" for each in repeated["name"]] == reads
    assert [
        each.full_name for each in methods if each.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    ] == reads


@pytest.mark.parametrize("name", sorted(contracts.example_operations()))
def test_an_example_is_valid(schema: GraphQLSchema, name: str) -> None:
    assert validate(schema, parse(contracts.example_operations()[name])) == []


@pytest.mark.parametrize("name", sorted(contracts.example_operations()))
def test_an_example_selects_the_id_of_every_session_context(schema: GraphQLSchema, name: str) -> None:
    """By it a frontend's cache knows them: Apollo Client's throws where it is missing (docs/frontends.md)."""
    types = TypeInfo(schema)
    selected: list[set[str]] = []

    class Selections(Visitor):
        def enter_field(self, node: FieldNode, *_: object) -> None:
            kind = types.get_type()
            if kind is not None and get_named_type(kind).name == "SessionContext" and node.selection_set is not None:
                selections = node.selection_set.selections
                selected.append({each.name.value for each in selections if isinstance(each, FieldNode)})

    visit(parse(contracts.example_operations()[name]), TypeInfoVisitor(types, Selections()))

    assert selected
    assert all("sessionId" in each for each in selected)


@pytest.mark.parametrize("name", sorted(contracts.example_operations()))
async def test_an_example_succeeds_as_it_is(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, playground_headers: dict[str, str], name: str
) -> None:
    query = contracts.example_operations()[name]

    answer = (await client.post(dev.graphql_url, json={"query": query}, headers=playground_headers)).json()

    assert "errors" not in answer
    result = answer["data"][name]
    assert result
    assert isinstance(result, list) or result.get("__typename", "Payload").endswith("Payload"), result


def test_reads_come_first_among_the_examples(schema: GraphQLSchema) -> None:
    assert schema.query_type is not None
    reads = list(contracts.example_operations())[: len(schema.query_type.fields)]
    assert set(reads) == set(schema.query_type.fields)


def test_every_type_field_argument_and_value_is_described(schema: GraphQLSchema) -> None:
    silent = []
    for name, kind in schema.type_map.items():
        if name.startswith("__") or name in {"String", "Int", "Boolean", "ID", "Float"}:
            continue
        if not kind.description and name not in {"Query", "Mutation"}:
            silent.append(name)
        for field_name, field in getattr(kind, "fields", {}).items():
            if not field.description:
                silent.append(f"{name}.{field_name}")
            silent += [
                f"{name}.{field_name}({argument})"
                for argument, definition in getattr(field, "args", {}).items()
                if not definition.description
            ]
    assert silent == []


def test_every_mutation_answers_with_a_union_of_a_payload_and_failures(schema: GraphQLSchema) -> None:
    assert schema.mutation_type is not None
    for name, field in schema.mutation_type.fields.items():
        union = schema.type_map[f"{name[0].upper()}{name[1:]}Result"]
        members = list(getattr(union, "types", ()))
        payloads = [each.name for each in members if each.name.endswith("Payload")]
        failures = [each for each in members if isinstance(each, GraphQLObjectType) and each.interfaces]

        assert str(field.type) == union.name, "null where it fails otherwise: the other fields' results are to stay"
        assert payloads == [f"{name[0].upper()}{name[1:]}Payload"]
        assert len(failures) == len(members) - 1


def test_every_method_has_messages_of_its_own() -> None:
    for service in pb.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            assert method.input_type.name == f"{method.name}Request"
            assert method.output_type.name == f"{method.name}Response"


def test_every_reason_is_named_in_the_protobuf_contract() -> None:
    def reasons(kind: type[errors.GatewayError]) -> Iterator[str]:
        yield kind.reason
        for each in kind.__subclasses__():
            yield from reasons(each)

    source = contracts.proto()
    assert [each for each in sorted(set(reasons(errors.GatewayError))) if each not in source] == []
