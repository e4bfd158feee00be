"""Bearer tokens: what counts, and every forgery that does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from attestry.access.issuers import METHOD, Issuer, TokenHolder, read_issuers
from attestry.access.tokens import TokenError, read_token, verify_token
from attestry.aws.guard import Guard
from attestry.aws.http import Answer, Request, serve
from attestry.aws.jwks import AGAIN_SECONDS, FAILED_SECONDS, KEPT_SECONDS, STALE_SECONDS, IssuerKeys
from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.errors import InvalidInputError, UnavailableError, UnprovenIdentityError
from attestry.domain.principal import Principal
from attestry.usecases.grants import Grant, give_grant
from attestry.usecases.people import add_person
from lambdas import authenticate
from tests.fakes import FixedClock, MemoryMetaStore
from tests.versions import ACCOUNT, AT, ERIN

NOW = AT.timestamp()
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"}, private=True)
EC = ECKey.generate_key("P-256", {"kid": "ec-1"}, private=True)
OTHER = RSAKey.generate_key(2048, {"kid": "rsa-1"}, private=True)
KEYS = {key.kid: key.as_dict(private=False) for key in (RSA, EC)}
CORP = Issuer("corp", "https://login.example.com", ("attestry",), groups_claim="groups", roles={"ml": "approver", "ops": "deployer"})
POOL = Issuer("pool", "https://cognito.example.com/p", ("client-1",), audience_claim="client_id", token_use="access")
CLAIMS = {"iss": CORP.issuer, "aud": "attestry", "sub": "u-17", "iat": int(NOW), "exp": int(NOW) + 600, "groups": ["ml", "staff"]}


def sign(claims: Mapping[str, Any], key: Any = RSA, alg: str = "RS256", **header: Any) -> str:
    return jwt.encode({"alg": alg, "kid": key.kid, **header}, dict(claims), key, algorithms=[alg])


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def verify(token: str, keys: Mapping[str, Any] | None = None, now: float = NOW) -> TokenHolder:
    known = KEYS if keys is None else keys
    return verify_token(token, (CORP, POOL), lambda _issuer, kid: known.get(kid), now)


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (EC, "ES256")])
def test_a_token_of_a_configured_issuer_names_its_holder_and_the_roles_of_their_groups(key: Any, alg: str) -> None:
    holder = verify(sign(CLAIMS, key, alg))
    assert (holder.login, holder.roles, holder.walled) == ("oidc:corp:u-17", ("approver",), True)
    assert TokenHolder.from_context(holder.to_context(), now=NOW) == holder


def test_a_token_of_cognito_counts_by_its_use_and_its_client() -> None:
    claims = {**CLAIMS, "iss": POOL.issuer, "client_id": "client-1", "token_use": "access"}
    del claims["aud"]
    assert verify(sign(claims)).login == "oidc:pool:u-17"
    for wrong in ({"token_use": "id"}, {"client_id": "client-2"}, {"client_id": None}):
        with pytest.raises(TokenError):
            verify(sign({**claims, **wrong}))


def signed_with_the_public_key() -> str:
    """HS256 with the RSA key's public PEM for a secret, the oldest trick."""
    head = part({"alg": "HS256", "kid": "rsa-1"}) + "." + part(CLAIMS)
    mac = hmac.new(RSA.as_pem(private=False), head.encode(), hashlib.sha256).digest()
    return head + "." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def changed_payload() -> str:
    head, _, signature = sign(CLAIMS).split(".")
    return f"{head}.{part({**CLAIMS, 'groups': ['ml', 'ops']})}.{signature}"


FORGERIES: dict[str, Callable[[], str]] = {
    "no token": lambda: "",
    "two parts": lambda: "a.b",
    "no JSON": lambda: "e30.e30x.e30",
    "alg none": lambda: f"{part({'alg': 'none', 'kid': 'rsa-1'})}.{part(CLAIMS)}.",
    "alg None in other letters": lambda: f"{part({'alg': 'nOnE', 'kid': 'rsa-1'})}.{part(CLAIMS)}.",
    "HS256 with the public key": signed_with_the_public_key,
    "RS512, which is not allowed": lambda: sign(CLAIMS, alg="RS512"),
    "another payload": changed_payload,
    "signature cut off": lambda: sign(CLAIMS).rpartition(".")[0] + ".",
    "another key under the same ID": lambda: sign(CLAIMS, OTHER),
    "unknown key": lambda: sign(CLAIMS, RSAKey.generate_key(2048, {"kid": "rsa-2"}, private=True)),
    "no key ID": lambda: jwt.encode({"alg": "RS256"}, dict(CLAIMS), RSA),
    "its own key in the header": lambda: sign(CLAIMS, OTHER, jwk=OTHER.as_dict(private=False)),
    "RSA's header over the EC key": lambda: sign(CLAIMS, RSA, kid="ec-1"),
    "conditions": lambda: f"{part({'alg': 'RS256', 'kid': 'rsa-1', 'crit': ['b64'], 'b64': True})}.{part(CLAIMS)}.AAAA",
    "foreign issuer": lambda: sign({**CLAIMS, "iss": "https://evil.example.com"}),
    "issuer with a slash more": lambda: sign({**CLAIMS, "iss": CORP.issuer + "/"}),
    "issuer as a list": lambda: sign({**CLAIMS, "iss": [CORP.issuer]}),
    "foreign audience": lambda: sign({**CLAIMS, "aud": "payroll"}),
    "no audience": lambda: sign({k: v for k, v in CLAIMS.items() if k != "aud"}),
    "expired": lambda: sign({**CLAIMS, "exp": int(NOW) - 61}),
    "a life of more than a day": lambda: sign({**CLAIMS, "exp": int(NOW) + 24 * 3600 + 61}),
    "no end": lambda: sign({k: v for k, v in CLAIMS.items() if k != "exp"}),
    "end as a text": lambda: sign({**CLAIMS, "exp": "9999999999"}),
    "end as true": lambda: sign({**CLAIMS, "exp": True}),
    "not yet": lambda: sign({**CLAIMS, "nbf": int(NOW) + 120}),
    "issued in the future": lambda: sign({**CLAIMS, "iat": int(NOW) + 120}),
    "no subject": lambda: sign({k: v for k, v in CLAIMS.items() if k != "sub"}),
    "subject with a line break": lambda: sign({**CLAIMS, "sub": "u-17\nadmin"}),
    "subject as a number": lambda: sign({**CLAIMS, "sub": 17}),
    "endless subject": lambda: sign({**CLAIMS, "sub": "u" * 201}),
    "doubled claim": lambda: ".".join(
        (
            sign(CLAIMS).split(".")[0],
            base64.urlsafe_b64encode(b'{"iss":"x","iss":"' + CORP.issuer.encode() + b'"}').decode().rstrip("="),
            "AA",
        )
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_no_token_of_an_issuer_for_us_is_refused(name: str) -> None:
    with pytest.raises(TokenError):
        verify(FORGERIES[name]())


def test_a_key_of_another_issuer_signs_nothing_for_this_one() -> None:
    def keys(issuer: Issuer, kid: str) -> Mapping[str, Any] | None:
        return KEYS.get(kid) if issuer is POOL else None

    with pytest.raises(TokenError):
        verify_token(sign(CLAIMS), (CORP, POOL), keys, NOW)


def test_a_clock_may_be_a_minute_off_and_no_more() -> None:
    assert verify(sign({**CLAIMS, "exp": int(NOW) - 59, "iat": int(NOW) + 59}))


def test_a_token_may_live_for_a_day() -> None:
    assert verify(sign({**CLAIMS, "exp": int(NOW) + 24 * 3600 + 60}))


def test_a_token_has_no_groups_that_its_issuer_was_not_configured_for() -> None:
    assert verify(sign({**CLAIMS, "groups": ["admin", 7, None]})).roles == ()
    assert verify(sign({**CLAIMS, "groups": "ops"})).roles == ("deployer",)
    assert verify(sign({**CLAIMS, "iss": POOL.issuer, "client_id": "client-1", "token_use": "access"})).walled is False


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic abc", "Bearer a b", "AWS4-HMAC-SHA256 Credential=x", "Bearer " + "a" * 20_000, "Bearer ü"]
)
def test_a_header_that_carries_no_bearer_token_is_refused(header: str) -> None:
    with pytest.raises(TokenError):
        read_token(header)


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "http://login.example.com"},
        {"jwks_uri": "ftp://login.example.com/keys"},
        {"alias": "Corp"},
        {"audiences": []},
        {"roles": {"ml": "superuser"}},
        {"groups_claim": ""},
        {"secret": "x"},
    ],
)
def test_an_issuer_that_is_configured_badly_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        read_issuers([{**CORP.to_item(), **change}])


def test_an_issuer_is_described_once() -> None:
    with pytest.raises(InvalidInputError):
        read_issuers([CORP.to_item(), {**CORP.to_item(), "alias": "again"}])


class Site:
    """An issuer's site, with the documents that it serves."""

    def __init__(self) -> None:
        self.now, self.asked = 0.0, list[str]()
        self.answers: dict[str, Any] = {
            f"{CORP.issuer}/.well-known/openid-configuration": {"issuer": CORP.issuer, "jwks_uri": f"{CORP.issuer}/keys"},
            f"{CORP.issuer}/keys": {"keys": [KEYS["rsa-1"]]},
        }
        self.keys = IssuerKeys(self.read, lambda: self.now)

    def read(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.answers:
            raise UnavailableError("no answer")
        return json.dumps(self.answers[url]).encode()


class TestKeys:
    """Where keys come from, and for how long."""

    def test_keys_are_found_by_discovery_and_kept(self) -> None:
        site = Site()
        assert site.keys.find(CORP, "rsa-1") == KEYS["rsa-1"]
        site.now = KEPT_SECONDS - 1
        site.keys.find(CORP, "rsa-1")
        assert len(site.asked) == 2

    def test_a_rotated_key_is_found_and_made_up_ones_cost_two_requests_a_minute(self) -> None:
        site = Site()
        site.keys.find(CORP, "rsa-1")
        site.answers[f"{CORP.issuer}/keys"] = {"keys": [KEYS["ec-1"]]}
        assert site.keys.find(CORP, "ec-1") is None
        site.now += AGAIN_SECONDS
        assert site.keys.find(CORP, "ec-1") == KEYS["ec-1"]
        assert site.keys.find(CORP, "rsa-1") is None
        before = len(site.asked)
        for number in range(50):
            site.keys.find(CORP, f"made-up-{number}")
        assert len(site.asked) == before

    def test_while_an_issuer_is_silent_what_was_read_counts_for_an_hour(self) -> None:
        site = Site()
        site.keys.find(CORP, "rsa-1")
        site.answers.clear()
        site.now = STALE_SECONDS - 1
        assert site.keys.find(CORP, "rsa-1") == KEYS["rsa-1"]
        site.now = STALE_SECONDS + AGAIN_SECONDS
        with pytest.raises(UnavailableError):
            site.keys.find(CORP, "rsa-1")

    def test_an_issuer_that_never_answered_is_asked_every_five_seconds_however_many_tokens_come(self) -> None:
        site = Site()
        site.answers.clear()
        for number in range(50):
            site.now = number / 50 * FAILED_SECONDS
            with pytest.raises(UnavailableError):
                site.keys.find(CORP, f"made-up-{number}")
        assert len(site.asked) == 1
        site.now = FAILED_SECONDS
        site.answers.update(Site().answers)
        assert site.keys.find(CORP, "rsa-1") == KEYS["rsa-1"]

    @pytest.mark.parametrize(
        "told", [{"issuer": "https://evil.example.com", "jwks_uri": "https://x"}, {"issuer": CORP.issuer, "jwks_uri": "http://x/keys"}, []]
    )
    def test_a_discovery_document_of_somebody_else_is_not_believed(self, told: Any) -> None:
        site = Site()
        site.answers[f"{CORP.issuer}/.well-known/openid-configuration"] = told
        with pytest.raises(UnavailableError):
            site.keys.find(CORP, "rsa-1")


class TestTheGate:
    """A token's holder at the gate of the API."""

    def context(self, **changes: str) -> dict[str, Any]:
        told = {**verify(sign(CLAIMS)).to_context(), **changes}
        return {"requestId": "r", "http": {"sourceIp": "192.0.2.9"}, "authorizer": {"lambda": told}}

    def ask(self, meta: MemoryMetaStore, route: str, context: dict[str, Any], at: Any = AT) -> tuple[int, list[Principal]]:
        seen: list[Principal] = []

        def act(request: Request) -> Answer:
            assert request.principal
            seen.append(request.principal)
            return Answer({})

        method, path = route.split(" ")
        event = {"routeKey": f"{method} /oidc{path}", "pathParameters": {"model": "a", "number": "1"}, "requestContext": context}
        guard = Guard(meta, FixedClock(at), account=ACCOUNT, prefix="attestry")
        return serve(event, None, {route: act}, guard=guard)["statusCode"], seen

    DECIDE = "POST /v1/models/{model}/versions/{number}/decision"

    def test_the_same_route_is_decided_on_by_the_same_policies(self) -> None:
        status, (principal,) = self.ask(MemoryMetaStore(), self.DECIDE, self.context())
        assert (status, principal.login, principal.roles, principal.method) == (200, "oidc:corp:u-17", ("approver",), METHOD)
        assert (principal.address, principal.subject) == ("192.0.2.9", f"{CORP.issuer}#u-17")
        assert self.ask(MemoryMetaStore(), "POST /v1/people", self.context())[0] == 403

    def test_both_logins_of_one_human_are_one_person_with_the_same_grants(self) -> None:
        meta = MemoryMetaStore()
        add_person(meta, "erin", ["erin", "oidc:corp:u-17"], name="", by=ERIN, at=AT)
        assert self.ask(meta, self.DECIDE, self.context())[1][0].person == "erin"
        give_grant(meta, "person/erin", Grant("approver", "model/b"), reason="x", by=ERIN.as_person("ada"), at=AT)
        assert self.ask(meta, self.DECIDE, self.context())[0] == 403

    def test_a_token_that_ended_while_the_gateway_kept_the_answer_lets_nobody_in(self) -> None:
        assert self.ask(MemoryMetaStore(), self.DECIDE, self.context(expires=str(int(NOW))))[0] == 403

    @pytest.mark.parametrize(
        "change", [{"login": "erin"}, {"login": "oidc:other:u-17"}, {"roles": '["root"]'}, {"walled": "2"}, {"expires": "soon"}]
    )
    def test_what_the_authorizer_did_not_write_is_refused(self, change: dict[str, str]) -> None:
        with pytest.raises(UnprovenIdentityError):
            TokenHolder.from_context({**verify(sign(CLAIMS)).to_context(), **change}, now=NOW)
        assert self.ask(MemoryMetaStore(), self.DECIDE, self.context(**change))[0] == 403

    def test_who_comes_with_both_kinds_of_identity_has_none(self) -> None:
        context = self.context()
        arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-admin/ada"
        context["authorizer"]["iam"] = {"userArn": arn, "userId": "AROA:ada"}
        assert self.ask(MemoryMetaStore(), self.DECIDE, context)[0] == 403


class TestTheAuthorizer:
    """The function that the gateway asks."""

    @pytest.fixture
    def world(self, monkeypatch: pytest.MonkeyPatch) -> World:
        setting = {**CORP.to_item(), "jwks": {"keys": list(KEYS.values())}}
        world = World(Settings({"ATTESTRY_ACCOUNT": ACCOUNT, "ATTESTRY_OIDC": json.dumps([setting])}))
        vars(world).update(meta=MemoryMetaStore(), clock=FixedClock(AT))
        monkeypatch.setattr(authenticate, "world", world)
        return world

    def call(self, header: str | None) -> dict[str, Any]:
        headers = {"authorization": header} if header is not None else {}
        event = {"routeKey": "GET /oidc/v1/me", "headers": headers, "requestContext": {"http": {"sourceIp": "192.0.2.9"}}}
        return authenticate.handler(event, None)

    def test_a_good_token_is_let_and_its_holder_told_to_the_gateway(self, world: World) -> None:
        answer = self.call(f"Bearer {sign(CLAIMS)}")
        assert answer["isAuthorized"] is True
        assert answer["context"]["login"] == "oidc:corp:u-17"
        assert all(isinstance(value, str) for value in answer["context"].values())
        assert not world.meta.rows  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", FORGERIES)
    def test_a_forged_one_is_refused_and_leaves_a_note_without_the_token(self, world: World, name: str) -> None:
        token = FORGERIES[name]()
        assert self.call(f"Bearer {token}") == {"isAuthorized": False}
        (row,) = world.meta.rows.values()  # type: ignore[attr-defined]
        assert (row["act"], row["outcome"], row["principal"]["address"]) == ("token", "denied", "192.0.2.9")
        assert len(token) < 10 or token not in json.dumps(row, default=str)

    def test_no_header_at_all_is_refused(self, world: World) -> None:
        assert self.call(None) == {"isAuthorized": False}
        assert len(world.meta.rows) == 1  # type: ignore[attr-defined]
