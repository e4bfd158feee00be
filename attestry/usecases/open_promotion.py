"""Open a promotion: freeze what people decide on, and record that somebody asked for it.

The packet is written first, under its own digest, and the page that shows it; then the move `promotion.opened`, the row of the promotion,
its event and the row that has people told are one transaction. A try that is cut off before leaves a packet that nothing names, and the
next try writes its own; one that is cut off behind leaves the telling to the sweep (`attestry.usecases.promotion_notice`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import ConditionFailedError, ConflictError
from attestry.domain.events import timestamp
from attestry.domain.principal import Principal
from attestry.domain.promotion import OPENED, State, policy_for, promotion_of, promotions_after
from attestry.domain.stages import Standing
from attestry.domain.version import Version
from attestry.evidence.promotion_packet import ABOUT, FORMAT, PromotionPacket, promotion_packet_key, promotion_page_key
from attestry.evidence.promotion_page import render_promotion_page
from attestry.ports import MetaStore, Notifier, ObjectStore, Put
from attestry.usecases.approval_notice import ConsoleWays
from attestry.usecases.attest import Attestor
from attestry.usecases.conflicts import conflicts_at_opening
from attestry.usecases.freeze_packet import open_findings
from attestry.usecases.manifests import load_manifest
from attestry.usecases.pointer import number_in
from attestry.usecases.promotion import check_promotion
from attestry.usecases.promotion_notice import asked_put, tell_asked
from attestry.usecases.promotion_rows import PREFIX, promotion_key
from attestry.usecases.records import Move, approval_key, load_version, move_writes, pointer_key, version_key
from attestry.usecases.served import predictions_made

TRIES = 8


def open_promotion(
    meta: MetaStore,
    attestor: Attestor,
    store: ObjectStore,
    notifier: Notifier,
    model: str,
    number: int,
    *,
    environment: str,
    by: Principal,
    reason: str,
    at: datetime,
    ways: ConsoleWays | None = None,
) -> Version:
    """Ask for the promotion of a version to an environment that has an approval of its own; one that is open already stays as it is.

    Args:
        meta: the table.
        attestor: signs with the function's own key.
        store: the model store.
        notifier: tells people.
        model: the model's name.
        number: the version's number.
        environment: where to.
        by: the authenticated principal, with its person, who never decides on it.
        reason: why, checked.
        at: the time.
        ways: how people approve in the AWS console; None for not at all.

    Raises:
        NotFoundError: no such version.
        UnprovenIdentityError: the caller maps to no person.
        ConflictError: the environment has no approval of its own, is not the next one, the version does not stand deployed, or others kept
            changing it.
        HeldError: the version is held.
        UnavailableError: the packet or the attestation could not be kept; nothing was changed.
    """
    person = by.require_person("ask for a promotion")
    for _ in range(TRIES):
        version = load_version(meta, model, number)
        policy, there = policy_for(version, environment), promotion_of(version, environment)
        if policy is None:
            raise ConflictError(f"{environment} has no approval of its own for {version.reference}; it is promoted at once")
        if there is not None and there.state is State.OPEN and not there.why_not(version):
            return version
        check_promotion(version, environment, at)
        version.require_not_held("is not promoted")
        packet = _collect(meta, store, version, policy, environment, by, reason, at)
        page_sha256 = _freeze(store, version, packet)
        data = {
            "environment": environment,
            "origin": packet.content["origin"],
            "asked_by": person,
            "since": packet.content["service"]["since"],
            "approval": version.opening,
            "packet_sha256": packet.sha256,
            "page_sha256": page_sha256,
            "policy_sha256": policy.digest,
        }
        move = Move(version.stage, version.status, version.standing, OPENED, by, reason, at, packet.sha256, data)
        opened = version.transition + 1
        after = promotions_after([{"kind": OPENED, "number": opened, "data": data}], version.promotions)
        row = {
            "environment": environment,
            "asked_by": person,
            "version_digest": version.version_digest,
            "evidence": packet.sha256,
            "policy_digest": policy.digest,
            "transition": opened,
            "at": timestamp(at),
        }
        moving = move_writes(version, move, attestor, {"promotions": after})
        asked = asked_put(version, environment, opened, packet.content["service"], at)
        try:
            meta.transact([*moving, Put(promotion_key(model, number, environment, opened), row), asked])
        except ConditionFailedError:
            continue
        version = load_version(meta, model, number)
        tell_asked(meta, notifier, version, asked, ways)
        return version
    raise ConflictError(f"{model}@{number} is being changed by others; try again")


def _freeze(store: ObjectStore, version: Version, packet: PromotionPacket) -> str:
    """Write the packet of the transition that opens the promotion, and its page, once and retained; return the page's SHA-256."""
    store.put_new(promotion_packet_key(version.folder, packet.sha256), packet.raw, content_type="application/json", retain=True)
    page = promotion_page_key(version.folder, packet.sha256)
    shown = store.put_new(page, render_promotion_page(packet), content_type="text/html; charset=utf-8", retain=True)
    return shown.sha256


def _collect(
    meta: MetaStore,
    store: ObjectStore,
    version: Version,
    policy: ApprovalPolicy,
    environment: str,
    by: Principal,
    reason: str,
    at: datetime,
) -> PromotionPacket:
    """Return the packet of the transition that opens the promotion."""
    conflicts = conflicts_at_opening(meta, version, fresh_eyes=policy.fresh_eyes)
    earlier = _earlier(meta, version, environment)
    content = {
        "format": FORMAT,
        "packet": ABOUT,
        "model": version.model,
        "number": version.number,
        "version_digest": version.version_digest,
        "candidate": version.candidate,
        "transition": version.transition + 1,
        "opened": timestamp(at),
        "origin": version.deployment_environment,
        "environment": environment,
        "asked_by": by.to_item(),
        "reason": reason,
        "submitter": version.submitter.to_item(),
        "metrics": dict(version.metrics),
        "gates": [dict(gate) for gate in version.gates],
        "approval": _own_approval(meta, version),
        "service": _service(meta, version),
        "replaces": _replaced(meta, version, environment),
        "lineage": {"code": _code(store, version)},
        "findings": open_findings(meta, version.model, version.number),
        "policy": policy.to_item(),
        "policy_sha256": policy.digest,
        **({"conflicts": conflicts} if conflicts else {}),
        **({"earlier": earlier} if earlier else {}),
    }
    return PromotionPacket.make(content)


def _own_approval(meta: MetaStore, version: Version) -> dict[str, Any]:
    rows = meta.query(approval_key(version.model, version.number, "").partition, prefix="APPROVAL#")
    packet = str(version.packet.get("sha256", ""))
    given = sorted(str(r["person"]) for r in rows if r["decision"] == "approve" and r.get("evidence", "") == packet)
    return {"opened": version.opening, "packet_sha256": packet, "approved_by": given, "terms": dict(version.terms)}


def _service(meta: MetaStore, version: Version) -> dict[str, Any]:
    """Return since when the version stands where it is, and how many predictions it made there."""
    deployed = version.standing is Standing.DEPLOYED
    made = predictions_made(meta, version, version.deployment_environment)
    return {"standing": version.standing.value, "since": version.deployed_at if deployed else "", "predictions": made}


def _replaced(meta: MetaStore, version: Version, environment: str) -> dict[str, Any]:
    number = number_in(meta.get(pointer_key(version.model, environment)))
    if number is None or number == version.number:
        return {}
    there = load_version(meta, version.model, number)
    return {"number": there.number, "version_digest": there.version_digest, "metrics": dict(there.metrics)}


def _code(store: ObjectStore, version: Version) -> dict[str, str]:
    source = load_manifest(store, version).source
    return {"repository": source.repository, "revision": source.revision, "author": source.author}


def _earlier(meta: MetaStore, version: Version, environment: str) -> list[dict[str, Any]]:
    """Return how promotions to the environment that were asked for before ended: who decided what, oldest first."""
    rows = meta.query(version_key(version.model, version.number).partition, prefix=f"{PREFIX}{environment}#")
    openings = [r for r in rows if "decision" not in r]
    told = [
        {
            "opened": int(opening["transition"]),
            "asked_by": str(opening["asked_by"]),
            "decisions": [
                {"person": str(r["person"]), "decision": str(r["decision"]), "reason": str(r["reason"])}
                for r in rows
                if str(r["sk"]).startswith(f"{opening['sk']}#")
            ],
        }
        for opening in openings
    ]
    return sorted(told, key=lambda e: int(e["opened"]))
