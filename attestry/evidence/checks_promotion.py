"""Steps of a verification: that a version came to an environment with the approval that the environment asks for.

Rules:

- A version is placed in an environment that has an approval of its own only after a promotion to it was opened and approved, by the order
  of the ledger; the placing names that promotion and who approved it.
- The promotion counts still: it was not rejected, withdrawn, lapsed or asked for anew since, its approval had not ended, the version's own
  approval is the one under which it was asked for, and the version stands where it stood then, or has come to the environment already.
- It was opened by a person, on a packet that says what the evidence says, for the next place of the version.
- Decisions are made while it is open and counts, under the environment's policy of the manifest, by the rules of every approval
  (`attestry.evidence.checks_approval`); none by who asked for it. Together they fill what the policy asks for, and give its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from attestry.domain.approvals import ApprovalPolicy, is_met
from attestry.domain.errors import IntegrityError
from attestry.domain.promotion import APPROVED, DECIDED, KINDS, LAPSED, OPENED, Place, Promotion, State, promotions_after
from attestry.domain.requirements import missing
from attestry.evidence.case import Attested, Case, Entry
from attestry.evidence.checks_approval import Opening, check_decision, check_terms, check_turns, policy_under
from attestry.evidence.checks_moves import PLACINGS
from attestry.evidence.digests import sha256_hex
from attestry.evidence.promotion_packet import PromotionPacket


@dataclass
class _Walk:
    """What is known between two moves: where the version is, its promotions, and the one of each environment that was opened last."""

    case: Case
    policy: ApprovalPolicy
    place: Place
    promotions: dict[str, Any] = field(default_factory=dict)
    opened: dict[str, _Asked] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)

    def promotion(self, environment: str) -> Promotion | None:
        """Return the latest promotion to an environment."""
        item = self.promotions.get(environment)
        return None if item is None else Promotion.from_item(environment, item)


@dataclass
class _Asked:
    opening: Opening
    packet: PromotionPacket
    policy: ApprovalPolicy
    decisions: list[Attested] = field(default_factory=list)
    approved: Entry | None = None


def check_promotions(case: Case) -> str:
    """Verify every promotion that people decided on, and every placing in an environment that asks for one.

    Returns:
        What is told of them; empty where there is none.
    """
    if case.was_imported() or not any(m.entry.kind in (*PLACINGS, *KINDS) for m in case.need_moves()):
        return ""
    manifest = case.need_manifest()
    walk = _Walk(case, policy_under(case), Place(case.need_bundle().index.reference, manifest.deployment.environment))
    for move in case.need_moves():
        entry = move.entry
        if entry.kind == OPENED:
            _check_opening(walk, move)
        elif entry.kind in DECIDED:
            _check_decision(walk, move)
        elif entry.kind in KINDS:
            _check_end(walk, entry)
        elif entry.kind in PLACINGS:
            _check_placing(walk, entry)
        item = {"kind": entry.kind, "number": entry.sequence, "at": entry.event["at"], "to": entry.data["to"], "data": entry.data}
        walk.promotions = promotions_after([item], walk.promotions)
        walk.place = walk.place.after(item)
    if walk.told:
        case.facts["promotions"] = walk.told
    placed = [t for t in walk.told if t["state"] == State.APPROVED]
    return "".join(f"; for {t['environment']} approved by {', '.join(t['approved_by'])}, asked for by {t['asked_by']}" for t in placed)


def _check_opening(walk: _Walk, move: Attested) -> None:
    case, entry, place = walk.case, move.entry, walk.place
    environment, principal = str(entry.data["environment"]), entry.event["principal"]
    where = f"the promotion to {environment} (move {entry.sequence})"
    policy = walk.policy.for_promotion(environment)
    if policy is None:
        raise IntegrityError(f"{where} was opened, and the manifest gives that environment no approval of its own")
    if not principal["person"] or entry.data["asked_by"] != principal["person"]:
        raise IntegrityError(f"{where} was not asked for by that person")
    made = promotions_after([{"kind": OPENED, "number": entry.sequence, "data": entry.data}])[environment]
    promotion = Promotion.from_item(environment, made)
    order = (case.need_manifest().deployment.environment, *case.need_manifest().deployment.promotes_to)
    after = order.index(environment) if environment in order else 0
    if promotion.why_not(place) or promotion.origin not in (environment, order[after - 1] if after else environment):
        raise IntegrityError(f"{where} was opened while the version did not stand in the environment before")
    name = f"version/packets/{entry.sequence:06d}.json"
    raw = case.need(name)
    if not sha256_hex(raw) == entry.data["evidence"] == promotion.packet or promotion.policy_sha256 != policy.digest:
        raise IntegrityError(f"{where}: packet or policy is not the one that was frozen when it was opened")
    packet = PromotionPacket.parse(raw)
    _check_packet(case, packet, entry, promotion, policy, where)
    walk.opened[environment] = _Asked(Opening(entry, (), name, f"#{entry.sequence:06d}", "PROMOTION"), packet, policy)
    walk.told.append({"environment": environment, "asked_by": promotion.asked_by, "opened": entry.sequence, "state": "OPEN"})


def _check_packet(case: Case, packet: PromotionPacket, entry: Entry, promotion: Promotion, policy: ApprovalPolicy, where: str) -> None:
    """Check that a promotion's packet says what the evidence says."""
    index, validation = case.need_bundle().index, case.records.get("VALIDATION", {})
    expected: dict[str, Any] = {
        "model": index.model,
        "number": index.number,
        "version_digest": index.version_digest,
        "candidate": str(case.need_moves()[0].entry.data["candidate"]),
        "transition": entry.sequence,
        "opened": entry.event["at"],
        "environment": promotion.environment,
        "origin": promotion.origin,
        "asked_by": entry.event["principal"],
        "reason": entry.data["reason"],
        "metrics": validation.get("metrics"),
        "gates": validation.get("gates"),
        "policy": policy.to_item(),
        "policy_sha256": policy.digest,
    }
    wrong = sorted(name for name, value in expected.items() if packet.content[name] != value)
    wrong += [] if packet.content["service"].get("since") == promotion.since else ["service"]
    wrong += [] if packet.content["approval"].get("opened") == promotion.approval else ["approval"]
    author = case.need_manifest().source.author
    wrong += [] if packet.content["lineage"].get("code", {}).get("author") == author else ["lineage"]
    if wrong:
        raise IntegrityError(f"the packet of {where} shows another {wrong[0]} than the evidence")


def _check_decision(walk: _Walk, move: Attested) -> None:
    entry, data = move.entry, move.entry.data
    environment = str(data.get("environment"))
    where = f"the decision of {data.get('person')} on the promotion to {environment}"
    asked, promotion = walk.opened.get(environment), walk.promotion(environment)
    if asked is None or promotion is None or promotion.state is not State.OPEN:
        raise IntegrityError(f"{where} was made while none was open")
    why = promotion.why_not(walk.place)
    if why:
        raise IntegrityError(f"{where} counts for nothing: {why}")
    if data["person"] == promotion.asked_by:
        raise IntegrityError(f"{data['person']} asked for the promotion to {environment} and decided on it")
    asked.decisions.append(move)
    decided = check_decision(walk.case, move, asked.opening, asked.packet, asked.policy)
    approving = check_turns(asked.decisions, asked.policy)
    told = next(t for t in reversed(walk.told) if t["environment"] == environment)
    told.setdefault("decisions", []).append(decided)
    if entry.kind == APPROVED:
        if not is_met(asked.policy, approving):
            wanted = " and ".join(map(str, missing(asked.policy.requirements, approving)))
            raise IntegrityError(f"{environment} asks for {asked.policy.needed} approvals, and {wanted} are missing")
        check_terms(entry, asked.decisions, asked.policy)
        asked.approved = entry
        told |= {"state": State.APPROVED.value, "approved_by": sorted(approving)}
    elif decided["decision"] == "reject":
        told["state"] = State.REJECTED.value


def _check_end(walk: _Walk, entry: Entry) -> None:
    environment = str(entry.data.get("environment"))
    promotion = walk.promotion(environment)
    lapsed = entry.kind == LAPSED
    states = (State.APPROVED,) if lapsed else (State.OPEN, State.APPROVED)
    if promotion is None or promotion.state not in states or promotion.opened != entry.data.get("opened"):
        raise IntegrityError(f"move {entry.sequence} ({entry.kind}) ends a promotion that does not stand")
    if lapsed and not (promotion.until and promotion.until <= str(entry.event["at"]) and walk.place.environment == environment):
        raise IntegrityError(f"move {entry.sequence} ({entry.kind}) ends an approval for {environment} that has not ended there")
    told = next(t for t in reversed(walk.told) if t["environment"] == environment)
    told["state"] = State.LAPSED.value if entry.kind == LAPSED else State.WITHDRAWN.value


def _check_placing(walk: _Walk, entry: Entry) -> None:
    environment = str(entry.data.get("environment"))
    if walk.policy.for_promotion(environment) is None:
        if "promotion" in entry.data:
            raise IntegrityError(f"move {entry.sequence} ({entry.kind}) names a promotion, and {environment} asks for none")
        return
    where = f"the version was placed in {environment} ({entry.kind}, move {entry.sequence})"
    promotion, asked = walk.promotion(environment), walk.opened.get(environment)
    if promotion is None or asked is None or asked.approved is None or promotion.state is not State.APPROVED:
        raise IntegrityError(f"{where} without the approval that this environment asks for")
    why = promotion.why_not(walk.place)
    if why:
        raise IntegrityError(f"{where} on an approval that counts no more: {why}")
    if not (asked.opening.entry.comes_before(asked.approved) and asked.approved.comes_before(entry)):
        raise IntegrityError(f"{where} before its promotion was approved, by the order of the ledger")
    if promotion.until and promotion.until <= str(entry.event["at"]):
        raise IntegrityError(f"{where} when its approval for that environment had ended at {promotion.until}")
    approving = sorted(str(m.entry.data["person"]) for m in asked.decisions)
    if entry.data.get("promotion") != {"opened": promotion.opened, "approved_by": approving}:
        raise IntegrityError(f"{where}, and names another promotion than the one that was approved")
