"""Witnesses of the ledger, reached by invoking their functions.

Each is asked by C2SP tlog-witness' `POST /add-checkpoint`. The event has the form of an HTTP API request (payload format 2.0), so that the
same function can stand behind a function URL. A witness in another account is named by its ARN; its function's policy lets this one in.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from attestry.aws.errors import ConfigurationError
from attestry.aws.settings import WitnessSetting
from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError
from attestry.evidence.note import Algorithm, Verifier, parse_note, parse_signature, parse_size, parse_vkey
from attestry.ports import Functions, WitnessAnswer, WitnessRequest

PATH: Final = "/add-checkpoint"
MAX_LINES: Final = 8
MAX_WITNESSES: Final = 16
_TOLD_CHARACTERS = 300
_COSIGNATURE_BYTES = 72


class LambdaWitnesses:
    """`attestry.ports.Witnesses` over functions.

    Args:
        functions: invokes them; its client's timeout bounds a call.
        witnesses: who is asked.

    Raises:
        ConfigurationError: two witnesses of one name, too many, or a verifier key that is not of its witness or not for cosignatures.
    """

    def __init__(self, functions: Functions, witnesses: Sequence[WitnessSetting]) -> None:
        self._functions = functions
        self._witnesses = {w.name: w for w in witnesses}
        if len(self._witnesses) != len(witnesses) or len(witnesses) > MAX_WITNESSES:
            raise ConfigurationError(f"the ledger has at most {MAX_WITNESSES} witnesses, each of another name")
        self._verifiers = {w.name: _verifier(w) for w in witnesses if w.vkey}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the witnesses' names."""
        return tuple(self._witnesses)

    def cosign(self, note: bytes, asked: Mapping[str, WitnessRequest]) -> dict[str, WitnessAnswer]:
        """Ask witnesses for their cosignatures, all at once; the error of one is its answer."""
        if not asked:
            return {}
        with ThreadPoolExecutor(max_workers=len(asked)) as pool:
            return dict(zip(asked, pool.map(lambda name: self._ask(name, note, asked[name]), asked), strict=True))

    def _ask(self, name: str, note: bytes, request: WitnessRequest) -> WitnessAnswer:
        try:
            answer = self._functions.call(self._witnesses[name].function, _event(note, request))
            return self._read(name, note, answer)
        except AttestryError as error:
            return WitnessAnswer(error=error.message)

    def _read(self, name: str, note: bytes, answer: Any) -> WitnessAnswer:
        status, body = _body(answer)
        if status == 409:
            return WitnessAnswer(size=parse_size(body.removesuffix("\n")), error="it last cosigned another checkpoint")
        if status != 200:
            told = "".join(c if c.isprintable() else " " for c in body[:_TOLD_CHARACTERS]).strip()
            return WitnessAnswer(error=f"it answered {status}: {told}")
        text, _ = parse_note(note)
        lines = body.splitlines(keepends=True)[:MAX_LINES]
        kept = tuple(line for line in lines if self._is_own(name, text, line))
        return WitnessAnswer(lines=kept, error="" if kept else "it answered without a cosignature of its own")

    def _is_own(self, name: str, text: str, line: str) -> bool:
        """Return whether a line is this witness's; where its key is known, a wrong signature is an error."""
        signature = parse_signature(line)
        verifier = self._verifiers.get(name)
        if verifier is None:
            return signature.name == name and len(signature.raw) == _COSIGNATURE_BYTES
        if signature.is_by(verifier):
            signature.check(text, verifier)
            return True
        return False


def _verifier(witness: WitnessSetting) -> Verifier:
    try:
        verifier = parse_vkey(witness.vkey)
    except InvalidInputError as error:
        raise ConfigurationError(f"the witness {witness.name}: {error.message}") from error
    if verifier.name != witness.name or verifier.algorithm is not Algorithm.COSIGNATURE:
        raise ConfigurationError(f"the verifier key of the witness {witness.name} is not its own, or not one for cosignatures")
    return verifier


def _event(note: bytes, request: WitnessRequest) -> dict[str, Any]:
    hashes = "".join(f"{base64.b64encode(h).decode()}\n" for h in request.proof)
    return {
        "version": "2.0",
        "routeKey": f"POST {PATH}",
        "rawPath": PATH,
        "rawQueryString": "",
        "headers": {"content-type": "text/plain; charset=utf-8"},
        "requestContext": {"http": {"method": "POST", "path": PATH}},
        "body": f"old {request.old_size}\n{hashes}\n{note.decode()}",
        "isBase64Encoded": False,
    }


def _body(answer: Any) -> tuple[int, str]:
    if not isinstance(answer, dict) or type(answer.get("statusCode")) is not int or not isinstance(answer.get("body"), str):
        raise IntegrityError("it answered in another form than HTTP's")
    try:
        body = base64.b64decode(answer["body"], validate=True).decode() if answer.get("isBase64Encoded") else answer["body"]
    except (binascii.Error, ValueError) as error:
        raise IntegrityError("its answer's body is not the base64 that it is said to be") from error
    return answer["statusCode"], body
