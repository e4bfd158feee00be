"""Steps of a verification: from a receipt to the version that was in place.

Rules:

- The delegation is signed by a delegator that the trusted root names, valid at the ledger time of the delegation's event;
  the event names the token by its SHA-256.
- In the order of the ledger, the last move of the version before the delegation left it as the delegation says, DEPLOYED,
  CANARY or SHADOW, in that environment. An order within one batch says nothing, since its events were committed at almost
  the same time by clocks that may differ: the version has to have stood so before the delegation, or after a deployment or
  a beginning of a rollout that was logged with it. An end of the version before it always counts.
- The delegation keeps to the conditions of the approval in force: it ends with it, and lets its key sign no more receipts, nor for other
  requests, than the approval allows. The sum over all keys is the registry's count; one bundle does not show it.
- The receipt is the delegated key's, within the delegation's time, for this version, and not from after its end.
- The receipt is under a seal that is in the ledger, at the place that its number gives it. A key that was closed without
  such a seal shows that the receipt was withheld from the seals, or made afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from attestry.domain.conditions import Terms, check_segments
from attestry.domain.errors import AttestryError, IntegrityError
from attestry.domain.promotion import promotions_after
from attestry.evidence.canonical import parse_strict
from attestry.evidence.case import Case, Entry
from attestry.evidence.checks_moves import ENDS, PLACINGS
from attestry.evidence.delegation import read_unverified_delegation, verify_delegation
from attestry.evidence.digests import sha256_hex
from attestry.evidence.receipt import check_output, check_request, verify_receipt
from attestry.evidence.seal import CLOSED, SEALED, Closing, ReceiptProof, Seal, verify_sealed
from attestry.evidence.verdict import Found, MissingError, Outcome

DELEGATED: Final = "key.delegated"
CLOCKS_DIFFER_MS: Final = 60_000
"""How much later than the recorded end of a version a receipt may be dated, by the clock of another process."""

LATE_SECONDS: Final = 24 * 3600
"""How long after its own date a delegation may be logged before that is told."""


def check_delegation(case: Case, *, alone: bool = False) -> Found | str:
    """Verify the delegation, and that its event is in the ledger.

    Args:
        case: the case.
        alone: there is no ledger to look in; the delegator's key is then judged at the time that the delegation claims.
    """
    index = case.need_bundle().index
    token = _text(case.need("prediction/delegation.jwt"), "delegation")
    claimed = read_unverified_delegation(token).grant
    events = case.events(DELEGATED, f"key/{index.subject.rpartition('-')[0]}")
    entry = events[0] if events else None
    at = entry.at if entry else _moment(claimed.issued)
    delegation = verify_delegation(token, case.need_root().delegator(claimed.issuer, at).der)
    grant = delegation.grant
    if delegation.kid != index.subject.rpartition("-")[0]:
        raise IntegrityError("the delegation is of another key than the prediction's")
    if (grant.version.model, grant.version.number, grant.version.digest) != (index.model, index.number, index.version_digest):
        raise IntegrityError(f"the delegation is for {grant.version}, not for this version")
    case.delegation, case.delegated = delegation, entry
    if entry is None and alone:
        return Found(
            Outcome.PENDING, f"for {grant.version.reference}, {grant.standing} in {grant.environment}; not looked up in the ledger"
        )
    if entry is None:
        raise MissingError("the event of the delegation is not in the bundle")
    expected: dict[str, object] = {
        "kid": delegation.kid,
        "delegation_sha256": sha256_hex(token.encode()),
        "version": str(grant.version),
        "environment": grant.environment,
        "standing": grant.standing,
        "expires": grant.expires,
        "delegator": grant.issuer,
    }
    if grant.max_receipts is not None or "max_receipts" in entry.data:
        expected["max_receipts"] = grant.max_receipts
    wrong = sorted(name for name, value in expected.items() if entry.data.get(name) != value)
    if wrong:
        raise IntegrityError(f"the event of the delegation names another {wrong[0]} than the delegation")
    if entry.index is not None and entry.at > _moment(grant.issued + LATE_SECONDS):
        case.notes.append(f"LOGGED LATE: the delegation claims to be of {_moment(grant.issued)}; the ledger knows of it since {entry.at}")
    told = f"key {delegation.kid[:12]} may sign for {grant.version.reference}, {grant.standing} in {grant.environment}, {entry.place}"
    return Found(Outcome.PENDING, told) if entry.index is None else told


def check_standing(case: Case) -> Found | str:
    """Verify that the version stood where the delegation says when it was delegated to."""
    grant, delegated = case.need_delegation().grant, case.delegated
    if delegated is None:
        raise MissingError("without the event of the delegation its place among the moves is not known")
    moves = [m.entry for m in case.need_moves()]
    before = [m for m in moves if m.comes_before(delegated)]
    beside = [m for m in moves if m not in before and _is_beside(m, delegated)]
    problems = [_standing_problem(moves[: len(before) + i], grant.standing, grant.environment) for i in range(len(beside) + 1)]
    if all(problems):
        raise IntegrityError(f"{problems[-1]} when it was delegated to ({delegated.place})")
    before = moves[: len(before) + problems.index("")]
    placed = [m for m in before if m.kind in PLACINGS][-1]
    terms = check_terms(case, before, delegated)
    _check_promoted_until(case, before)
    told = f"{placed.kind} by {placed.event['principal']['person'] or placed.event['principal']['login']}, {placed.place}"
    return f"{grant.standing} when delegated to: {told}" + (f"; approved {terms}" if str(terms) else "")


def check_terms(case: Case, before: Sequence[Entry], delegated: Entry) -> Terms:
    """Verify that the delegation keeps to the conditions of the approval that was in force, and return these.

    Args:
        case: the case.
        before: the moves of the version before the delegation.
        delegated: the event of the delegation.
    """
    grant = case.need_delegation().grant
    approved = [m for m in before if m.kind == "version.approved"]
    terms = Terms.from_item(approved[-1].data.get("terms", {})) if approved else Terms()
    if terms.until:
        end = _milliseconds(terms.until)
        if grant.expires * 1000 > end:
            raise IntegrityError(f"the approval ended at {terms.until}, the delegation lasts until {_moment(grant.expires)}")
        if delegated.index is not None and _milliseconds(delegated.at) > end + LATE_SECONDS * 1000:
            raise IntegrityError(f"the approval ended at {terms.until}, and the delegation was logged at {delegated.at}")
        if delegated.index is not None and delegated.at > terms.until:
            case.notes.append(f"LOGGED LATE: the approval ended at {terms.until}; the ledger knows of the delegation since {delegated.at}")
    if terms.max_predictions is not None and not 0 < (grant.max_receipts or 0) <= terms.max_predictions:
        raise IntegrityError(
            f"the approval allows {terms.max_predictions} predictions, the delegation {grant.max_receipts or 'any number'}"
        )
    if dict(grant.segments) != dict(terms.segments):
        raise IntegrityError("the delegation names another segment than the version is approved for")
    return terms


def _check_promoted_until(case: Case, before: Sequence[Entry]) -> None:
    """Verify that the delegation ends with the approval of its environment, where that has one of its own."""
    grant = case.need_delegation().grant
    promotions = promotions_after({"kind": m.kind, "number": m.sequence, "data": m.data} for m in before)
    until = str(promotions.get(grant.environment, {}).get("until", ""))
    if until and grant.expires * 1000 > _milliseconds(until):
        raise IntegrityError(f"the approval for {grant.environment} ended at {until}, the delegation lasts until {_moment(grant.expires)}")


def _standing_problem(before: list[Entry], standing: str, environment: str) -> str:
    """Return why a version did not stand so after these moves; empty where it did."""
    placed = [m for m in before if m.kind in PLACINGS]
    if not placed:
        return "the version was not deployed"
    last = before[-1]
    if last.data["to"]["standing"] != standing:
        return f"the version stood {last.data['to']['standing']} ({last.kind}, {last.place})"
    if placed[-1].data.get("environment") != environment:
        return f"the version was deployed in {placed[-1].data.get('environment')}, not in {environment} as the delegation says,"
    return ""


def check_receipt(case: Case) -> str:
    """Verify the receipt under the delegation."""
    index, delegation = case.need_bundle().index, case.need_delegation()
    receipt = verify_receipt(_text(case.need("prediction/receipt.jws"), "receipt"), delegation)
    if str(receipt.prediction_id) != index.subject:
        raise IntegrityError(f"the receipt is of the prediction {receipt.prediction_id}")
    for end in (m.entry for m in case.moves if m.entry.kind in ENDS):
        if receipt.time_ms > _milliseconds(str(end.event["at"])) + CLOCKS_DIFFER_MS:
            raise IntegrityError(f"the receipt is from after the end of the version ({end.kind}, {end.place})")
    most = delegation.grant.max_receipts
    if most is not None and receipt.prediction_id.sequence > most:
        raise IntegrityError(f"the receipt is number {receipt.prediction_id.sequence} of its key, which was to sign {most}")
    case.receipt = receipt
    at = _moment(receipt.time_ms / 1000)
    case.facts["prediction"] = {
        "id": str(receipt.prediction_id),
        "signed_at": at,
        "version": str(receipt.version),
        "output": receipt.output,
        "output_sha256": receipt.output_sha256,
        "request_sha256": receipt.request_sha256,
    }
    return f"prediction {receipt.prediction_id.sequence} of its key, signed at {at} by the process's clock"


def check_seal(case: Case) -> Found | str:
    """Verify that the receipt is under a seal that is in the ledger."""
    receipt = case.need_receipt()
    prediction = receipt.prediction_id
    subject = f"key/{prediction.kid}"
    closings = [(e, Closing.from_event(e.event)) for e in case.events(CLOSED, subject)]
    seals = [(e, Seal.from_event(e.event)) for e in case.events(SEALED, subject)]
    _check_kinds(case, subject)
    covering = [(e, s) for e, s in seals if s.covers(prediction)]
    raw = case.take("prediction/proof.json")
    for _, closing in closings:
        missing = any(first <= prediction.sequence <= last for first, last in closing.gaps)
        if prediction.sequence > closing.last or missing:
            raise IntegrityError("the key was closed without this number: the receipt was withheld from the seals, or made afterwards")
    if len(seals) != len(covering):
        raise IntegrityError("the bundle holds the seal of other predictions")
    if not covering:
        if raw is not None:
            raise MissingError("the event of the seal that the proof is for is not in the bundle")
        if closings:
            raise MissingError("the key is closed, and its seal over this prediction is not in the bundle")
        return Found(Outcome.PENDING, "not sealed yet")
    if len(covering) > 1:
        raise IntegrityError("two seals cover the prediction")
    entry, seal = covering[0]
    if (seal.model, seal.number) != (receipt.version.model, receipt.version.number):
        raise IntegrityError(f"the seal is for {seal.model}@{seal.number}")
    if raw is None:
        raise MissingError("prediction/proof.json is not in the bundle")
    verify_sealed(receipt.token.encode(), prediction, ReceiptProof.parse(raw), seal)
    closed = (
        f"key closed at {closings[0][1].last} with {closings[0][1].count} receipts"
        if closings
        else "key not closed as far as the bundle tells"
    )
    told = f"sealed with {seal.first} to {seal.last}, {entry.place}; {closed}"
    return Found(Outcome.PENDING, told) if entry.index is None else told


def check_payload(case: Case) -> str:
    """Verify request and output against the receipt, where the bundle holds them."""
    receipt = case.need_receipt()
    request, salt, output = (case.take(f"prediction/{name}") for name in ("request.bin", "salt.txt", "output.json"))
    told = []
    if request is not None and salt is None:
        raise MissingError("the request is there, and the salt to check it with is not")
    if salt is not None:
        if request is None:
            raise IntegrityError("the bundle holds a salt without a request")
        check_request(receipt, _text(salt, "salt"), request)
        _check_segment(case, request)
        told.append("request")
    if output is not None:
        check_output(receipt, output)
        told.append("output")
    if not told:
        return "no payload in this bundle" + ("" if receipt.output is None else "; the receipt holds the output")
    return f"{' and '.join(told)} are those of the receipt"


def _check_segment(case: Case, request: bytes) -> None:
    grant = case.need_delegation().grant
    if not grant.segments:
        return
    try:
        check_segments(grant.segments, parse_strict(request)["instances"], grant.version.reference)
    except (AttestryError, KeyError, TypeError) as error:
        raise IntegrityError(f"the request lies outside of what the version was approved for: {error}") from error


def _is_beside(move: Entry, delegated: Entry) -> bool:
    """Return whether a move was logged in one batch with the delegation and may have come before it."""
    return move.at == delegated.at and move.index is not None and delegated.index is not None and move.kind in PLACINGS


def _check_kinds(case: Case, subject: str) -> None:
    kinds = [e.kind for e in case.entries if e.subject == subject]
    strange = sorted(set(kinds) - {DELEGATED, SEALED, CLOSED})
    if strange:
        raise IntegrityError(f"the bundle holds the event {strange[0]} of the key")


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"the {name} is no text") from error


def _moment(seconds: float) -> str:
    from datetime import UTC

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _milliseconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp() * 1000)
