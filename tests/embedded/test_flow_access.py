"""Who may do what on the embedded AWS: both trees of the API, and forged tokens."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from attestry.client.api import RegistryClient
from attestry.client.errors import ApiError
from attestry.local.issuer import AUDIENCE, ISSUER, issue
from tests.embedded.flows import Registry

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]


def by_token(registry: Registry, token: str) -> RegistryClient:
    return RegistryClient(registry.session("root"), registry.stack.api_url, token=token)


def raw(registry: Registry, path: str, headers: dict[str, str]) -> int:
    request = urllib.request.Request(registry.stack.api_url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_token_opens_the_same_operations_as_a_signature(registry: Registry) -> None:
    me = by_token(registry, issue(registry.stack.data, "olga", ["auditor"])).whoami()
    assert (me["login"], me["roles"], me["method"], me["person"]) == ("oidc:local:olga", ["auditor"], "OIDC bearer token", None)
    assert me["access"] == {"governed": False, "scopes": {"auditor": ["registry"]}}
    with pytest.raises(ApiError) as caught:
        by_token(registry, issue(registry.stack.data, "olga", ["auditor"])).add_person("mallory", ["mallory"])
    assert (caught.value.status, caught.value.code) == (403, "forbidden")


def test_forged_tokens_open_nothing(registry: Registry) -> None:
    other = ECKey.generate_key("P-256", {"kid": "local-00000000"}, private=True)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "admin", "groups": ["admin"], "exp": 9_999_999_999}
    good = issue(registry.stack.data, "admin", ["admin"])
    head, _, signature = good.split(".")
    changed = jwt.encode({"alg": "ES256", "kid": other.kid}, claims, other).split(".")[1]
    forged = {
        "another key": jwt.encode({"alg": "ES256", "kid": other.kid}, claims, other),
        "another payload": f"{head}.{changed}.{signature}",
        "another audience": issue(registry.stack.data, "admin", ["admin"], aud="payroll"),
        "expired": issue(registry.stack.data, "admin", ["admin"], seconds=-120),
        "none": "eyJhbGciOiJub25lIn0." + changed + ".",
    }
    for path in ("/v1/me", "/api/2.0/mlflow/registered-models/search"):
        told = {name: raw(registry, f"/oidc{path}", {"Authorization": f"Bearer {token}"}) for name, token in forged.items()}
        assert told == dict.fromkeys(forged, 403)
        assert raw(registry, f"/oidc{path}", {}) == 401
        assert raw(registry, f"/oidc{path}", {"Authorization": f"Bearer {good}"}) == 200
        # The tree of signatures takes no token, and the one of tokens no signature.
        assert raw(registry, path, {"Authorization": f"Bearer {good}"}) == 403
        assert registry.call("admin", "GET", f"/oidc{path}").status == 403


def test_the_routes_in_force_are_those_of_the_template_s_document(registry: Registry) -> None:
    parity = registry.stack.parity
    assert [(one.part, one.reason) for one in parity.differences if one.type == "AWS::ApiGatewayV2::Api" and one.part == "Body"] == []
    assert parity.compared


def test_every_option_is_there_by_token_at_once(registry: Registry) -> None:
    """Webhooks, batch scoring, the description and the root of trust: nothing of the API is for signatures alone."""
    admin = by_token(registry, issue(registry.stack.data, "olga", ["admin"]))
    assert admin.get("/v1/openapi.json")["openapi"].startswith("3.1")
    assert isinstance(admin.get("/v1/webhooks")["webhooks"], list)
    assert admin.get("/v1/root/keys")["keys"]
    consumer = by_token(registry, issue(registry.stack.data, "otto", ["consumer"]))
    with pytest.raises(ApiError) as caught:
        consumer.post("/v1/models/no-such-model/scorings", {})
    assert not caught.value.by_gateway
