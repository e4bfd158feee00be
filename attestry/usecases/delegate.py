"""Delegate: let one serving process sign for the version that stands deployed, or for the canary or the shadow beside it.

Rules:
- Pointer and version are read, strongly consistent, for each delegation; the approvals are counted again, and are those
  of this version digest, policy and decision packet, by persons other than the submitter.
- Each of them has to be what its transition and its event say: an approval that was inserted by hand counts for nothing.
- A delegation names what the version stands as. Who stands CANARY or SHADOW by its head and not by the pointer, or the other way round, is
  delegated nothing.
- Nothing is delegated to what was killed or retired, by the word of its moves and the ledger as well as of its head, or
  from the day on that is set for its retirement; a delegation ends with the day before at the latest.
- What was read is a condition of the transaction that writes delegation, open key and event: a delegation that was
  given was right when it was recorded, and it is recorded before the process has it.
- In an environment that has an approval of its own, the same holds for the promotion: its decisions are counted again and are what was
  recorded, and a delegation ends with its approval at the latest.
- Nothing is delegated once an approval has ended, by its date or its number of predictions; a delegation ends with it at the latest, lets
  its key sign no more than its part of what is left, and names the segment that requests have to lie in.
- At most one hour; the private key never leaves the process that asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attestry.domain.approvals import ApprovalPolicy, Verdict, is_met
from attestry.domain.conditions import Conditions, Terms, strictest
from attestry.domain.days import beginning_of
from attestry.domain.errors import ConditionFailedError, ConflictError, IntegrityError, InvalidInputError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import registry_principal
from attestry.domain.stages import Stage, Standing
from attestry.domain.version import Version
from attestry.evidence.delegation import MAX_LIFETIME_SECONDS, STANDINGS, Delegation, issue, public_key_of
from attestry.evidence.digests import sha256_hex
from attestry.evidence.version_urn import VersionUrn
from attestry.ports import Check, Item, MetaStore, Put, Signer, When, Write
from attestry.usecases.conditions import check_end, give_out
from attestry.usecases.pointer import place_in, require_deployed
from attestry.usecases.promotion_rows import grounds_of
from attestry.usecases.recorded import check_approvals, check_promotion
from attestry.usecases.records import approval_key, approving_persons, load_version, outbox_put, pointer_key, version_key
from attestry.usecases.sign import delegation_key, open_key

TRIES = 4


def delegate_signing(
    meta: MetaStore,
    signer: Signer,
    *,
    model: str,
    environment: str,
    jwk: Mapping[str, Any],
    at: datetime,
    version_digest: str | None = None,
    standing: str = Standing.DEPLOYED.value,
) -> Delegation:
    """Issue and record a delegation for the version that stands DEPLOYED, CANARY or SHADOW.

    Args:
        meta: the table.
        signer: the delegator key.
        model: the model's name.
        environment: where, for example `production`.
        jwk: public JWK (RFC 8037) of the process's Ed25519 key.
        at: the time.
        version_digest: the version that the process serves; None for whichever stands there.
        standing: what it stands as: DEPLOYED, CANARY or SHADOW.

    Raises:
        InvalidInputError: `jwk` is no public Ed25519 key, or `standing` none of the three.
        NotFoundError: nothing is deployed there, or not any more.
        ApprovalLapsedError: its approval, or a condition of it, has ended.
        ConflictError: another version stands there, it is due for retirement, its approvals do not hold, or the pointer keeps moving.
        IntegrityError: an approval is not what was recorded, or the version was taken out of use and its head does not say so.
    """
    public_key = public_key_of(jwk)
    if standing not in STANDINGS:
        raise InvalidInputError.of("standing", "standing", f"a delegation is for a version that stands {', '.join(STANDINGS)}")
    for _ in range(TRIES):
        found = read_standing(meta, model, environment, at, wanted=version_digest, standing=standing)
        if found is None:
            continue
        pointer, place, version = found
        grounds = grounds_of(meta, version, environment, at)
        if grounds is not None:
            check_promotion(meta, version, grounds.promotion, grounds.opening, grounds.approvals)
        part, giving = give_out(meta, version)
        delegation = issue(
            signer,
            version=VersionUrn(version.model, version.number, version.version_digest),
            environment=environment,
            standing=version.standing,
            public_key=public_key,
            now=at,
            lifetime_seconds=_lifetime(version, at, grounds.promotion.until if grounds else ""),
            max_receipts=part,
            segments=Terms.from_item(version.terms).segments,
        )
        try:
            conditions = grounds.conditions if grounds else []
            meta.transact([*_writes(delegation, version, pointer, str(place["capture_rate"]), at), *giving, *conditions])
        except ConditionFailedError:
            continue
        return delegation
    raise ConflictError(f"the deployed version of {model} in {environment} is being changed; try again")


def read_standing(
    meta: MetaStore, model: str, environment: str, at: datetime, *, wanted: str | None = None, standing: str = Standing.DEPLOYED.value
) -> tuple[Item, Mapping[str, Any], Version] | None:
    """Return who may answer in an environment, by rows that are read now: pointer, its place in it, and the version.

    Args:
        meta: the table.
        model: the model's name.
        environment: where, for example `production`.
        at: the time.
        wanted: digest of the version that it has to be; None for whichever stands there.
        standing: DEPLOYED, CANARY or SHADOW.

    Returns:
        None where it moved while it was read: look again.

    Raises:
        NotFoundError: nothing is deployed there, or not any more.
        ApprovalLapsedError, ConflictError, IntegrityError: as for `delegate_signing`.
    """
    pointer = require_deployed(meta.get(pointer_key(model, environment)), model, environment)
    place = place_in(pointer, standing)
    if not place:
        raise ConflictError(f"no version of {model} stands {standing} in {environment}")
    version = load_version(meta, model, int(place["number"]))
    counted = check_may_sign(version, place, _approvals(meta, version), wanted=wanted, at=at, standing=standing)
    try:
        check_approvals(meta, version, counted)
    except IntegrityError:
        if load_version(meta, model, version.number).rev != version.rev:
            return None  # what was read first has moved meanwhile, in order
        raise
    check_quorum(version, counted)
    return pointer, place, version


def check_may_sign(
    version: Version,
    place: Mapping[str, Any],
    approvals: list[Item],
    *,
    wanted: str | None,
    at: datetime,
    standing: str = Standing.DEPLOYED.value,
) -> list[Item]:
    """Check that a version may be signed for, and return the approvals that count for it.

    Args:
        version: the version that the pointer names.
        place: the pointer's row, or of a canary or shadow what it says of it.
        approvals: the rows of the decisions on the version.
        wanted: digest of the version that the process serves, or None.
        at: the time.
        standing: what the pointer says that it stands as.

    Raises:
        ConflictError: it may not, with the reason.
    """
    if wanted is not None and wanted != place["version_digest"]:
        raise ConflictError(f"the process serves another version than {version.reference}, which stands {standing}")
    if not version.version_digest or version.version_digest != place["version_digest"]:
        raise ConflictError(f"the pointer names another digest than {version.reference} has")
    if version.standing != standing:
        why = f": it was {version.out_of_use}" if version.out_of_use else ""
        raise ConflictError(f"{version.reference} stands {version.standing}, not {standing}{why}")
    if version.is_due(at):
        raise ConflictError(f"{version.reference} was to be out of use from {version.ends_on} on")
    check_end(version, at)
    policy = ApprovalPolicy.from_item(version.approval_policy)
    counted = [row for row in approvals if _counts(row, version, policy)]
    persons = {str(row["person"]) for row in counted}
    rejected = any(row["decision"] == Verdict.REJECT.value for row in approvals)
    if not version.approved or rejected or len(persons) < policy.needed:
        raise _not_approved(version)
    return counted


def check_quorum(version: Version, approvals: list[Item]) -> None:
    """Check that approvals, which were found to be what was recorded, fill every place of the policy, and that the head says their terms.

    Raises:
        ConflictError: they do not.
        IntegrityError: the version's head names other terms than follow from them.
    """
    policy = ApprovalPolicy.from_item(version.approval_policy)
    if not is_met(policy, approving_persons(approvals)):
        raise _not_approved(version)
    given = [(datetime.fromisoformat(str(r["at"])), Conditions.from_item(r.get("conditions") or {})) for r in approvals]
    if strictest(policy, given) != Terms.from_item(version.terms):
        raise IntegrityError(f"the head of {version.reference} names other conditions than its approvals give")


def _not_approved(version: Version) -> ConflictError:
    return ConflictError(f"the approvals that the policy of {version.reference} asks for are not there")


def _approvals(meta: MetaStore, version: Version) -> list[Item]:
    return meta.query(approval_key(version.model, version.number, "").partition, prefix="APPROVAL#")


def _counts(row: Item, version: Version, policy: ApprovalPolicy) -> bool:
    return bool(
        row["decision"] == Verdict.APPROVE.value
        and row["stage"] == Stage.APPROVAL.value
        and row["version_digest"] == version.version_digest
        and row["policy_digest"] == policy.digest
        and row["evidence"] == version.packet.get("sha256", "")
        and row["person"] not in (version.submitter_person, *version.barred)
        and (row.get("signed_by_person") or not policy.signed)
    )


def _lifetime(version: Version, at: datetime, promoted_until: str = "") -> int:
    """Return how many seconds a delegation may last: an hour, or up to the day of retirement or the end of an approval."""
    ends = [beginning_of(version.ends_on)] if version.ends_on else []
    ends += [datetime.fromisoformat(until) for until in (Terms.from_item(version.terms).until, promoted_until) if until]
    # By whole seconds, as the delegation counts: from the second that has begun to the last one that is whole.
    start = int(at.timestamp())
    return max(1, min([MAX_LIFETIME_SECONDS, *(int(end.timestamp()) - start for end in ends)]))


def _writes(delegation: Delegation, version: Version, pointer: Item, capture_rate: str, at: datetime) -> list[Write]:
    grant, kid = delegation.grant, delegation.kid
    limits: dict[str, Any] = {} if grant.max_receipts is None else {"max_receipts": grant.max_receipts}
    volume: dict[str, Any] = {}
    place = {"kid": kid, "model": version.model, "number": version.number, "folder": version.folder, "standing": grant.standing}
    row = {
        **place,
        "delegation": delegation.token,
        "version_digest": version.version_digest,
        "environment": grant.environment,
        "execution_id": version.execution_id,
        "capture_rate": capture_rate,
        "issued": timestamp(at),
        "expires_at": grant.expires,
        "gsi_pk": f"VERSION_KEYS#{version.model}#{version.number}",
        "gsi_sk": f"{timestamp(at)}#{kid}",
    }
    event = Event(
        kind="key.delegated",
        subject=f"key/{kid}",
        sequence=1,
        at=at,
        principal=registry_principal("delegate"),
        data={
            "kid": kid,
            "version": str(grant.version),
            "environment": grant.environment,
            "standing": grant.standing,
            "expires": grant.expires,
            "capture_rate": capture_rate,
            "delegator": grant.issuer,
            "delegation_sha256": sha256_hex(delegation.token.encode()),
            **limits,
        },
    )
    if grant.max_receipts is not None:
        volume["volume"] = {"opening": version.opening, "max": grant.max_receipts}
    head = {"version_digest": version.version_digest, "standing": version.standing.value, "approved": True, "rev": version.rev}
    return [
        Check(pointer_key(version.model, grant.environment), When(exists=True, equals={"rev": pointer["rev"]})),
        Check(version_key(version.model, version.number), When(exists=True, equals=head)),
        Put(delegation_key(kid), row),
        Put(open_key(kid), {**place, "exp": grant.expires, "collected": 0, **volume}),
        outbox_put(event),
    ]
