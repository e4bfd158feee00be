"""Steps of a verification: that the registry's own policies were kept, not the manifest's rules alone.

Rules:

- Which policies a version was held against is what its first move names, by name, number and digest of an edition; a function that
  registers has signed that. Each document is in the bundle, under the digest that was named.
- An edition is in force from the event that published it to the event that published the next. By the order of the ledger the first move
  lies in between. What happened at one moment can come into the ledger the other way round, by batches of a busy minute: a margin of
  `MARGIN` is left, in the times of the ledger, which nobody can choose.
- The manifest asks for no less than each of them. Of an imported version its approval policy does, by the rules that apply to what the
  first move says the model was.
- Each approval, and each placing in an environment, has what they ask for by who really decided, in which role, with a signature of their
  own or not, and by the metrics that were computed: `attestry.domain.policy_checks`, which replays judge by as well.
- A version whose first move names no policy was held against none, or was made when none was recorded; that is told, and nothing follows.

What this step cannot see is an edition that the first move ought to have named and did not: a bundle holds the events that it holds. Who
reads the whole ledger sees it (`attestry.evidence.policy_history`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import IntegrityError
from attestry.domain.import_floor import ImportSubject, floors_of_import, impossible, raised
from attestry.domain.policies import PUBLISHED, Approver, EditionName, Policy, Promotion, Rule, named_editions, policy_subject
from attestry.domain.policy_checks import check_manifest, compared_metrics, replay_policy, unmet
from attestry.domain.promotion import DECIDED, OPENED
from attestry.evidence.bundle import policy_file
from attestry.evidence.canonical import parse_canonical
from attestry.evidence.case import Case, Entry
from attestry.evidence.checks_import import policy_of_import
from attestry.evidence.checks_moves import PLACINGS
from attestry.evidence.digests import sha256_hex
from attestry.evidence.verdict import MissingError

MARGIN: Final = timedelta(minutes=2)
NOT_RECORDED: Final = "no registry policy recorded: the registration names none, so the manifest's own rules are all that was asked"
_DECISIONS: Final = ("approval.given", "version.approved")


@dataclass(frozen=True)
class Edition:
    """An edition that the first move names: its document, and the events between which it was in force."""

    name: EditionName
    policy: Policy
    published: Entry
    replaced: Entry | None


@dataclass
class _Walk:
    """What is known between two moves: who has approved the version, and its coming to each environment, by the latest opening."""

    case: Case
    editions: tuple[Edition, ...]
    approvers: list[Approver] = field(default_factory=list)
    promoters: dict[str, list[Approver]] = field(default_factory=dict)
    judged: int = 0


def check_policies(case: Case) -> str:
    """Verify the policies that a version was held against when it was registered, and that its approvals and placings kept them."""
    first = case.need_moves()[0].entry
    named = named_editions(first.data)
    # All are taken first: where one is not there, the others are no strangers.
    for name in named:
        case.take(policy_file(name.name, name.number))
    case.facts["policies"] = []
    if not named:
        return NOT_RECORDED
    walk = _Walk(case, tuple(_edition(case, first, name) for name in named))
    case.facts["policies"] = [_told(edition) for edition in walk.editions]
    asked = _check_import(walk, first) if case.was_imported() else _check_made_here(walk)
    names = ", ".join(str(name) for name in named)
    done = f"; {walk.judged} approvals and placings have what they ask for" if walk.judged else "; it was neither approved nor put in place"
    return f"{names}, in force when it was registered: {asked}{done}"


def _edition(case: Case, first: Entry, name: EditionName) -> Edition:
    raw = case.take(policy_file(name.name, name.number))
    if raw is None:
        raise MissingError(f"the policy {name}, which the registration names, is not in the bundle; a bundle that is made anew has it")
    if sha256_hex(raw) != name.sha256:
        raise IntegrityError(f"the policy {name} in the bundle is another document than the one that the registration names")
    policy = Policy.from_mapping(parse_canonical(raw))
    if policy.name != name.name:
        raise IntegrityError(f"the policy {name} in the bundle is one that is called {policy.name}")
    published, replaced = _in_force(case, first, name)
    return Edition(name, policy, published, replaced)


def _in_force(case: Case, first: Entry, name: EditionName) -> tuple[Entry, Entry | None]:
    """Return the events between which an edition was in force, once the first move is shown to lie in between."""
    events = {e.sequence: e for e in case.events(PUBLISHED, policy_subject(name.name))}
    published, replaced = events.pop(name.number, None), events.pop(name.number + 1, None)
    if events:
        raise IntegrityError(f"the bundle holds the publication of edition {min(events)} of {name.name}, and nothing rests on it")
    if published is None:
        raise MissingError(f"the event that published {name} is not in the bundle, so it is not shown when it was in force")
    if (published.data["number"], published.data["sha256"]) != (name.number, name.sha256):
        raise IntegrityError(f"{name} was published with another digest than the registration names")
    if published.index is None and first.index is not None:
        raise MissingError(f"the event that published {name} is not in the ledger yet")
    if is_well_before(first.at, published.at):
        raise IntegrityError(f"{name} was not in force yet when the version was registered: published at {published.place}")
    if replaced is not None and replaced.data["previous"] != name.sha256:
        raise IntegrityError(f"the edition after {name} says that it replaced another document")
    if replaced is not None and is_well_before(replaced.at, first.at):
        raise IntegrityError(f"{name} was in force no more when the version was registered: replaced at {replaced.place}")
    return published, replaced


def is_well_before(one: str, other: str) -> bool:
    """Return whether a ledger time lies before another one by more than what their order in the ledger can be off."""
    return datetime.fromisoformat(other) - datetime.fromisoformat(one) > MARGIN


def _check_made_here(walk: _Walk) -> str:
    case, manifest = walk.case, walk.case.need_manifest()
    for edition in walk.editions:
        for objection in check_manifest(edition.policy, manifest):
            raise IntegrityError(f"the manifest asks for less than {edition.name}: {objection.message}")
    first = manifest.deployment.environment
    for entry in _approvals_and_placings(walk):
        environment = first if entry.kind in _DECISIONS else str(entry.data["environment"])
        promoters = walk.approvers if environment == first else walk.promoters.get(environment, [])
        if "VALIDATION" not in case.records:
            raise MissingError("rests on the record of VALIDATION, which is not known")
        validation = case.records["VALIDATION"]
        metrics = {str(name): float(value) for name, value in validation["metrics"].items() if value is not None}
        compared = compared_metrics(validation["gates"])
        promotion = Promotion(manifest, environment, tuple(walk.approvers), metrics, compared, tuple(promoters))
        for edition in walk.editions:
            for objection in replay_policy(edition.policy, promotion):
                raise IntegrityError(f"{_named(entry)} does not have what {edition.name} asks for: {objection.message}")
    return "the manifest asks for no less"


def _check_import(walk: _Walk, first: Entry) -> str:
    case, asked = walk.case, policy_of_import(walk.case)
    model = case.need_bundle().index.model
    judged_as, skipped = first.data.get("judged_as"), 0
    applying: list[tuple[Edition, Rule]] = []
    for edition in walk.editions:
        if judged_as is not None:
            rules = ImportSubject(model, str(judged_as["risk_tier"]), dict(judged_as["labels"])).rules(edition.policy)
        else:
            # What the model was then is not recorded, so what narrows by it is not judged.
            narrowed = [r for r in edition.policy.rules if r.applies.risk_tiers or r.applies.labels]
            rules = [r for r in ImportSubject(model).rules(edition.policy) if r not in narrowed]
            skipped += len(narrowed)
        applying += [(edition, rule) for rule in rules]
    for edition, rule in applying:
        _check_asked(edition, rule, asked)
    for entry in _approvals_and_placings(walk):
        for edition, rule in applying:
            for floor in floors_of_import(rule):
                for objection in unmet(f"{edition.policy.name}/{rule.name}", floor, walk.approvers, "approval"):
                    raise IntegrityError(f"{_named(entry)} does not have what {edition.name} asks for: {objection.message}")
    if skipped:
        case.notes.append(
            f"{skipped} rules of policies narrow by risk tier or labels, which the import does not tell: they were not judged"
        )
    return "what was asked of the import is no less"


def _check_asked(edition: Edition, rule: Rule, asked: ApprovalPolicy) -> None:
    for problem in impossible(rule):
        raise IntegrityError(f"the version was imported, and {edition.name} lets no import pass: {problem.message}")
    if raised(asked, rule) != asked:
        raise IntegrityError(f"the approval policy of the import asks for less than {edition.name}, rule {rule.name}")


def _approvals_and_placings(walk: _Walk) -> Iterator[Entry]:
    """Yield each approval that was completed and each placing, the walk at what was decided by then.

    What was decided before the version was judged again counts for nothing: `attestry.evidence.checks_approval` sees to it.
    """
    moves = [move.entry for move in walk.case.need_moves()]
    redone = max((entry.sequence for entry in moves if entry.kind == "stage.reopened"), default=0)
    for entry in (e for e in moves if e.sequence > redone):
        if entry.kind == "stage.started" and entry.stage == "APPROVAL":
            walk.approvers = []
        elif entry.kind == OPENED:
            walk.promoters[str(entry.data["environment"])] = []
        elif entry.kind in DECIDED:
            walk.promoters.setdefault(str(entry.data["environment"]), []).extend(_approver(entry))
        elif entry.kind in _DECISIONS and entry.stage == "APPROVAL":
            walk.approvers.extend(_approver(entry))
        if entry.kind == "version.approved" or entry.kind in PLACINGS:
            walk.judged += 1
            yield entry


def _approver(entry: Entry) -> Iterator[Approver]:
    """Yield who approved by a decision; the registry's own approval by its gates is nobody's."""
    principal: Mapping[str, Any] = entry.event["principal"]
    if entry.data.get("decision") == "approve" and principal["person"]:
        yield Approver(str(principal["person"]), tuple(principal["roles"]), bool(entry.data["signed_by_person"]))


def _named(entry: Entry) -> str:
    return f"move {entry.sequence} ({entry.kind})"


def _told(edition: Edition) -> dict[str, Any]:
    replaced = None if edition.replaced is None else edition.replaced.place
    return {**edition.name.to_item(), "published": edition.published.place, "replaced": replaced}
