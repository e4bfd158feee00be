"""Steps of a verification: who approved a version, on what, under which policy, and what it stood as when a key was delegated.

Rules:

- The policy is the manifest's, or stricter: a registry may ask for signatures where the manifest does not. It was logged
  before the evaluation and stands in the packet. Of an imported version it is the import document's.
- The approval is opened once, and again only after it has lapsed or failed; each opening has a packet and decisions of its own.
- Every decision rests on the packet that was frozen when the approval opened, and names version digest, stage, policy,
  packet and the transition that opened it, so that it serves nowhere else.
- Each approval is by another person, in a role that the policy names, and none by who submitted the candidate. Each
  fills a place that the policy had open when it was given, and together they fill all (`attestry.domain.requirements`). A
  decision of a person is recorded by a function that takes decisions of people, one of the policy by the gate alone.
- Nobody decides whom the packet lists with a conflict of interest, nor, where the policy asks for independence, who wrote
  the code by the person's ID or login; the registry holds the author against their name and other logins as well.
- Under what the version may serve is computed anew from the conditions of all approvals and the policy, the strictest of each.
- A decision from the AWS console names CloudTrail's event by ID and digest; one from elsewhere names none.
- What completes an approval names the validation records that the manifest demands: the latest before it, and they meet the demands.
- An approver's own signature, by a key that was theirs then, makes it `signed by person`; else it is `recorded by registry`.
  Where the policy asks for signatures, each approval needs one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy, is_met
from attestry.domain.cause import is_reproduction
from attestry.domain.conditions import Conditions, strictest
from attestry.domain.conflicts import ConflictOfInterestError, check_independent, check_no_conflict
from attestry.domain.errors import ConflictError, ForbiddenError, IntegrityError, InvalidInputError
from attestry.domain.promotion import REJECTED
from attestry.domain.requirements import check_fills, missing
from attestry.domain.stages import LAPSED
from attestry.domain.validations import latest_of, named_records, unmet
from attestry.evidence.case import Attested, Case, Entry
from attestry.evidence.checks_import import policy_of_import
from attestry.evidence.checks_moves import FIRST, PLACINGS
from attestry.evidence.checks_person_keys import check_key
from attestry.evidence.checks_version import policy_of
from attestry.evidence.digests import is_sha256, sha256_hex
from attestry.evidence.packet import Packet
from attestry.evidence.predicates import read_move
from attestry.evidence.promotion_packet import PromotionPacket

_PEOPLE: Final = frozenset({"decide", "console_decision"})
_BY_POLICY: Final = "gate"
_IN_CONSOLE: Final = "console_decision"
CONSOLE_FACTS: Final = frozenset({"call", "on", "event_id", "event_sha256", "at", "mfa", "session_issuer"})
"""What a decision made in the AWS console says of how it was made."""

_DECISIONS: Final = ("approval.given", "version.approved", "version.rejected")


def check_approvals(case: Case) -> str:
    """Verify packet, policy and every decision."""
    # Where VALIDATION was done again, the approval that was open before is over; a decision that names it counts for nothing.
    redone = max((m.entry.sequence for m in case.moved("stage.reopened")), default=0)
    opened = [m for m in case.moved("stage.started", "APPROVAL") if m.entry.sequence > redone]
    decisions = [m for m in case.need_moves() if m.entry.kind in _DECISIONS and m.entry.stage == "APPROVAL"]
    if not opened:
        if decisions or any(case.moved(kind) for kind in PLACINGS):
            raise IntegrityError("the version was decided on, or deployed, although its approval was never opened")
        return "the approval has not been opened"
    policy = policy_under(case)
    if any(m.entry.sequence < opened[0].entry.sequence for m in decisions):
        raise IntegrityError("the version was decided on before its approval was opened, or before it was judged again")
    told: list[dict[str, Any]] = []
    for opening in _openings(case, [m.entry for m in opened]):
        told += _check_opening(case, opening, policy)
    approved = case.moved("version.approved")
    if approved and is_reproduction(case.need_moves()[0].entry.data.get("cause") or {}):
        raise IntegrityError("the version was made to reproduce another one, and was approved all the same")
    if any(case.moved(kind) for kind in PLACINGS) and not approved:
        raise IntegrityError("the version was deployed without an approval")
    case.facts |= {"approvals": told, "submitted_by": sorted(submitters_of(case))}
    names = [f"{t['person']} ({t['grade']})" for t in told if t["decision"] == "approve"]
    packet = opened[-1].entry.data["evidence"]
    lapsed = [m.entry for m in case.moved(LAPSED)]
    ended = "".join(f"; that approval lapsed: {e.data['reason']} ({e.place})" for e in lapsed)
    return f"approved by {', '.join(names)} on packet {packet[:16]}{ended}" if approved else "not approved"


def policy_under(case: Case) -> ApprovalPolicy:
    """Return the policy that the version stands under: by its manifest, or by its import document."""
    if case.was_imported():
        return policy_of_import(case)
    judged: Mapping[str, Any] = case.records.get("VALIDATION", {}).get("criteria", {})
    return policy_of(case.need_manifest(), logged=judged.get("policy_sha256"))


@dataclass(frozen=True)
class Opening:
    """One time that an approval was opened, of the version or of a promotion.

    Attributes:
        entry: the move that opened it.
        moves: the moves from there to the next opening.
        packet: name of its packet in the bundle.
        suffix: what the names of its signatures end in.
        stage: what its decisions say that they are about.
    """

    entry: Entry
    moves: tuple[Attested, ...]
    packet: str
    suffix: str
    stage: str = "APPROVAL"


def _openings(case: Case, opened: Sequence[Entry]) -> list[Opening]:
    """Return the openings of the approval; each but the first follows the lapse or the failure of the one before."""
    openings: list[Opening] = []
    for index, entry in enumerate(opened):
        last = index == len(opened) - 1
        if index and entry.data["from"] != {"stage": "APPROVAL", "status": "FAILED", "standing": "CANDIDATE"}:
            raise IntegrityError("the approval was opened more than once, without having ended in between")
        end = opened[index + 1].sequence if not last else None
        moves = tuple(m for m in case.need_moves() if m.entry.sequence > entry.sequence and (end is None or m.entry.sequence < end))
        packet = "version/packet.json" if last else f"version/packets/{entry.sequence:06d}.json"
        openings.append(Opening(entry, moves, packet, f"#{entry.sequence:06d}" if index else ""))
    return openings


def _check_opening(case: Case, opening: Opening, policy: ApprovalPolicy) -> list[dict[str, Any]]:
    """Verify packet and decisions of one opening, and return what is told of these."""
    packet = _check_packet(case, opening, policy)
    case.packet = packet.content
    decisions = [m for m in opening.moves if m.entry.kind in _DECISIONS and m.entry.stage == "APPROVAL"]
    told = [check_decision(case, move, opening, packet, policy) for move in decisions]
    approving = check_turns(decisions, policy)
    approved = [m.entry for m in opening.moves if m.entry.kind == "version.approved"]
    if approved and not is_met(policy, approving):
        wanted = " and ".join(map(str, missing(policy.requirements, approving)))
        raise IntegrityError(f"the policy asks for {policy.needed} approvals; there are {len(approving)}, and {wanted} are missing")
    for entry in approved:
        check_terms(entry, decisions, policy)
        _check_validated(case, entry, policy)
    deployed = [m.entry for m in opening.moves if m.entry.kind in PLACINGS]
    if deployed and (not approved or deployed[0].sequence < approved[0].sequence):
        raise IntegrityError("the version was deployed without an approval")
    for lapsed in (m.entry for m in opening.moves if m.entry.kind == LAPSED):
        if not approved or lapsed.data.get("opened") != opening.entry.sequence:
            raise IntegrityError("an approval lapsed that was not given")
    return told


def check_turns(decisions: Sequence[Attested], policy: ApprovalPolicy) -> dict[str, tuple[str, ...]]:
    """Return who approved in which roles; each filled a place that the policy had open at the time."""
    approving: dict[str, tuple[str, ...]] = {}
    for entry in (m.entry for m in decisions if m.entry.data["decision"] == "approve"):
        person, roles = str(entry.data["person"]), tuple(entry.event["principal"]["roles"])
        if person in approving:
            raise IntegrityError("one person approved twice")
        if not policy.automatic:
            try:
                check_fills(policy.requirements, approving, person, roles, in_order=policy.in_order)
            except (ConflictError, ForbiddenError) as error:
                raise IntegrityError(f"the decision of {person}: {error.message}") from error
        approving[person] = roles
    return approving


def check_terms(approved: Entry, decisions: Sequence[Attested], policy: ApprovalPolicy) -> None:
    """Compute anew what follows from the approvals and the policy, and compare it with what the approval says; none had ended by then."""
    given = [
        (datetime.fromisoformat(str(m.entry.event["at"])), Conditions.from_item(m.entry.data.get("conditions", {})))
        for m in decisions
        if m.entry.data["decision"] == "approve"
    ]
    try:
        terms = strictest(policy, given)
    except InvalidInputError as error:
        raise IntegrityError(f"the conditions of the approvals exclude each other: {error.message}") from error
    if dict(approved.data.get("terms", {})) != terms.to_item():
        raise IntegrityError("the version may serve under other conditions than follow from its approvals and its policy")
    if terms.until and terms.until <= str(approved.event["at"]):
        raise IntegrityError(f"the version was approved when an approval of it had ended at {terms.until}")


def _check_validated(case: Case, approved: Entry, policy: ApprovalPolicy) -> None:
    """Check that the validation records which the policy demands stood when the version was approved, and that the approval names them."""
    before = [m.entry for m in case.need_moves() if m.entry.sequence < approved.sequence]
    latest = latest_of({**e.event, "number": e.sequence} for e in before)
    missing_records = unmet(policy.records, latest)
    if missing_records:
        raise IntegrityError(f"the version was approved, and what its manifest demands did not stand: {'; '.join(missing_records)}")
    if dict(approved.data.get("validations", {})) != named_records(policy.records, latest):
        raise IntegrityError("the approval names other validation records than the latest that its manifest demands")


def submitters_of(case: Case) -> set[str]:
    """Return who stands behind the version: who submitted the candidate or claimed it, who asked for a refresh, who brought its data."""
    moves = [m.entry for m in case.need_moves() if m.entry.kind in (*FIRST, "submission.claimed")]
    cause = moves[0].data.get("cause") or {} if moves else {}
    behind = {m.event["principal"]["person"] for m in moves} | {cause.get("submitter"), *cause.get("barred", ())}
    return {str(person) for person in behind if person}


def _check_packet(case: Case, opening: Opening, policy: ApprovalPolicy) -> Packet:
    opened = opening.entry
    raw, index = case.need(opening.packet), case.need_bundle().index
    if sha256_hex(raw) != opened.data["evidence"]:
        raise IntegrityError("the packet is not the one that was frozen when the approval opened")
    packet = Packet.parse(raw)
    said, validation = packet.content, case.records.get("VALIDATION", {})
    expected: dict[str, Any] = {
        "model": index.model,
        "number": index.number,
        "version_digest": index.version_digest,
        "candidate": str(case.need_moves()[0].entry.data["candidate"]),
        "transition": opened.sequence,
        "policy": policy.to_item(),
        "policy_sha256": policy.digest,
        # Nothing judged a version that was made elsewhere, whatever is claimed of it.
        "metrics": {} if case.was_imported() else validation.get("metrics"),
        "gates": [] if case.was_imported() else validation.get("gates"),
    }
    wrong = sorted(name for name, value in expected.items() if said[name] != value)
    if wrong:
        raise IntegrityError(f"the packet shows another {wrong[0]} than the evidence")
    if opened.data.get("policy_sha256") != policy.digest:
        raise IntegrityError("the approval was opened under another policy than the manifest's")
    ended = {m.entry.data["evidence"] for m in case.need_moves() if m.entry.kind.startswith(("stage.", "version."))}
    if any(record["sha256"] not in ended for record in said["records"]):
        raise IntegrityError("the packet rests on the record of a stage that no move names")
    return packet


def check_decision(
    case: Case, move: Attested, opening: Opening, packet: Packet | PromotionPacket, policy: ApprovalPolicy
) -> dict[str, Any]:
    """Verify one decision: what it is about, who made it and how; return what is told of it."""
    opened = opening.entry
    entry, data = move.entry, move.entry.data
    principal: Mapping[str, Any] = entry.event["principal"]
    _, content = read_move(move.statement)
    where = f"the decision of {data.get('person')}"
    verdict = "reject" if entry.kind in ("version.rejected", REJECTED) else "approve"
    optional = {"console", "conditions", "environment", "terms", "validations"} & data.keys()
    further = (*(("signature",) if data.get("signed_by_person") else ()), *optional)
    facts = {"person", "decision", "policy_sha256", "opened", "signed_by_person", *further}
    expected = {
        **{name: data[name] for name in facts},
        "stage": opening.stage,
        "version_digest": case.need_bundle().index.version_digest,
        "policy": policy.to_item(),
        "packet_sha256": packet.sha256,
    }
    if content != expected:
        raise IntegrityError(f"{where} is about another version, packet, policy or stage than this one, or says it otherwise")
    named = (data["decision"], data["evidence"], data["policy_sha256"], data["opened"])
    if named != (verdict, packet.sha256, policy.digest, opened.sequence):
        raise IntegrityError(f"{where} does not name this packet, policy and opening")
    if not opened.comes_before(entry):
        raise IntegrityError(f"{where} was logged before the approval was opened")
    if policy.automatic:
        if move.function != _BY_POLICY or principal["issuer"] != "attestry" or data["person"] != principal["login"]:
            raise IntegrityError(f"{where} stands under a policy that approves by itself, and is not the policy's")
        return {"person": data["person"], "decision": verdict, "grade": "policy", "leaf": entry.index, "at": entry.at}
    if move.function not in _PEOPLE or data["person"] != principal["person"] or not data["person"]:
        raise IntegrityError(f"{where} was not taken from that person")
    if data["person"] in submitters_of(case):
        raise IntegrityError(f"{data['person']} submitted the candidate and decided on it")
    _check_interest(packet, policy, principal, where)
    if not set(principal["roles"]) & set(policy.roles):
        raise IntegrityError(f"{where} was made in none of the roles {', '.join(policy.roles)}")
    _check_console(move, where)
    grade = _check_signature(case, entry, opening, packet, policy, verdict)
    told = {"person": data["person"], "decision": verdict, "grade": grade, "leaf": entry.index, "at": entry.at, "reason": data["reason"]}
    return {**told, "conditions": dict(data["conditions"])} if "conditions" in data else told


def _check_interest(packet: Packet | PromotionPacket, policy: ApprovalPolicy, principal: Mapping[str, Any], where: str) -> None:
    """Check that a decision is not by somebody who had a conflict of interest by the packet, or wrote the code where that counts."""
    person = str(principal["person"])
    try:
        check_no_conflict(packet.content.get("conflicts", []), person)
        if policy.independent:
            check_independent(str(packet.content["lineage"]["code"]["author"]), person, (str(principal["login"]),))
    except ConflictOfInterestError as error:
        raise IntegrityError(f"{where}: {error.message}") from error


def _check_console(move: Attested, where: str) -> None:
    """Check that a decision made in the AWS console, and none else, names CloudTrail's event, as its principal does."""
    facts = move.entry.data.get("console")
    if (facts is not None) != (move.function == _IN_CONSOLE):
        raise IntegrityError(f"{where} does not fit the function that recorded it: only one from the AWS console names CloudTrail's event")
    if facts is None:
        return
    method = str(move.entry.event["principal"]["method"])
    named = isinstance(facts, Mapping) and set(facts) == CONSOLE_FACTS and is_sha256(facts["event_sha256"])
    if not named or not method.endswith(f"event {facts['event_id']}, SHA-256 {facts['event_sha256']}"):
        raise IntegrityError(f"{where} does not name the event of CloudTrail that it rests on")


def _check_signature(
    case: Case, entry: Entry, opening: Opening, packet: Packet | PromotionPacket, policy: ApprovalPolicy, verdict: str
) -> str:
    person = str(entry.data["person"])
    if not entry.data["signed_by_person"]:
        if policy.signed and verdict == "approve":
            raise IntegrityError(f"the policy asks for the own signature of {person}, and there is none")
        return "recorded by registry"
    from attestry.evidence.ssh_signature import signing_key, verify_approval

    recorded = entry.data["signature"]
    armored = case.need(f"signatures/{person}{opening.suffix}.sig")
    if verdict != "approve" or sha256_hex(armored) != recorded["sha256"]:
        raise IntegrityError(f"signatures/{person}{opening.suffix}.sig is not the signature that the decision names")
    key = signing_key(armored)
    if key.fingerprint != recorded["fingerprint"]:
        raise IntegrityError(f"signatures/{person}{opening.suffix}.sig is by another key than the one that was registered for {person}")
    verify_approval(armored, packet.sha256, [key.text])
    check_key(case, person, recorded, entry)
    return "signed by person"


def refuse_strange_signatures(case: Case) -> None:
    """Refuse signatures of persons that no decision names, once all decisions have been looked at."""
    strange = sorted(set(case.need_bundle().names("signatures/")) - case.taken)
    if strange:
        raise IntegrityError(f"{strange[0]} is there, and no decision names it")
