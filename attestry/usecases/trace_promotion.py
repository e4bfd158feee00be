"""The step of a trace about the approval of an environment: who approved that the version that answered came there."""

from __future__ import annotations

from collections.abc import Sequence

from attestry.domain.approvals import is_met
from attestry.domain.errors import IntegrityError
from attestry.domain.promotion import policy_for
from attestry.domain.replay import PLACINGS
from attestry.domain.version import Version
from attestry.ports import Item
from attestry.usecases.promotion_rows import PREFIX
from attestry.usecases.records import approving_persons


def check_promoted(version: Version, rows: Sequence[Item], environment: str, until: str) -> str:
    """Check that an environment with an approval of its own had given it when a key was delegated to there.

    Args:
        version: the version.
        rows: the rows of its partition.
        environment: where the key signed.
        until: what was placed before this time counts, RFC 3339.

    Returns:
        What is told of it; empty where the environment asks for none.

    Raises:
        IntegrityError: the version was placed there without it, or it is for another version digest, or by who asked.
    """
    policy = policy_for(version, environment)
    if policy is None:
        return ""
    moves = [r for r in rows if str(r["sk"]).startswith("TRANSITION#") and r["kind"] in PLACINGS and str(r["at"]) < until]
    placed = [m for m in moves if (m.get("data") or {}).get("environment") == environment]
    opened = (placed[-1]["data"].get("promotion") or {}).get("opened") if placed else None
    own = [r for r in rows if str(r["sk"]).startswith(PREFIX) and r.get("environment") == environment]
    asked = next((r for r in own if "decision" not in r and r.get("transition") == opened), None)
    given = [r for r in own if r.get("decision") == "approve" and r.get("opened") == opened]
    if asked is None or not is_met(policy, approving_persons(given)):
        raise IntegrityError(f"the version was placed in {environment} without the approval that this environment asks for")
    if any(r["version_digest"] != version.version_digest for r in given):
        raise IntegrityError(f"an approval for {environment} is for another version digest")
    persons = sorted(str(r["person"]) for r in given)
    if {str(asked["asked_by"]), str(version.submitter_person)} & set(persons):
        raise IntegrityError(f"who submitted the candidate, or asked for {environment}, approved it")
    return f"; for {environment} approved by {', '.join(persons)}, asked for by {asked['asked_by']}"
