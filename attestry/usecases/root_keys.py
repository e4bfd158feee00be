"""The public keys that a deployment signs with, so that the holders of the root keys can compare them and sign them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from attestry.domain.errors import InvalidInputError
from attestry.evidence.canonical import parse_strict
from attestry.evidence.note import Algorithm, parse_vkey
from attestry.evidence.trusted_root import MAY_SIGN, TrustedKey, details_of, ed25519_der, own_account

_ALWAYS: Final = "0001-01-01T00:00:00.000000Z"
"""The windows are the key holders' to say."""

_USES: Final = {"sequence": "tlogs", "delegate": "delegators", "sign_artifact": "artifactSigners"}

_ORDER: Final = ("tlogs", "witnesses", "delegators", "signers", "artifactSigners")

ReadKey = Callable[[str], bytes]
"""Returns the SubjectPublicKeyInfo (DER) of the key with an ARN."""


def deployed_keys(origin: str, keys: str, witnesses: str, read: ReadKey) -> list[dict[str, Any]]:
    """Return every key that the deployment signs with, in the order of the trusted root.

    Args:
        origin: the ledger's origin.
        keys: JSON, function to the ARN of its key.
        witnesses: JSON, list of `{"name", "function", "vkey", "outside"}`; the built-in witness has no vkey, its key is in `keys`.
        read: gives a public key.

    Returns:
        For each key `use` (`tlogs`, `witnesses`, `delegators`, `signers`, `artifactSigners`), `name`, `key_id`, `outside`, `der` (base64)
        and `fingerprint`.

    Raises:
        InvalidInputError: the settings are out of form, or a key is of another kind than its use takes.
    """
    arns = parse_strict(keys)
    listed = parse_strict(witnesses)
    if not isinstance(arns, dict) or not isinstance(listed, list):
        raise InvalidInputError.of("keys", "type", "an object of keys and a list of witnesses are needed")
    found: list[tuple[str, TrustedKey]] = []
    for function, arn in sorted(arns.items()):
        if function in _USES or function in MAY_SIGN:
            found.append(_of_function(function, str(arn), origin, read(str(arn))))
        elif function != "witness":
            raise InvalidInputError.of(f"keys.{function}", "function", "no function whose key a trusted root names")
    for witness in listed:
        der = _vkey_der(witness) if witness.get("vkey") else read(str(arns["witness"]))
        found.append(("witnesses", _key(str(witness["name"]), "", der, outside=_is_outside(witness, origin))))
    return [_told(use, key) for use, key in sorted(found, key=lambda f: (_ORDER.index(f[0]), f[1].name))]


def _of_function(function: str, arn: str, origin: str, der: bytes) -> tuple[str, TrustedKey]:
    use = _USES.get(function, "signers")
    if use == "tlogs":
        return use, _key(origin, "", der)
    return use, _key(function if use == "signers" else "", arn, der)


def _key(name: str, key_id: str, der: bytes, *, outside: bool = False) -> TrustedKey:
    return TrustedKey(name, key_id, details_of(der), der, _ALWAYS, None, outside)


def _vkey_der(witness: Mapping[str, Any]) -> bytes:
    verifier = parse_vkey(str(witness["vkey"]))
    if verifier.name != witness["name"] or verifier.algorithm is not Algorithm.COSIGNATURE:
        raise InvalidInputError.of("witnesses", "vkey", f"the vkey of {witness['name']} is not one of a witness of that name")
    return ed25519_der(verifier.public_key)


def _is_outside(witness: Mapping[str, Any], origin: str) -> bool:
    """Return whether the witness stands elsewhere; one in the registry's own account never does, whatever the settings say."""
    own = own_account(origin)
    account = own.split("/")[1] if own.count("/") > 1 else ""
    function = str(witness.get("function", "")).split(":")
    shares = f"{witness['name']}/".startswith(own) or (len(function) > 4 and function[4] == account)
    return witness.get("outside") is True and not shares


def _told(use: str, key: TrustedKey) -> dict[str, Any]:
    return {
        "use": use,
        "name": key.name,
        "key_id": key.key_id,
        "outside": key.outside,
        "der": base64.b64encode(key.der).decode(),
        "fingerprint": key.fingerprint,
    }
