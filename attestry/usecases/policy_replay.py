"""Policy replay: judge promotions of the past by a policy, published or not, by what was recorded then. It changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from attestry.domain.policies import Approver, Objection, Policy, Promotion
from attestry.domain.policy_checks import compared_metrics, replay_policy
from attestry.domain.version import Version
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.each_row import each_row
from attestry.usecases.manifests import load_manifest
from attestry.usecases.promotion_rows import PREFIX
from attestry.usecases.records import MODELS, version_key

PROMOTIONS: Final = frozenset({"version.approved", "version.deployed"})


@dataclass(frozen=True)
class Replayed:
    """A promotion of the past, and what a policy has against it.

    Attributes:
        reference: `MODEL@N`.
        kind: `version.approved` or `version.deployed`.
        at: when, RFC 3339.
        objections: why it would have been stopped; empty where it would have passed.
    """

    reference: str
    kind: str
    at: str
    objections: tuple[Objection, ...]

    def to_item(self) -> dict[str, Any]:
        """Return it as JSON."""
        against = [{"rule": o.rule, "field": o.field, "message": o.message} for o in self.objections]
        return {"version": self.reference, "kind": self.kind, "at": self.at, "stopped": bool(against), "objections": against}


def replay_promotions(
    meta: MetaStore,
    store: ObjectStore,
    policy: Policy,
    *,
    since: str,
    after: str = "",
    seconds: float = 15.0,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[list[Replayed], str | None]:
    """Judge every approval and deployment since a date by a policy, the models by name and their versions by number.

    Args:
        meta: the table.
        store: the model store, for the manifests.
        policy: published or not.
        since: RFC 3339 date or time in UTC; earlier promotions are passed over.
        after: go on behind this model.
        seconds: how long to take on further models.
        monotonic: the clock for that.

    Returns:
        The promotions, and the model to go on behind, None after the last.

    Raises:
        IntegrityError: a manifest is not the one that was registered.
    """
    end, seen, found = monotonic() + seconds, "", list[Replayed]()
    for model in (str(row["model"]) for row in each_row(meta, MODELS, after=after)):
        if seen and monotonic() >= end:
            return found, seen
        seen = model
        for row in each_row(meta, f"VERSIONS#{model}"):
            if str(row["updated"]) >= since:
                found += _replay_version(meta, store, policy, Version.from_item(row), since)
    return found, None


def _replay_version(meta: MetaStore, store: ObjectStore, policy: Policy, version: Version, since: str) -> Iterator[Replayed]:
    rows = meta.query(version_key(version.model, version.number).partition)
    moves = [r for r in rows if str(r["sk"]).startswith("TRANSITION#") and r["kind"] in PROMOTIONS and str(r["at"]) >= since]
    if not moves:
        return
    if version.imported:
        return  # it has no manifest; a policy in force when it was imported raised what it asks for
    manifest = load_manifest(store, version)
    compared = compared_metrics(version.gates)
    metrics = {name: float(value) for name, value in version.metrics.items()}
    first = manifest.deployment.environment
    for move in moves:
        environment = str(move["data"].get("environment") or first)
        approvers = tuple(_approvers(rows, "APPROVAL#", str(move["at"]), version.version_digest))
        promoters = approvers if environment == first else tuple(_promoters(rows, move, environment, version.version_digest))
        promotion = Promotion(manifest, environment, approvers, metrics, compared, promoters)
        yield Replayed(version.reference, str(move["kind"]), str(move["at"]), tuple(replay_policy(policy, promotion)))


def _promoters(rows: list[Item], move: Item, environment: str, version_digest: str) -> Iterator[Approver]:
    """Yield who approved the promotion that a placing rests on; of one that asked nobody, nobody."""
    opened = (move["data"].get("promotion") or {}).get("opened")
    if opened is not None:
        yield from _approvers(rows, f"{PREFIX}{environment}#{int(opened):06d}#", str(move["at"]), version_digest)


def _approvers(rows: list[Item], prefix: str, at: str, version_digest: str) -> Iterator[Approver]:
    """Yield who had approved the version's digest by then; the registry's own approval by its gates is nobody's."""
    for row in rows:
        if str(row["sk"]).startswith(prefix) and row["decision"] == "approve" and str(row["at"]) <= at:
            principal = row["principal"]
            if row["version_digest"] == version_digest and principal.get("person"):
                yield Approver(str(row["person"]), tuple(principal["roles"]), bool(row.get("signed_by_person")))
