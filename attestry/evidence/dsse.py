"""Envelopes: DSSE v1 with exactly one ES256 signature, made and checked by `securesystemslib`.

    {"payload":"<base64>","payloadType":"<media type>","signatures":[{"keyid":"<hex>","sig":"<base64 of DER>"}]}

Rules:
- The file is compact JSON with sorted names, as `sign_envelope` writes it; any other spelling of the same content is refused, so that an
  envelope has one digest.
- There is exactly one signature. Its `keyid` is SHA-256 of the key's SubjectPublicKeyInfo in DER, so it names one key.
- The payload's type is signed with the payload and is the one that the reader asks for: a payload never passes for one of another type.

Standard: https://github.com/secure-systems-lab/dsse/blob/master/envelope.md. Importing this module imports `securesystemslib` (and boto3
with it, where that is installed), so functions import it when they first sign.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from securesystemslib.dsse import Envelope as _Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, SecretsHandler, Signature, SSlibKey
from securesystemslib.signer import Signer as _Signer

from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.canonical import canonical_bytes, parse_canonical
from attestry.evidence.digests import is_sha256
from attestry.evidence.statement import PAYLOAD_TYPE
from attestry.ports import Signer

MAX_ENVELOPE_BYTES = 1024 * 1024

_P256_BYTES = 32


@dataclass(frozen=True)
class Envelope:
    """An envelope as it was read: nothing of it is verified.

    Attributes:
        payload: the bytes.
        payload_type: media type that the envelope claims.
        keyid: SHA-256 of the SubjectPublicKeyInfo of the key that it claims, hex.
        signature: ECDSA signature in DER.
    """

    payload: bytes
    payload_type: str
    keyid: str
    signature: bytes


def key_id(public_key_der: bytes) -> str:
    """Return the name of a key in envelopes: SHA-256 of its SubjectPublicKeyInfo in DER, hex."""
    return hashlib.sha256(public_key_der).hexdigest()


def sign_envelope(payload: bytes, signer: Signer, *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return the envelope's file with one signature by the key, checked against the key's public half.

    Raises:
        IntegrityError: the signature is not one of the public key that the signer names, for example because its alias was moved.
        InvalidInputError: the key is not on P-256, or the envelope is too large.
        UnavailableError: the key could not be used.
    """
    envelope = _Envelope(payload, payload_type, {})
    envelope.sign(_PortSigner(signer))
    data = canonical_bytes(envelope.to_dict())
    verify_envelope(data, signer.public_key_der(), payload_type=payload_type)
    return data


def read_envelope(data: bytes) -> Envelope:
    """Return what an envelope claims, to look up the key that has to verify it.

    Raises:
        InvalidInputError: not an envelope as `sign_envelope` writes it.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise InvalidInputError.of("", "size", f"the envelope has {len(data)} bytes; the limit is {MAX_ENVELOPE_BYTES}")
    body = _fields(parse_canonical(data), {"payload": str, "payloadType": str, "signatures": list}, "envelope")
    if len(body["signatures"]) != 1:
        raise InvalidInputError.of("signatures", "count", f"the envelope has {len(body['signatures'])} signatures; exactly one is accepted")
    signature = _fields(body["signatures"][0], {"keyid": str, "sig": str}, "signature")
    if not is_sha256(signature["keyid"]):
        raise InvalidInputError.of("signatures.keyid", "sha256", "the key ID is no SHA-256 in lower-case hex")
    der = _decoded(signature["sig"], "signatures.sig")
    _require_der(der)
    return Envelope(_decoded(body["payload"], "payload"), body["payloadType"], signature["keyid"], der)


def verify_envelope(data: bytes, public_key_der: bytes, *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return the payload of an envelope that this key has signed.

    Args:
        data: the envelope's file.
        public_key_der: SubjectPublicKeyInfo of the key, on P-256, from a trusted root and never from the envelope's surroundings.
        payload_type: the media type that the payload has to have.

    Raises:
        InvalidInputError: not an envelope as `sign_envelope` writes it, or the key is not on P-256.
        IntegrityError: a payload of another type, another key, or a signature that does not verify.
    """
    found = read_envelope(data)
    if found.payload_type != payload_type:
        raise IntegrityError(f"the envelope holds a payload of type {found.payload_type!r}, not {payload_type!r}")
    key = _public_key(public_key_der)
    if found.keyid != key.keyid:
        raise IntegrityError(f"the envelope is signed by the key {found.keyid[:16]}…, not by {key.keyid[:16]}…")
    envelope = _Envelope(found.payload, found.payload_type, {found.keyid: Signature(found.keyid, found.signature.hex())})
    try:
        envelope.verify([key], 1)
    except VerificationError as error:
        raise IntegrityError(f"the signature of the envelope by {found.keyid[:16]}… does not verify") from error
    return found.payload


class _PortSigner(_Signer):
    """`securesystemslib`'s signer over the port: r‖s of JOSE becomes the DER that DSSE verifiers expect."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None) -> _Signer:
        """Refuse: the key is a port, not a URI."""
        del public_key, secrets_handler  # The base class asks for them by name.
        raise ValueError(f"{cls.__name__} is made of a port, not of {priv_key_uri!r}")

    @property
    def public_key(self) -> SSlibKey:
        """Return the key's public half."""
        return _public_key(self._signer.public_key_der())

    def sign(self, payload: bytes) -> Signature:
        """Return the signature over the pre-authentication encoding."""
        raw = self._signer.sign_es256(payload)
        r, s = int.from_bytes(raw[:_P256_BYTES], "big"), int.from_bytes(raw[_P256_BYTES:], "big")
        return Signature(self.public_key.keyid, encode_dss_signature(r, s).hex())


def _public_key(der: bytes) -> SSlibKey:
    try:
        key = serialization.load_der_public_key(der)
    except ValueError as error:
        raise InvalidInputError.of("public_key", "der", "the key is no SubjectPublicKeyInfo in DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInputError.of("public_key", "curve", "the key is not on the curve P-256")
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return SSlibKey(key_id(der), "ecdsa", "ecdsa-sha2-nistp256", {"public": pem})


def _fields(value: Any, types: dict[str, type], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(types) or any(type(value[n]) is not t for n, t in types.items()):
        raise InvalidInputError.of(what, "fields", f"the {what} has not exactly the fields {', '.join(types)}")
    return value


def _decoded(text: str, field: str) -> bytes:
    """Return the bytes of standard base64 with padding, spelled in the one way that an encoder would."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError.of(field, "base64", f"not base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        raise InvalidInputError.of(field, "base64", "base64 with bits that say nothing")
    return data


def _require_der(signature: bytes) -> None:
    try:
        again = encode_dss_signature(*decode_dss_signature(signature))
    except ValueError as error:
        raise InvalidInputError.of("signatures.sig", "der", "the signature is no ECDSA signature in DER") from error
    if again != signature:
        raise InvalidInputError.of("signatures.sig", "der", "the signature is not in DER's one form")
