"""Receipts: the signed record of one prediction.

A receipt is a compact JWS (RFC 7515), `alg=Ed25519` (RFC 9864), `typ=prediction+jws`, `kid` = the key ID of the
delegation under which its key signs. Its claims:

| claim | value |
|---|---|
| prediction_id | `<key ID>-<sequence>` |
| time_ms | milliseconds since 1970, by the signing process; never decreases under one key |
| version | the version: `urn:attestry:<model>:<number>:sha256:<version digest>` |
| sequence | 1, 2, 3, ... under one key; a gap shows a prediction that is withheld |
| request_sha256 | SHA-256 over 16 bytes of salt and the request's bytes; the salt is kept beside the receipt |
| output or output_sha256 | the output's text where it is at most 4 KiB, or else the SHA-256 of its bytes |

Rules:
- The output is signed as the text that was emitted; it is never parsed and written anew, so no float changes.
- The output is JSON (RFC 8259) without NaN and infinities; anything else is not signed.
- The salt goes to the caller, but not into the receipt: who has the receipt alone cannot find the request by
  trying, and once salt and payload are erased the receipt says nothing about a person.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import parse_strict
from attestry.evidence.compact_jws import encode_segment, read_unverified, require_types, verify
from attestry.evidence.delegation import Delegation, jwk_of
from attestry.evidence.digests import is_sha256
from attestry.evidence.prediction_id import PredictionId
from attestry.evidence.version_urn import VersionUrn

TYPE = "prediction+jws"
ALGORITHM = "Ed25519"
MAX_INLINE_OUTPUT_BYTES = 4096
SALT_BYTES = 16

_CLAIMS = {"prediction_id": str, "time_ms": int, "version": str, "sequence": int, "request_sha256": str}


@dataclass(frozen=True)
class Receipt:
    """A receipt, as its writer emitted or its verifier accepted it.

    Attributes:
        token: the compact JWS.
        prediction_id: the prediction.
        time_ms: milliseconds since 1970.
        version: the version that made it.
        request_sha256: salted digest of the request, hex.
        output: the output's text; None where only the digest was signed.
        output_sha256: SHA-256 of the output's bytes, hex.
    """

    token: str
    prediction_id: PredictionId
    time_ms: int
    version: VersionUrn
    request_sha256: str
    output: str | None
    output_sha256: str


@dataclass(frozen=True)
class EmittedReceipt:
    """What signing gives.

    Attributes:
        token: the compact JWS.
        prediction_id: the prediction's ID.
        salt: hex of the salt of the request's digest, for the caller and the row beside the receipt.
    """

    token: str
    prediction_id: str
    salt: str


class ReceiptWriter:
    """Emits the receipts of one key.

    The token is put together here and not by joserfc: the protected header is the same for all receipts of a key,
    joserfc's import would be a fifth of a second of every cold start, and its checks of our own header a third of the
    signing time. The tests hold each token against joserfc's, byte for byte.
    """

    def __init__(self, sign: Callable[[bytes], bytes], *, kid: str, version: VersionUrn) -> None:
        """Prepare what all receipts share.

        Args:
            sign: returns the 64-byte Ed25519 signature (RFC 8032) of a message.
            kid: the key ID.
            version: the only version that this writer signs for.
        """
        self._sign = sign
        self._kid = kid
        header = json.dumps({"alg": ALGORITHM, "typ": TYPE, "kid": kid}, separators=(",", ":")).encode()
        self._start = encode_segment(header) + b"."
        self._version = f'"version":{json.dumps(str(version))}'

    def emit(self, *, sequence: int, time_ms: int, request: bytes, output: bytes) -> EmittedReceipt:
        """Sign one prediction.

        Args:
            sequence: number of the prediction under this key, from 1.
            time_ms: milliseconds since 1970.
            request: the request's bytes as they arrived.
            output: the output's bytes as they will be emitted: JSON in UTF-8.

        Raises:
            InvalidInputError: the output is no JSON, or holds NaN or an infinity.
        """
        parse_strict(output)
        salt = os.urandom(SALT_BYTES)
        if len(output) <= MAX_INLINE_OUTPUT_BYTES:
            what = f'"output":{json.dumps(output.decode())}'
        else:
            what = f'"output_sha256":"{hashlib.sha256(output).hexdigest()}"'
        prediction_id = f"{self._kid}-{sequence}"
        claims = (
            f'{{"prediction_id":"{prediction_id}","time_ms":{time_ms},{self._version},"sequence":{sequence},'
            f'"request_sha256":"{salted_digest(salt, request)}",{what}}}'
        )
        signing_input = self._start + encode_segment(claims.encode())
        token = signing_input + b"." + encode_segment(self._sign(signing_input))
        return EmittedReceipt(token.decode(), prediction_id, salt.hex())


def salted_digest(salt: bytes, request: bytes) -> str:
    """Return SHA-256 over the salt followed by the request's bytes, hex."""
    return hashlib.sha256(salt + request).hexdigest()


def verify_receipt(token: str, delegation: Delegation) -> Receipt:
    """Verify a receipt under a delegation that was verified before.

    Args:
        token: the compact JWS.
        delegation: the verified delegation of its key.

    Raises:
        IntegrityError: not a receipt of this delegation's key, a claim breaks a rule, it speaks of another version, or
            it was signed outside the time for which the key was delegated.
    """
    from joserfc.jwk import OKPKey

    kid, grant = delegation.kid, delegation.grant
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": kid}
    claims = verify(token, OKPKey.import_key(dict(jwk_of(grant.public_key))), name="receipt", header=header)
    receipt = _receipt_of(token, claims)
    if receipt.prediction_id.kid != kid:
        raise IntegrityError("the receipt names the prediction of another key")
    if receipt.version != grant.version:
        raise IntegrityError("the receipt speaks of a version that its key may not sign for")
    if not grant.not_before * 1000 <= receipt.time_ms < grant.expires * 1000:
        raise IntegrityError("the receipt was signed outside the time for which its key was delegated")
    return receipt


def unverified_prediction_id(token: str) -> PredictionId:
    """Return the ID that a receipt claims, to find the delegation to verify it with; nothing else may rest on it.

    Raises:
        IntegrityError: this is no receipt.
    """
    parts = read_unverified(token, name="receipt")
    try:
        claims = parse_strict(parts.payload)
        return PredictionId.parse(str(claims.get("prediction_id")) if isinstance(claims, dict) else "")
    except InvalidInputError as error:
        raise IntegrityError(f"this is no receipt: {error.message}") from error


def check_request(receipt: Receipt, salt: str, request: bytes) -> None:
    """Check that a request is the one that a receipt was given for.

    Args:
        receipt: the verified receipt.
        salt: hex, from the row or from the answer to the caller.
        request: the request's bytes.

    Raises:
        IntegrityError: it is another.
    """
    try:
        raw = bytes.fromhex(salt)
    except ValueError as error:
        raise IntegrityError("the salt is no hex") from error
    if len(raw) != SALT_BYTES or not hmac.compare_digest(salted_digest(raw, request), receipt.request_sha256):
        raise IntegrityError("the request is not the one that the receipt was given for")


def check_output(receipt: Receipt, output: bytes) -> None:
    """Check that an output is the one that a receipt was given for.

    Raises:
        IntegrityError: it is another.
    """
    if hashlib.sha256(output).hexdigest() != receipt.output_sha256:
        raise IntegrityError("the output is not the one that the receipt was given for")


def _receipt_of(token: str, claims: dict[str, Any]) -> Receipt:
    output = "output" if "output" in claims else "output_sha256"
    require_types(claims, {**_CLAIMS, output: str}, name="receipt")
    try:
        prediction_id = PredictionId.parse(claims["prediction_id"])
        version = VersionUrn.parse(claims["version"])
        text = claims.get("output")
        encoded = None if text is None else text.encode()
    except (InvalidInputError, UnicodeEncodeError) as error:
        raise IntegrityError(f"the receipt is malformed: {error}") from error
    digest = claims["output_sha256"] if encoded is None else hashlib.sha256(encoded).hexdigest()
    if prediction_id.sequence != claims["sequence"]:
        raise IntegrityError("the receipt's sequence number is not that of its prediction ID")
    if not is_sha256(claims["request_sha256"]) or not is_sha256(digest):
        raise IntegrityError("the receipt holds a digest that is none")
    if encoded is not None and len(encoded) > MAX_INLINE_OUTPUT_BYTES:
        raise IntegrityError("the receipt holds an output that is longer than its digest is for")
    return Receipt(token, prediction_id, claims["time_ms"], version, claims["request_sha256"], text, digest)
