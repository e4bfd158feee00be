"""Settings about ledgers and witnesses in other accounts, checked as far as a text can be.

A vkey names a key of the C2SP signed-note format: `<name>+<8 hex digits>+<base64>`; the digits are the start of the SHA-256 over name and
key, so a typing error shows here and not when the first checkpoint stays without cosignature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

_VKEY = re.compile(r"(?P<name>[^\s+]{1,200})\+(?P<hash>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]+={0,2})")
_ORIGIN = re.compile(r"attestry/(?P<account>\d{12})/[a-z0-9-]+/(?P<prefix>[a-z][a-z0-9-]{1,18}[a-z0-9])")
_FUNCTION = re.compile(r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_$-]+)?")
ED25519 = 0x01
"""Type of a key that signs notes."""

COSIGNATURE = 0x04
"""Type of a key that cosigns checkpoints, with a time."""


def vkey_name(text: str, kind: int) -> str:
    """Return the name in a vkey of an Ed25519 key of a kind.

    Raises:
        ValueError: it is no such vkey.
    """
    match = _VKEY.fullmatch(text)
    if match is None:
        raise ValueError("a vkey is <name>+<8 hex digits>+<base64>")
    try:
        key = base64.b64decode(match["key"], validate=True)
    except binascii.Error as error:
        raise ValueError("the key of a vkey is base64") from error
    if len(key) != 33 or key[0] != kind:
        raise ValueError(f"the key of the vkey is not of type {kind} (Ed25519)")
    digest = hashlib.sha256(match["name"].encode() + b"\n" + key).hexdigest()
    if digest[:8] != match["hash"]:
        raise ValueError("the name and the key of the vkey do not go together")
    return match["name"]


@dataclass(frozen=True)
class WitnessConfig:
    """A witness that the sequencer asks for cosignatures.

    Attributes:
        name: its key's name.
        function: ARN of its function.
        vkey: its key.
    """

    name: str
    function: str
    vkey: str

    def __post_init__(self) -> None:
        if vkey_name(self.vkey, COSIGNATURE) != self.name:
            raise ValueError(f"the vkey is not of {self.name!r}")
        if not _FUNCTION.fullmatch(self.function):
            raise ValueError(f"{self.function!r} is no ARN of a function")


@dataclass(frozen=True)
class LogConfig:
    """A ledger that a witness of another account knows, by its vkey.

    Attributes:
        text: the vkey.
    """

    text: str

    def __post_init__(self) -> None:
        if not _ORIGIN.fullmatch(self.name):
            raise ValueError("the name of a ledger is attestry/<account>/<region>/<prefix>")

    @property
    def name(self) -> str:
        """The ledger's origin."""
        return vkey_name(self.text, ED25519)

    @property
    def account(self) -> str:
        """The account of the registry."""
        return self._part("account")

    @property
    def prefix(self) -> str:
        """The prefix of the registry."""
        return self._part("prefix")

    def _part(self, part: str) -> str:
        match = _ORIGIN.fullmatch(self.name)
        return match[part] if match else ""
