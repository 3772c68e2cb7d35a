"""Callers' JSON Web Tokens: which are good, and where the keys come from. The issuer is a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import warnings
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from access.issuing import (
    AUDIENCE,
    FakeIssuer,
    ec_key,
    encoded,
    issuing,
    okp_key,
    public,
    rsa_key,
    signed,
    small_rsa_key,
    unpadded,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey
from pydantic import SecretStr

from gateway.access.jwks import ALGORITHMS, KeySet, Timing, fetching
from gateway.access.principal import Permission, Principal
from gateway.access.tokens import Issuer, TokenIssuers
from gateway.addresses import is_safe
from gateway.deadline import Deadline
from gateway.errors import CallerUnauthenticated, IssuerUnavailable
from gateway.upstream.transport import Transport
from waiting import LoopClock, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ALL = tuple(sorted(ALGORITHMS))


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def issuer_of(fake: FakeIssuer, **settings: Any) -> Issuer:
    given = {
        "algorithms": ("RS256", "ES256"),
        "leeway": 30,
        "permissions_claim": "scope",
        "permissions": {each.value: each for each in Permission},
        "tenants_claim": "tenants",
        "jwks_url": fake.jwks_url,
        **settings,
    }
    return Issuer("corp", fake.url, AUDIENCE, **given)


@asynccontextmanager
async def taking(
    *issuers: Issuer, timing: Timing | None = None, timeout: float = 5.0, now: Callable[[], float] = time.time
) -> AsyncIterator[TokenIssuers]:
    async with (
        Transport() as transport,
        TokenIssuers(issuers, fetching(transport, timeout=timeout), timing, now) as tokens,
    ):
        yield tokens


async def principal(tokens: TokenIssuers, token: str, *, within: float = 5.0) -> Principal:
    return await tokens.principal(SecretStr(token), Deadline.after(within))


async def is_good(tokens: TokenIssuers, token: str, *, within: float = 5.0) -> bool:
    try:
        await principal(tokens, token, within=within)
    except (CallerUnauthenticated, IssuerUnavailable):
        return False
    return True


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[FakeIssuer]:
    async with issuing() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeIssuer) -> FakeIssuer:
    """The issuer, in good health."""
    fresh = FakeIssuer(server.url)
    server.__dict__.update(fresh.__dict__)
    return server


@pytest_asyncio.fixture
async def tokens(fake: FakeIssuer) -> AsyncIterator[TokenIssuers]:
    """They take what `fake` issues."""
    async with taking(issuer_of(fake)) as tokens:
        yield tokens


# Which tokens are good, and what they say


async def test_a_good_token_says_who_may_do_what_for_which_tenants(fake: FakeIssuer, tokens: TokenIssuers) -> None:
    assert await principal(tokens, fake.token()) == Principal(
        "corp:checkout", "jwt", frozenset(Permission), frozenset({"acme"})
    )


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS256", rsa_key()),
        ("RS512", rsa_key()),
        ("PS256", rsa_key()),
        ("ES256", ec_key()),
        ("ES384", ec_key("p384", "P-384")),
        ("EdDSA", okp_key()),
        ("Ed25519", okp_key()),
    ],
)
async def test_every_algorithm_that_is_allowed_is_taken_and_no_other(
    fake: FakeIssuer, algorithm: str, key: Any
) -> None:
    fake.published = [public(key)]
    async with (
        taking(issuer_of(fake, algorithms=(algorithm,))) as taking_it,
        taking(issuer_of(fake, algorithms=tuple({*ALL} - {algorithm}))) as taking_others,
    ):
        assert await is_good(taking_it, fake.token(key, algorithm))
        assert not await is_good(taking_others, fake.token(key, algorithm))


GOOD = {"alg": "RS256", "kid": "first"}


def payload(fake: FakeIssuer, **claims: object) -> bytes:
    return json.dumps(fake.claims(**claims)).encode()


def claims(fake: FakeIssuer, **claims: object) -> str:
    return unpadded(payload(fake, **claims))


PEM = rsa_key().as_pem(private=False)
DER = rsa_key().as_der(private=False)
BAD_TOKENS: dict[str, Callable[[FakeIssuer], str]] = {
    "expired": lambda fake: fake.token(exp=int(time.time()) - 31),
    "without an end": lambda fake: fake.token(exp=None),
    "whose end is no number": lambda fake: fake.token(exp="2100-01-01"),
    "whose end is true": lambda fake: fake.token(exp=True),
    "not yet valid": lambda fake: fake.token(nbf=int(time.time()) + 60),
    "made in the future": lambda fake: fake.token(iat=int(time.time()) + 60),
    "of another issuer": lambda fake: fake.token(iss="https://other.example"),
    "of an issuer whose name begins the same": lambda fake: fake.token(iss=f"{fake.url}/"),
    "of a list of issuers": lambda fake: fake.token(iss=[fake.url]),
    "of no issuer": lambda fake: fake.token(iss=None),
    "for another audience": lambda fake: fake.token(aud="other"),
    "for other audiences": lambda fake: fake.token(aud=["other", f"{AUDIENCE} "]),
    "for no audience": lambda fake: fake.token(aud=None),
    "for an empty list": lambda fake: fake.token(aud=[]),
    "for an object": lambda fake: fake.token(aud={AUDIENCE: 1}),
    "for a list within a list": lambda fake: fake.token(aud=[[AUDIENCE]]),
    "about nobody": lambda fake: fake.token(sub=None),
    "about an object": lambda fake: fake.token(sub={"name": "checkout"}),
    "about two lines": lambda fake: fake.token(sub='checkout\n{"event": "write"}'),
    "about a control character": lambda fake: fake.token(sub="checkout\x1b[2J"),
    "about a long name": lambda fake: fake.token(sub="x" * 256),
    "unsigned": lambda fake: fake.unsigned(),
    "unsigned, by a name in other letters": lambda fake: f"{encoded({'alg': 'nOnE', 'kid': 'first'})}.{claims(fake)}.",
    "signed with the public key as a secret, in PEM": lambda fake: fake.confused(PEM),
    "signed with the public key as a secret, in DER": lambda fake: fake.confused(DER),
    "signed with the public key as a secret, as published": lambda fake: fake.confused(
        json.dumps(public(rsa_key())).encode()
    ),
    "signed with the modulus as a secret": lambda fake: fake.confused(str(rsa_key()["n"]).encode()),
    "signed by nobody's key": lambda fake: fake.token(rsa_key("other"), header={"kid": "first"}),
    "signed by a key that is not published": lambda fake: fake.token(rsa_key("other")),
    "signed by a key that it brings along": lambda fake: fake.token(
        rsa_key("other"), header={"kid": "first", "jwk": public(rsa_key("other"))}
    ),
    "signed by a key that it tells where to find": lambda fake: fake.token(
        rsa_key("other"), header={"kid": "first", "jku": fake.jwks_url}
    ),
    "signed by another algorithm than it says": lambda fake: signed(
        {**GOOD, "alg": "PS256"}, payload(fake), algorithm="RS256"
    ),
    "with another's claims": lambda fake: fake.token().replace(claims(fake), claims(fake, sub="admin")),
    "with something critical": lambda fake: signed({**GOOD, "crit": ["iss"], "iss": fake.url}, payload(fake)),
    "with something critical that is understood": lambda fake: signed({**GOOD, "crit": ["kid"]}, payload(fake)),
    "with nothing critical, which has to be said by silence": lambda fake: signed(
        {**GOOD, "crit": None}, payload(fake)
    ),
    "with unencoded claims": lambda fake: signed({**GOOD, "crit": ["b64"], "b64": False}, payload(fake)),
    "whose key id is a number": lambda fake: signed({**GOOD, "kid": 1}, payload(fake)),
    "whose algorithm is a list": lambda fake: signed({**GOOD, "alg": ["RS256"]}, payload(fake), algorithm="RS256"),
    "whose last issuer is another": lambda fake: signed(
        GOOD, payload(fake)[:-1] + b', "iss": "https://other.example"}'
    ),
    "whose end is not a number": lambda fake: signed(GOOD, payload(fake, exp=float("nan"))),
    "whose end is infinite": lambda fake: signed(GOOD, payload(fake, exp=float("inf"))),
    "whose claims are a list": lambda _: signed(GOOD, b"[]"),
    "whose claims are no JSON": lambda _: signed(GOOD, b"\xff"),
    "nested deeper than a stack": lambda _: signed(GOOD, b'{"iss":' + b"[" * 4000),
    "far too long": lambda fake: fake.token(padding="x" * 10_000),
    "of one part": lambda _: "sandbox-customer-token",
    "of five parts": lambda _: "a.b.c.d.e",
    "empty": lambda _: "",
    "of dots": lambda _: "..",
    "no ASCII": lambda fake: f"{fake.token()}é",
    "a lone surrogate": lambda fake: f"{fake.token()}\ud800",
    "with a line feed": lambda fake: f"{fake.token()}\n",
    "whose key id is an object": lambda fake: signed({**GOOD, "kid": {"first": 1}}, payload(fake)),
    "whose first issuer is another": lambda fake: signed(GOOD, b'{"iss": "x", ' + payload(fake, exp=1)[1:]),
    "without a signature": lambda fake: f"{fake.token().rpartition('.')[0]}.",
    "with half a signature": lambda fake: fake.token()[:-100],
}


@pytest.mark.parametrize("what", BAD_TOKENS)
async def test_a_token_that_is_not_good_is_refused_in_the_same_words(
    fake: FakeIssuer, tokens: TokenIssuers, what: str
) -> None:
    with pytest.raises(CallerUnauthenticated, match=r"^the access token is not good: get a new one$"):
        await principal(tokens, BAD_TOKENS[what](fake))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other", AUDIENCE]},
        {"exp": int(time.time()) + 600.5},
        {"nbf": int(time.time()) - 600},
        {"sub": None, "client_id": "checkout"},
        {"sub": None, "azp": "checkout"},
        {"sub": "", "client_id": "checkout"},
        {"act": {"nested": [{"deep": [1, None, "☃"]}]}},
    ],
)
async def test_a_token_may_say_things_in_several_ways(
    fake: FakeIssuer, tokens: TokenIssuers, claims: dict[str, Any]
) -> None:
    assert (await principal(tokens, fake.token(**claims))).name == "corp:checkout"


async def test_a_claim_that_comes_twice_counts_by_its_last_value(fake: FakeIssuer, tokens: TokenIssuers) -> None:
    """RFC 7519, section 4. It is the issuer who wrote both."""
    twice = signed(GOOD, b'{"sub": "admin", "iss": "https://other.example", ' + payload(fake)[1:])

    assert (await principal(tokens, twice)).name == "corp:checkout"


async def test_a_header_that_is_not_understood_is_no_harm(fake: FakeIssuer, tokens: TokenIssuers) -> None:
    """RFC 7515, section 4."""
    assert await is_good(tokens, fake.token(header={"nonce": "x", "typ": "at+jwt"}))


@pytest.mark.parametrize(
    ("claim", "granted"),
    [
        ("sessions:read", {Permission.READ}),
        (["sessions:write", "other"], {Permission.WRITE}),
        ("sessions:readsessions:write SESSIONS:READ", set()),
        ({"sessions:read": True}, set()),
        ([["sessions:read"], {"sessions:write": 1}, 7, None], set()),
        (7, set()),
        (None, set()),
    ],
)
async def test_permissions_are_words_or_a_list_of_strings(
    fake: FakeIssuer, tokens: TokenIssuers, claim: object, granted: set[Permission]
) -> None:
    assert (await principal(tokens, fake.token(scope=claim))).permissions == granted


@pytest.mark.parametrize(
    ("claim", "tenants"),
    [
        ("acme globex", {"acme", "globex"}),
        (["acme", 7, ["globex"]], {"acme"}),
        ({"acme": True}, set()),
        (None, set()),
        ("*", None),
        ("**", {"**"}),
    ],
)
async def test_tenants_are_words_or_a_list_of_strings(
    fake: FakeIssuer, tokens: TokenIssuers, claim: object, tenants: set[str] | None
) -> None:
    assert (await principal(tokens, fake.token(tenants=claim))).tenants == tenants


async def test_permissions_may_have_names_of_the_issuers_own(fake: FakeIssuer) -> None:
    mapped = issuer_of(fake, permissions_claim="roles", permissions={"shop-admin": Permission.WRITE})
    async with taking(mapped) as tokens:
        found = await principal(tokens, fake.token(roles=["shop-admin"], scope="sessions:read"))

    assert found.permissions == {Permission.WRITE}


async def test_the_settings_tenants_are_not_the_tokens_to_change(fake: FakeIssuer) -> None:
    async with taking(issuer_of(fake, tenants_claim=None, tenants=("globex",))) as tokens:
        assert (await principal(tokens, fake.token(tenants="*"))).tenants == frozenset({"globex"})


@given(place=st.floats(0, 1, exclude_max=True), char=st.characters(max_codepoint=0x2FF))
async def test_no_change_of_one_character_makes_another_token_good(place: float, char: str) -> None:
    """But for the last one of a part, whose unused bits joserfc refuses to be other than zero."""
    fake = FakeIssuer("https://issuer.example")
    token = fake.token()
    at = int(place * len(token))
    async with TokenIssuers([issuer_of(fake)], _answering(fake)) as tokens:
        assert await is_good(tokens, token)
        changed = f"{token[:at]}{char}{token[at + 1 :]}"
        assert await is_good(tokens, changed) == (changed == token)


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=50))
async def test_whatever_is_sent_for_a_token_is_refused(header: bytes, payload: bytes, signature: bytes) -> None:
    fake = FakeIssuer("https://issuer.example")
    async with TokenIssuers([issuer_of(fake)], _answering(fake)) as tokens:
        for each in (payload, json.dumps(fake.claims()).encode()):
            assert not await is_good(tokens, f"{unpadded(header)}.{unpadded(each)}.{unpadded(signature)}")


def _answering(fake: FakeIssuer) -> Any:
    async def fetch(_: str) -> bytes:
        return json.dumps({"keys": fake.published}).encode()

    return fetch


# Time


async def test_clocks_may_differ_by_so_much_and_no_more(fake: FakeIssuer) -> None:
    clock = Clock(1_800_000_000.0)
    times: dict[str, Any] = {"iat": None, "exp": 1_800_000_100, "nbf": 1_800_000_000}
    async with taking(issuer_of(fake, leeway=30), now=clock) as tokens:
        token = fake.token(**times)
        good = {}
        for moment in (-31, -30, 0, 129, 130):
            clock.now = 1_800_000_000.0 + moment
            good[moment] = await is_good(tokens, token)

    assert good == {-31: False, -30: True, 0: True, 129: True, 130: False}


async def test_a_token_that_is_good_has_its_signature_verified_once(
    fake: FakeIssuer, tokens: TokenIssuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError

    token = fake.token()
    assert await is_good(tokens, token)
    monkeypatch.setattr("gateway.access.tokens.deserialize_compact", fails)

    assert await is_good(tokens, token)
    assert not await is_good(tokens, fake.token(sub="another"))


async def test_a_token_that_was_good_is_refused_when_its_time_is_over(fake: FakeIssuer) -> None:
    """It is remembered that it was good, but no longer than that."""
    clock = Clock(time.time())
    async with taking(issuer_of(fake, leeway=30), now=clock) as tokens:
        token = fake.token()
        assert await is_good(tokens, token)
        clock.now += 631
        assert not await is_good(tokens, token)


# Keys: which are taken


async def test_a_token_without_a_key_id_is_taken_if_there_is_but_one_key_for_it(fake: FakeIssuer) -> None:
    nameless = rsa_key(None)
    sets: list[tuple[list[Any], bool]] = [
        ([nameless], True),
        ([nameless, ec_key()], True),
        ([nameless, rsa_key("other")], False),
    ]
    for published, good in sets:
        fake.published = [public(each) for each in published]
        async with taking(issuer_of(fake)) as tokens:
            assert await is_good(tokens, fake.token(nameless)) == good


async def test_keys_of_one_id_are_told_apart_by_the_algorithm(fake: FakeIssuer) -> None:
    fake.published = [public(rsa_key("same")), public(ec_key("same"))]
    async with taking(issuer_of(fake)) as tokens:
        assert await is_good(tokens, fake.token(ec_key("same"), "ES256"))
        assert await is_good(tokens, fake.token(rsa_key("same"), "RS256"))


async def test_a_key_for_one_algorithm_is_for_no_other(fake: FakeIssuer) -> None:
    fake.published = [public(rsa_key(), alg="RS256")]
    async with taking(issuer_of(fake, algorithms=("RS256", "PS256"))) as tokens:
        assert await is_good(tokens, fake.token())
        assert not await is_good(tokens, fake.token(algorithm="PS256"))


SECRET = OctKey.import_key("a secret of the issuer's own, which it published", {"kid": "first"})
ODD_KEYS: dict[str, Any] = {
    "for encryption": public(rsa_key(), use="enc"),
    "for other operations": public(rsa_key(), key_ops=["encrypt"]),
    "a secret": SECRET.as_dict(private=True),
    "of another kind": {"kty": "AKP", "kid": "first", "alg": "ML-DSA-44"},
    "of an unknown curve": {"kty": "EC", "kid": "first", "crv": "P-999", "x": "AA", "y": "AA"},
    "off its curve": public(ec_key("first"), x="AA"),
    "without a modulus": {"kty": "RSA", "kid": "first", "e": "AQAB"},
    "whose modulus is a number": {"kty": "RSA", "kid": "first", "e": "AQAB", "n": 7},
    "whose operations are a number": public(rsa_key(), key_ops=7),
    "whose kind is a list": {"kty": ["RSA"]},
    "a string": "RSA",
    "a number": 7,
    "null": None,
    "an object of nothing": {},
}


@pytest.mark.parametrize("what", ODD_KEYS)
async def test_a_key_that_is_of_no_use_does_not_spoil_the_others(fake: FakeIssuer, what: str) -> None:
    fake.published = [ODD_KEYS[what], public(ec_key())]
    async with taking(issuer_of(fake)) as tokens:
        assert await is_good(tokens, fake.token(ec_key(), "ES256"))
        assert not await is_good(tokens, fake.token())


@pytest.mark.parametrize("what", ["for encryption", "for other operations"])
async def test_a_key_that_is_not_for_signatures_is_none_to_choose_from(fake: FakeIssuer, what: str) -> None:
    nameless = rsa_key(None)
    fake.published = [ODD_KEYS[what], public(nameless)]
    async with taking(issuer_of(fake)) as tokens:
        assert await is_good(tokens, fake.token(nameless))


async def test_a_key_that_can_be_broken_is_not_taken(fake: FakeIssuer) -> None:
    fake.published = [public(small_rsa_key("small")), public(rsa_key())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as outside of tests, where none is an error by itself
        token = fake.token(small_rsa_key("small"))
        async with taking(issuer_of(fake)) as tokens:
            assert await is_good(tokens, fake.token())
            assert not await is_good(tokens, token)


async def test_of_a_private_key_that_was_published_the_public_half_is_taken(fake: FakeIssuer) -> None:
    published = rsa_key().as_dict(private=True)
    assert "d" in published

    key = KeySet.parse(json.dumps({"keys": [published]}).encode()).find("first", "RS256")

    assert key is not None
    assert not key.is_private


async def test_two_issuers_have_keys_of_their_own(fake: FakeIssuer) -> None:
    other = FakeIssuer(published=[public(rsa_key("other"))])
    async with issuing(other), taking(issuer_of(fake), issuer_of(other)) as tokens:
        assert await is_good(tokens, fake.token())
        assert await is_good(tokens, other.token(rsa_key("other")))
        assert not await is_good(tokens, other.token(rsa_key()))
        assert not await is_good(tokens, fake.token(rsa_key("other")))


def test_two_issuers_of_one_name_are_refused() -> None:
    fake = FakeIssuer("https://issuer.example")
    with pytest.raises(ValueError, match="two issuers"):
        TokenIssuers([issuer_of(fake), issuer_of(fake, tenants_claim=None, tenants=("*",))], _answering(fake))


@pytest.mark.parametrize("algorithms", [(), ("HS256",), ("none",), ("RS256", "HS256"), ("ES256K",)])
def test_there_are_no_other_algorithms(algorithms: tuple[str, ...]) -> None:
    fake = FakeIssuer("https://issuer.example")
    with pytest.raises(ValueError, match="algorithms"):
        TokenIssuers([issuer_of(fake, algorithms=algorithms)], _answering(fake))


# Keys: where they come from


async def test_the_discovery_document_tells_where_the_keys_are(fake: FakeIssuer) -> None:
    async with taking(issuer_of(fake, jwks_url=None)) as tokens:
        assert await is_good(tokens, fake.token())

    assert fake.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_the_discovery_document_of_an_issuer_whose_name_ends_with_a_slash(fake: FakeIssuer) -> None:
    """It goes without for that (OpenID Connect Discovery 1.0, 4), and with it for all else."""
    name = f"{fake.url}/"
    fake.discovery = {"issuer": name}
    async with taking(replace(issuer_of(fake, jwks_url=None), issuer=name)) as tokens:
        assert await is_good(tokens, fake.token(iss=name))

    assert fake.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://other.example"},
        {"jwks_uri": "http://192.0.2.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "//"},
        {"jwks_uri": 7},
        {"jwks_uri": "https://[bad"},
    ],
)
async def test_a_discovery_document_that_is_odd_brings_no_keys(fake: FakeIssuer, discovery: dict[str, object]) -> None:
    fake.discovery = discovery
    async with taking(issuer_of(fake, jwks_url=None)) as tokens:
        with pytest.raises(IssuerUnavailable, match="the issuer's keys cannot be fetched"):
            await principal(tokens, fake.token())

    assert fake.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://issuer.example/keys", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://localhost/keys", True),
        ("http://[::1]/keys", True),
        ("http://issuer.example/keys", False),
        ("http://localhost.example/keys", False),
        ("http://127.0.0.1@issuer.example/keys", False),
        ("ftp://127.0.0.1/keys", False),
        ("", False),
    ],
)
def test_keys_come_over_tls_or_from_this_machine(url: str, safe: bool) -> None:
    assert is_safe(url) == safe


async def test_keys_are_fetched_before_anybody_asks(fake: FakeIssuer) -> None:
    async with taking(issuer_of(fake)):
        await eventually(lambda: fake.fetches == 1)


async def test_a_key_that_is_new_is_fetched_once(fake: FakeIssuer) -> None:
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        assert await is_good(tokens, fake.token())
        fake.published.append(public(rsa_key("second")))
        clock.now += 10

        assert all(await asyncio.gather(*(is_good(tokens, fake.token(rsa_key("second"))) for _ in range(20))))
        assert await is_good(tokens, fake.token())

    assert fake.fetches == 2


@pytest.mark.parametrize("key_id", ["first", None])
async def test_a_key_that_is_known_is_not_fetched_again(fake: FakeIssuer, key_id: str | None) -> None:
    key, clock = rsa_key(key_id), Clock(0.0)
    fake.published = [public(key)]
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        for subject in ("one", "another", "a third"):
            assert await is_good(tokens, fake.token(key, sub=subject))
            clock.now += 100

    assert fake.fetches == 1


async def test_a_flood_of_unknown_key_ids_costs_the_issuer_a_fetch_in_ten_seconds(fake: FakeIssuer) -> None:
    clock = Clock(0.0)

    async def flood(tokens: TokenIssuers) -> None:
        made_up = (fake.token(header={"kid": f"made-up-{each}"}) for each in range(100))
        assert not any(await asyncio.gather(*(is_good(tokens, each) for each in made_up)))

    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        counts = []
        for moment in (0.0, 5.0, 9.9, 10.0, 10.1, 19.9, 20.0):
            clock.now = moment
            await flood(tokens)
            counts.append(fake.fetches)

    assert counts == [1, 1, 1, 2, 2, 2, 3]


@pytest.mark.parametrize("what", ["expired", "for another audience", "of another issuer", "unsigned", "about nobody"])
async def test_a_token_that_is_bad_anyway_has_no_keys_fetched(fake: FakeIssuer, what: str) -> None:
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        assert await is_good(tokens, fake.token())
        clock.now += 100
        header, *rest = BAD_TOKENS[what](fake).split(".")
        unknown = encoded({"alg": "none" if what == "unsigned" else "RS256", "kid": "unknown"})

        assert not await is_good(tokens, ".".join([unknown, *rest]))
        assert header != unknown

    assert fake.fetches == 1


async def test_callers_who_go_away_do_not_keep_a_new_key_from_being_fetched(fake: FakeIssuer) -> None:
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        assert await is_good(tokens, fake.token())
        fake.published.append(public(rsa_key("second")))
        clock.now += 10
        fake.held = asyncio.Event()
        gone = asyncio.ensure_future(is_good(tokens, fake.token(rsa_key("second"))))
        await eventually(lambda: fake.fetches == 2)
        gone.cancel()
        fake.held.set()

        assert await is_good(tokens, fake.token(rsa_key("second")))

    assert fake.fetches == 2


async def test_a_key_that_is_withdrawn_is_good_until_the_next_fetch_and_no_longer(fake: FakeIssuer) -> None:
    """Also for a token of which it is remembered that it was good."""
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        token = fake.token()
        assert await is_good(tokens, token)
        fake.published = [public(rsa_key("second"))]
        assert await is_good(tokens, token)
        clock.now += 10
        assert await is_good(tokens, fake.token(rsa_key("second")))
        assert not await is_good(tokens, token)


async def test_keys_are_fetched_again_and_again(fake: FakeIssuer) -> None:
    async with taking(issuer_of(fake), timing=Timing(refresh=0.01)):
        await eventually(lambda: fake.fetches >= 3)


# Issuers that are ill


async def test_an_issuer_that_is_down_at_first_is_asked_again_until_it_is_up() -> None:
    fake = FakeIssuer()
    port = free_port()
    fake.url = f"http://127.0.0.1:{port}"
    async with taking(issuer_of(fake), timing=Timing(no_sooner=0.02)) as tokens:
        with pytest.raises(IssuerUnavailable, match="the issuer's keys cannot be fetched: try again later"):
            await principal(tokens, fake.token())
        async with issuing(fake, port):
            await eventually(lambda: fake.fetches == 1)
            assert await is_good(tokens, fake.token())


async def test_a_caller_has_an_issuer_asked_that_was_down() -> None:
    fake = FakeIssuer()
    port = free_port()
    fake.url = f"http://127.0.0.1:{port}"
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        assert not await is_good(tokens, fake.token())
        async with issuing(fake, port):
            assert not await is_good(tokens, fake.token())
            clock.now += 10
            assert await is_good(tokens, fake.token())


async def test_an_issuer_that_goes_down_locks_nobody_out() -> None:
    clock = Clock(0.0)
    async with taking_from_one_that_goes_down(clock) as (tokens, fake):
        for _ in range(3):
            clock.now += 1000
            assert not await is_good(tokens, fake.token(rsa_key("second")))
            assert await is_good(tokens, fake.token())
            assert await is_good(tokens, fake.token(sub="another"))


@asynccontextmanager
async def taking_from_one_that_goes_down(clock: Clock) -> AsyncIterator[tuple[TokenIssuers, FakeIssuer]]:
    fake = FakeIssuer()
    port = free_port()
    fake.url = f"http://127.0.0.1:{port}"
    async with issuing(fake, port) as up:
        tokens = taking(issuer_of(up), timing=Timing(clock=clock))
        entered = await tokens.__aenter__()
        assert await is_good(entered, fake.token())
    try:
        yield entered, fake
    finally:
        await tokens.__aexit__(None, None, None)


NONSENSE = {
    "nothing": b"",
    "no JSON": b"<!doctype html><title>Sign in</title>",
    "a list": b"[]",
    "no keys": b'{"keys": []}',
    "keys that are a number": b'{"keys": 7}',
    "keys that are an object": b'{"keys": {"kty": "RSA"}}',
    "keys of no use": b'{"keys": [{}, 7, null]}',
    "nested deeper than a stack": b'{"keys": ' + b"[" * 100_000,
    "a thousand keys": json.dumps({"keys": [public(rsa_key("second"))] * 1000}).encode(),
    "too much": json.dumps({"keys": [public(rsa_key("second"))]}).encode() + b" " * 600_000,
    "no UTF-8": b'{"keys": "\xff"}',
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_leaves_the_keys_that_are_known(fake: FakeIssuer, what: str) -> None:
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        assert await is_good(tokens, fake.token())
        fake.body = NONSENSE[what]
        clock.now += 10
        assert not await is_good(tokens, fake.token(rsa_key("second")))
        assert await is_good(tokens, fake.token(sub="another"))
        fake.body = None
        fake.published.append(public(rsa_key("second")))
        clock.now += 10
        assert await is_good(tokens, fake.token(rsa_key("second")))

    assert fake.fetches == 3


@pytest.mark.parametrize("status", [201, 301, 401, 404, 429, 500, 503])
async def test_an_answer_that_is_no_success_leaves_the_keys_that_are_known(fake: FakeIssuer, status: int) -> None:
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock)) as tokens:
        assert await is_good(tokens, fake.token())
        fake.published = [public(rsa_key("second"))]
        fake.status = status
        clock.now += 10
        assert not await is_good(tokens, fake.token(rsa_key("second")))
        assert await is_good(tokens, fake.token())


async def test_nobody_waits_long_for_an_issuer_that_is_slow(fake: FakeIssuer) -> None:
    clock = Clock(0.0)
    async with taking(issuer_of(fake), timing=Timing(clock=clock, patience=0.5)) as tokens:
        assert await is_good(tokens, fake.token())
        clock.now += 10
        fake.held = asyncio.Event()
        async with LoopClock() as waited:
            began, by_all = waited.now(), time.monotonic()
            assert not await is_good(tokens, fake.token(rsa_key("second")))
            assert waited.now() - began < 1.5
            assert time.monotonic() - by_all > 0.4
        assert await is_good(tokens, fake.token(sub="another"))
        fake.held.set()


async def test_nobody_waits_longer_than_they_would(fake: FakeIssuer) -> None:
    fake.held = asyncio.Event()
    async with taking(issuer_of(fake), timing=Timing(patience=60)) as tokens, LoopClock() as clock:
        began = clock.now()
        assert not await is_good(tokens, fake.token(), within=0.05)
        assert not await is_good(tokens, fake.token(), within=-1)
        assert clock.now() - began < 1
        fake.held.set()


async def test_a_fetch_that_takes_too_long_is_given_up(fake: FakeIssuer) -> None:
    fake.held = asyncio.Event()
    async with taking(issuer_of(fake), timing=Timing(no_sooner=0.01), timeout=0.05) as tokens:
        await eventually(lambda: fake.fetches >= 2)
        fake.held.set()
        fake.held = None
        assert await is_good(tokens, fake.token())


# Lifetimes


@pytest.mark.parametrize("slow", [False, True])
async def test_no_task_is_left_behind(fake: FakeIssuer, slow: bool) -> None:
    before = asyncio.all_tasks()
    fake.held = asyncio.Event() if slow else None
    async with taking(issuer_of(fake), issuer_of(FakeIssuer("http://127.0.0.1:1"))) as tokens:
        waiting = asyncio.ensure_future(is_good(tokens, fake.token(header={"kid": "unknown"}), within=0.05))
        await eventually(lambda: fake.fetches == 1)
        assert any("fetch keys of corp" in each.get_name() for each in asyncio.all_tasks() - before)
        assert not await waiting
    if fake.held is not None:
        fake.held.set()

    await eventually(lambda: not {each for each in asyncio.all_tasks() - before if "keys" in each.get_name()})


async def test_an_error_passes_through_as_it_is(fake: FakeIssuer) -> None:
    with pytest.raises(LookupError, match="of the block's own"):
        async with taking(issuer_of(fake)):
            raise LookupError("of the block's own")
