"""The eight operations, and what the reference and live use say of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import pytest
from sandbox.sandbox_api import ANONYMOUS, CUSTOMER, bearer, fault_code, managed, own

from gateway.sandbox import seed
from gateway.sandbox.tokens import saas_token

if TYPE_CHECKING:
    from sandbox.sandbox_api import Emporix

OWN = bearer(seed.CUSTOMER_TOKEN)


def document(version: int | None, **fields: Any) -> dict[str, Any]:
    return {**fields, **({} if version is None else {"metadata": {"version": version}})}


class TestReading:
    async def test_gives_the_document_of_any_session(self, emporix: Emporix) -> None:
        answer = await emporix.get()
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == json.loads(seed.SESSIONS["acme", CUSTOMER])

    async def test_gives_every_value_to_the_byte(self, emporix: Emporix) -> None:
        body = (await emporix.get(seed.ODD_SESSION)).content
        for part in ("9007199254740993", "12345678901234567890", "2.50", "emoji 🛒", '"nothing": null'):
            assert part.encode() in body.replace(b'"nothing":null', b'"nothing": null')

    async def test_gives_the_own_document_of_a_token(self, emporix: Emporix) -> None:
        answer = await emporix.http.get(own(), headers=OWN)
        assert answer.json()["sessionId"] == CUSTOMER
        answer = await emporix.http.get(own(), headers=bearer(seed.ANONYMOUS_TOKEN))
        assert answer.json()["sessionId"] == ANONYMOUS

    async def test_of_a_session_that_is_not_there_says_so(self, emporix: Emporix) -> None:
        answer = await emporix.get("no/such")
        assert answer.status_code == 404
        assert answer.json() == {"sessionId": "no/such", "code": 404, "message": "Session not found"}

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("GET", "/session-context/acme"),
            ("GET", managed("")[:-1] + "/x/y"),
            ("POST", managed("x")),
            ("PATCH", managed("x")),
            ("GET", managed("x", "attributes", "a")),
            ("DELETE", managed("x", "attributes")),
            ("PUT", own()),
            ("GET", own("attributes")),
            ("POST", own("attributes", "a")),
            ("GET", "/oauth/token"),
            ("GET", "//"),
        ],
    )
    async def test_of_what_is_no_operation_says_so(self, emporix: Emporix, method: str, path: str) -> None:
        answer = await emporix.http.request(method, path, headers=await emporix.service())
        assert (answer.status_code, answer.json()["message"]) == (404, "No such resource in the sandbox")


class TestReplacing:
    async def test_puts_a_document_in_place_and_raises_the_version(self, emporix: Emporix) -> None:
        emporix.clock.advance(1)
        answer = await emporix.put(document(10, customerId=seed.CUSTOMER_ID, currency="CHF", context={"a": 1}))
        assert (answer.status_code, answer.content) == (204, b"")
        stored = emporix.stored()
        assert stored is not None
        metadata = stored.pop("metadata")
        assert stored == {"sessionId": CUSTOMER, "customerId": seed.CUSTOMER_ID, "currency": "CHF", "context": {"a": 1}}
        assert metadata["version"] == 11
        assert metadata["createdAt"] == "2026-02-04T16:36:44.047Z"
        assert metadata["modifiedAt"] == emporix.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def test_leaves_out_what_is_null_and_an_empty_context(self, emporix: Emporix) -> None:
        await emporix.put(document(10, currency=None, language="", context={}, loyalty=None, other={}))
        stored = emporix.stored()
        assert stored is not None
        assert stored.keys() == {"sessionId", "language", "other", "metadata"}

    async def test_merges_the_top_level_where_the_switch_says_so(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.put_mode = "merge"
        await emporix.put(document(10, currency="CHF", language=None, context={"a": 1}))
        stored = emporix.stored()
        assert stored is not None
        assert (stored["currency"], stored["siteCode"], stored["context"]) == ("CHF", "main", {"a": 1})
        assert "language" not in stored

    async def test_takes_the_session_from_the_path(self, emporix: Emporix) -> None:
        await emporix.put(document(10, sessionId="another"))
        assert (emporix.stored() or {})["sessionId"] == CUSTOMER
        assert emporix.stored("another") is None

    @pytest.mark.parametrize("conflict", ["disguised-404", "409", "412"])
    async def test_of_a_stale_version_is_refused(
        self, emporix: Emporix, conflict: Literal["disguised-404", "409", "412"]
    ) -> None:
        emporix.sandbox.switches.conflict = conflict
        before = emporix.stored()
        for version in (9, 11, 0, -1):
            answer = await emporix.put(document(version))
            assert answer.status_code == int(conflict[-3:])
            if conflict == "disguised-404":
                assert answer.json()["message"] == (
                    f"The context with sessionId {CUSTOMER} and version {version} has not been found."
                )
            else:
                assert answer.json()["status"] == "Conflict"
        assert emporix.stored() == before

    @pytest.mark.parametrize("metadata", [None, {}, {"version": None}, {"version": "10"}, {"version": 1.5}, []])
    async def test_without_a_version_is_a_bad_request(self, emporix: Emporix, metadata: object) -> None:
        answer = await emporix.put({"metadata": metadata})
        assert answer.status_code == 400
        assert "metadata" in json.dumps(answer.json())

    async def test_lets_one_of_two_writers_through(self, emporix: Emporix) -> None:
        assert (await emporix.put(document(10))).status_code == 204
        assert (await emporix.put(document(10))).status_code == 404
        assert (await emporix.put(document(11))).status_code == 204

    @pytest.mark.parametrize("session_id", [CUSTOMER, ANONYMOUS])
    async def test_without_a_saas_token_is_a_bad_request(self, emporix: Emporix, session_id: str) -> None:
        answer = await emporix.put(document(1), session_id, saas=None)
        assert answer.status_code == 400
        (error,) = answer.json()["_embedded"]["errors"]
        assert error["message"] == "Required Header [saas-token] not specified"

    async def test_without_a_saas_token_passes_for_an_anonymous_session_by_the_reference(
        self, emporix: Emporix
    ) -> None:
        emporix.sandbox.switches.put_requires_saas_token = False
        assert (await emporix.put(document(1), ANONYMOUS, saas=None)).status_code == 204
        assert (await emporix.put(document(10), saas=None)).status_code == 400

    async def test_with_the_saas_token_of_another_customer_is_forbidden(self, emporix: Emporix) -> None:
        other = saas_token("C999", emporix.clock().replace(year=2099))
        for answer in (
            await emporix.put(document(10), saas=other),
            await emporix.put(document(1, customerId=seed.CUSTOMER_ID), ANONYMOUS, saas=other),
            await emporix.put(document(10, customerId="C999")),
        ):
            assert answer.status_code == 403
        assert (await emporix.put(document(1, customerId="C999"), ANONYMOUS, saas=other)).status_code == 204

    @pytest.mark.parametrize("status", [403, 401])
    async def test_with_a_saas_token_that_has_expired_is_refused_as_the_switch_says(
        self, emporix: Emporix, status: Literal[401, 403]
    ) -> None:
        assert emporix.sandbox.switches.wrong_saas_token_status == 403
        emporix.sandbox.switches.wrong_saas_token_status = status
        for wrong in (saas_token(seed.CUSTOMER_ID, emporix.clock().replace(year=2020)), "none"):
            assert (await emporix.put(document(10), saas=wrong)).status_code == status
        other = saas_token("C999", emporix.clock().replace(year=2099))
        assert (await emporix.put(document(10), saas=other)).status_code == 403


class TestCreating:
    async def test_needs_upsert(self, emporix: Emporix) -> None:
        for upsert in ("false", "", "TRUE", "1"):
            answer = await emporix.put(document(None), "new", upsert=upsert)
            assert (answer.status_code, answer.json()["message"]) == (404, "Session not found")
        assert emporix.stored("new") is None

    @pytest.mark.parametrize("status", [204, 201])
    @pytest.mark.parametrize(
        ("created_version", "version", "stored"), [("one", 7, 1), ("given", 7, 7), ("given", None, 1)]
    )
    async def test_stores_the_version_and_answers_the_status_of_the_switches(
        self,
        emporix: Emporix,
        status: Literal[204, 201],
        created_version: Literal["one", "given"],
        version: int | None,
        stored: int,
    ) -> None:
        emporix.sandbox.switches.created_status = status
        emporix.sandbox.switches.created_version = created_version
        answer = await emporix.put(document(version, currency="EUR"), "new", upsert="true")
        assert answer.status_code == status
        found = emporix.stored("new")
        assert found is not None
        assert (found["sessionId"], found["currency"], found["metadata"]["version"]) == ("new", "EUR", stored)

    async def test_does_not_touch_what_exists_already(self, emporix: Emporix) -> None:
        assert (await emporix.put(document(None), upsert="true")).status_code == 400
        assert (await emporix.put(document(1), upsert="true")).status_code == 404
        assert (await emporix.put(document(10), upsert="true")).status_code == 204


class TestPatchingTheOwnSession:
    async def test_merges_the_fields_that_may_change_and_ignores_the_rest(self, emporix: Emporix) -> None:
        body = document(10, currency="CHF", siteCode=None, cartId="c", customerId="C1", loyalty=1, sessionId="x")
        answer = await emporix.http.patch(own(), json=body, headers=OWN)
        assert (answer.status_code, answer.content) == (204, b"")
        stored = emporix.stored()
        assert stored is not None
        before = json.loads(seed.SESSIONS["acme", CUSTOMER])
        del before["siteCode"], before["metadata"]
        assert stored.pop("metadata")["version"] == 11
        assert stored == {**before, "currency": "CHF"}

    async def test_replaces_the_whole_map_of_attributes(self, emporix: Emporix) -> None:
        await emporix.http.patch(own(), json=document(10, context={"a": 1}), headers=OWN)
        assert (emporix.stored() or {})["context"] == {"a": 1}

    @pytest.mark.parametrize(("conflict", "status"), [("disguised-404", 404), ("409", 409), ("412", 412)])
    async def test_of_a_stale_version_is_refused(
        self, emporix: Emporix, conflict: Literal["disguised-404", "409", "412"], status: int
    ) -> None:
        emporix.sandbox.switches.conflict = conflict
        answer = await emporix.http.patch(own(), json=document(9), headers=OWN)
        assert answer.status_code == status
        assert "Session not found" not in answer.text

    async def test_without_a_version_is_a_bad_request(self, emporix: Emporix) -> None:
        answer = await emporix.http.patch(own(), json={"currency": "CHF"}, headers=OWN)
        assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, "metadata.version")

    async def test_of_a_session_without_a_context_says_so(self, emporix: Emporix) -> None:
        token = emporix.sandbox.tokens.issue("acme", 60, "young")
        answer = await emporix.http.patch(own(), json=document(1), headers=bearer(token))
        assert (answer.status_code, answer.json()["message"]) == (404, "Session not found")


VALUES: list[object] = [None, True, 0, 9007199254740993, 2.5, "", "text", [], {}, {"a": [{"b": None}]}]


class TestAttributes:
    @pytest.mark.parametrize("value", VALUES)
    async def test_are_set_on_any_session_and_raise_the_version(self, emporix: Emporix, value: object) -> None:
        answer = await emporix.http.post(
            managed(CUSTOMER, "attributes"), json={"key": "new", "value": value}, headers=await emporix.service()
        )
        assert (answer.status_code, answer.content) == (204, b"")
        stored = emporix.stored()
        assert stored is not None
        assert stored["context"]["new"] == value
        assert stored["context"]["customProperty"] == "customValue"
        assert stored["metadata"]["version"] == 11

    async def test_are_overwritten_when_they_are_there(self, emporix: Emporix) -> None:
        for value in (1, 2):
            await emporix.http.post(
                managed(ANONYMOUS, "attributes"), json={"key": "a b", "value": value}, headers=await emporix.service()
            )
        assert (emporix.stored(ANONYMOUS) or {})["context"] == {"a b": 2}

    async def test_are_set_on_the_own_session_and_named_in_the_answer(self, emporix: Emporix) -> None:
        answer = await emporix.http.post(own("attributes"), json={"key": "größe", "value": 1}, headers=OWN)
        assert (answer.status_code, answer.json()) == (201, "größe")
        assert (emporix.stored() or {})["context"]["größe"] == 1

    @pytest.mark.parametrize("name", ["customProperty", "a/b", "a?b#c", "größe 🛒", "%2F", "a.b"])
    async def test_are_removed_by_their_encoded_name(self, emporix: Emporix, name: str) -> None:
        headers = await emporix.service()
        for mine in (False, True):
            await emporix.http.post(managed(CUSTOMER, "attributes"), json={"key": name, "value": 1}, headers=headers)
            path = own("attributes", name) if mine else managed(CUSTOMER, "attributes", name)
            answer = await emporix.http.delete(path, headers=OWN if mine else headers)
            assert (answer.status_code, answer.content) == (204, b"")
            assert name not in (emporix.stored() or {})["context"]

    async def test_that_are_the_last_leave_no_context_behind(self, emporix: Emporix) -> None:
        headers = bearer(seed.ANONYMOUS_TOKEN)
        await emporix.http.post(own("attributes"), json={"key": "a", "value": 1}, headers=headers)
        await emporix.http.delete(own("attributes", "a"), headers=headers)
        assert "context" not in (emporix.stored(ANONYMOUS) or {})

    @pytest.mark.parametrize("status", [404, 204])
    async def test_that_are_missing_are_removed_as_the_switch_says(
        self, emporix: Emporix, status: Literal[404, 204]
    ) -> None:
        emporix.sandbox.switches.missing_attribute_status = status
        answer = await emporix.http.delete(own("attributes", "missing"), headers=OWN)
        assert answer.status_code == status
        assert "Session not found" not in answer.text
        assert (emporix.stored() or {})["metadata"]["version"] == 10

    async def test_of_a_session_that_is_not_there_say_so(self, emporix: Emporix) -> None:
        headers = await emporix.service()
        for answer in (
            await emporix.http.post(managed("no", "attributes"), json={"key": "a", "value": 1}, headers=headers),
            await emporix.http.delete(managed("no", "attributes", "a"), headers=headers),
        ):
            assert (answer.status_code, answer.json()["message"]) == (404, "Session not found")

    @pytest.mark.parametrize(
        "body", [{}, {"key": "a"}, {"value": 1}, {"key": "", "value": 1}, {"key": 1, "value": 1}, []]
    )
    async def test_without_a_name_or_a_value_are_a_bad_request(self, emporix: Emporix, body: object) -> None:
        for path, headers in ((managed(CUSTOMER, "attributes"), await emporix.service()), (own("attributes"), OWN)):
            assert (await emporix.http.post(path, json=body, headers=headers)).status_code == 400


class TestDiscardedWrites:
    async def test_are_acknowledged_and_change_nothing(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.discard_writes = True
        headers = await emporix.service()
        before = emporix.sandbox.store.ids(), emporix.stored()
        attribute = {"key": "a", "value": 1}
        for answer, status in (
            (await emporix.put(document(10, currency="CHF")), 204),
            (await emporix.put(document(None), "new", upsert="true"), 204),
            (await emporix.http.patch(own(), json=document(10, currency="CHF"), headers=OWN), 204),
            (await emporix.http.post(managed(CUSTOMER, "attributes"), json=attribute, headers=headers), 204),
            (await emporix.http.post(own("attributes"), json=attribute, headers=OWN), 201),
            (await emporix.http.delete(own("attributes", "customProperty"), headers=OWN), 204),
        ):
            assert answer.status_code == status
        assert (emporix.sandbox.store.ids(), emporix.stored()) == before


class TestCredentials:
    async def test_of_a_service_are_not_those_of_a_shopper_nor_the_other_way_round(self, emporix: Emporix) -> None:
        headers = {**OWN, "emporix-tenant": "acme"}
        for path, wrong in ((managed(CUSTOMER), headers), (own(), await emporix.service())):
            answer = await emporix.http.get(path, headers=wrong)
            assert (answer.status_code, fault_code(answer)) == (401, "oauth.v2.InvalidAccessToken")

    @pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic abc", "Bearer wrong", "wrong"])
    async def test_that_are_none_are_refused(self, emporix: Emporix, authorization: str | None) -> None:
        headers = {"emporix-tenant": "acme", **({} if authorization is None else {"authorization": authorization})}
        for path in (managed(CUSTOMER), own()):
            answer = await emporix.http.get(path, headers=headers)
            assert (answer.status_code, fault_code(answer)) == (401, "oauth.v2.InvalidAccessToken")

    async def test_that_have_expired_are_refused_as_such(self, emporix: Emporix) -> None:
        service = await emporix.service()
        shopper = bearer((await emporix.anonymous())["access_token"])
        emporix.clock.advance(3_598)
        assert (await emporix.http.get(own(), headers=shopper)).status_code == 200
        emporix.clock.advance(1)
        answer = await emporix.http.get(own(), headers=shopper)
        assert (answer.status_code, fault_code(answer)) == (401, "keymanagement.service.access_token_expired")
        assert (await emporix.http.get(managed(CUSTOMER), headers=service)).status_code == 200
        emporix.clock.advance(14_399)
        answer = await emporix.http.get(managed(CUSTOMER), headers=service)
        assert (answer.status_code, fault_code(answer)) == (401, "keymanagement.service.access_token_expired")

    async def test_that_were_revoked_are_refused_as_unknown(self, emporix: Emporix) -> None:
        headers = await emporix.service()
        assert (await emporix.http.delete("/_sandbox/tokens")).json()["revoked"] >= 1
        answer = await emporix.http.get(managed(CUSTOMER), headers=headers)
        assert (answer.status_code, fault_code(answer)) == (401, "oauth.v2.InvalidAccessToken")
        assert (await emporix.http.get(own(), headers=OWN)).status_code == 200

    async def test_of_another_tenant_are_refused(self, emporix: Emporix) -> None:
        headers = await emporix.service()
        answer = await emporix.http.get("/session-context/globex/context/x", headers=headers)
        assert answer.status_code == 401
        assert (await emporix.http.get("/session-context/globex/me/context", headers=OWN)).status_code == 401

    async def test_of_a_service_need_the_tenant_header_unless_the_switch_is_off(self, emporix: Emporix) -> None:
        headers = await emporix.service()
        del headers["emporix-tenant"]
        assert (await emporix.http.get(managed(CUSTOMER), headers=headers)).status_code == 401
        assert (
            await emporix.http.get(managed(CUSTOMER), headers={**headers, "emporix-tenant": "globex"})
        ).status_code == 401
        emporix.sandbox.switches.require_tenant_header = False
        assert (await emporix.http.get(managed(CUSTOMER), headers=headers)).status_code == 200

    async def test_of_a_service_without_the_scope_are_forbidden(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.granted_scopes = ("cart.cart_read",)
        answer = await emporix.get()
        assert answer.status_code == 403
        assert "sessioncontext.context_manage" in answer.json()["message"]


class TestHistory:
    async def test_has_every_version_and_what_made_it(self, emporix: Emporix) -> None:
        await emporix.put(document(10, customerId=seed.CUSTOMER_ID, currency="CHF"))
        await emporix.http.patch(own(), json=document(11, currency="USD"), headers=OWN)
        await emporix.http.post(own("attributes"), json={"key": "a", "value": 1}, headers=OWN)
        await emporix.http.post(f"/_sandbox/carts/acme/{CUSTOMER}")
        await emporix.put(document(10))
        revisions = (await emporix.http.get(f"/_sandbox/history/acme/{CUSTOMER}")).json()
        assert [(each["version"], each["madeBy"]) for each in revisions] == [
            (10, "seed"),
            (11, "PUT"),
            (12, "PATCH"),
            (13, "attribute"),
            (14, "cart"),
        ]
        assert [each["document"].get("currency") for each in revisions] == ["EUR", "CHF", "USD", "USD", "USD"]
        assert revisions[-1]["document"] == emporix.stored()

    async def test_of_a_session_that_is_not_there_is_a_bad_request(self, emporix: Emporix) -> None:
        assert (await emporix.http.get("/_sandbox/history/acme/no")).status_code == 400


class TestCounters:
    async def test_tell_every_request_by_its_operation(self, emporix: Emporix) -> None:
        await emporix.get()
        await emporix.put(document(10, customerId=seed.CUSTOMER_ID))
        await emporix.http.post(own("attributes"), json={"key": "a", "value": 1}, headers=OWN)
        await emporix.http.delete(own("attributes", "a"), headers=OWN)
        await emporix.http.patch(own(), json=document(13), headers=OWN)
        await emporix.http.get(own(), headers=OWN)
        await emporix.http.get("/nowhere")
        count = emporix.sandbox.count
        assert [count(each) for each in ("token", "get", "put", "add-own-attribute", "remove-own-attribute")] == [
            2,
            1,
            1,
            1,
            1,
        ]
        assert [count(each) for each in ("patch-own", "get-own", "", "add-attribute", "remove-attribute")] == [
            1,
            1,
            1,
            0,
            0,
        ]

    async def test_tell_path_and_status_and_no_secret(self, emporix: Emporix) -> None:
        await emporix.put(document(9))
        requests = (await emporix.http.get("/_sandbox/requests")).json()
        assert [each["operation"] for each in requests] == ["token", "put"]
        assert (requests[1]["path"], requests[1]["status"]) == (f"{managed(CUSTOMER)}?upsert=false", 404)
        assert requests[1]["headers"]["emporix-tenant"] == "acme"
        told = json.dumps(requests)
        assert emporix.sandbox.saas_token not in told
        assert "Bearer" not in told
        assert (await emporix.http.delete("/_sandbox/requests")).status_code == 204
        assert emporix.sandbox.count("put") == 0
