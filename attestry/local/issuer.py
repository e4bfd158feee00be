"""A stand-in for an identity provider: signs bearer tokens for the local people.

It is a key in the data directory and nothing that anybody could sign in to: whoever may read the key is whoever they like. It exists so
that the way of bearer tokens, and all that is checked on it, works on one machine as it does behind a real provider.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey

from attestry.access.issuers import Issuer
from attestry.domain.principal import ROLES
from attestry.local.settings import DataDirectory, write_private

if TYPE_CHECKING:
    from attestry.local.deploy import Services

ALIAS: Final = "local"
ISSUER: Final = "http://localhost/attestry-stand-in"
AUDIENCE: Final = "attestry"
FUNCTION: Final = "attestry-authenticate"
VARIABLE: Final = "ATTESTRY_OIDC"
TOKEN_SECONDS: Final = 3600


def setting(keys: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the stand-in as the authorizer's setting names an issuer; without keys no token counts."""
    roles = {role: role for role in ROLES}
    return Issuer(ALIAS, ISSUER, (AUDIENCE,), groups_claim="groups", roles=roles, jwks={"keys": list(keys)}).to_item()


def install(services: Services, data: DataDirectory) -> None:
    """Tell the authorizer the stand-in's public key, which the template cannot know; the same again changes nothing."""
    client = services.client("lambda")
    variables = client.get_function_configuration(FunctionName=FUNCTION)["Environment"]["Variables"]
    wanted = json.dumps([setting([_key(data).as_dict(private=False)])])
    if variables.get(VARIABLE) != wanted:
        client.update_function_configuration(FunctionName=FUNCTION, Environment={"Variables": {**variables, VARIABLE: wanted}})


def issue(data: DataDirectory, login: str, roles: Sequence[str], *, seconds: int = TOKEN_SECONDS, **changes: Any) -> str:
    """Return a token.

    Args:
        data: the data directory, which holds the key.
        login: `sub` of the token; the registry's login is `oidc:local:<login>`.
        roles: groups of the token, each a role of the registry.
        seconds: how long it lives.
        changes: claims to set otherwise, for tests.
    """
    key, now = _key(data), int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": login, "groups": list(roles), "iat": now, "exp": now + seconds, **changes}
    return jwt.encode({"alg": "ES256", "kid": key.kid}, {**claims, "jti": secrets.token_hex(8)}, key)


def _key(data: DataDirectory) -> ECKey:
    """Return the stand-in's key, made when it is first asked for."""
    if not data.token_key.exists():
        made = ECKey.generate_key("P-256", {"kid": f"local-{secrets.token_hex(4)}", "use": "sig"}, private=True)
        write_private(data.token_key, json.dumps(made.as_dict(private=True)))
    return ECKey.import_key(json.loads(data.token_key.read_text(encoding="utf-8")))
