"""Promotion: from one environment to the next, in the order that the manifest names, none left out.

A version stands in one environment at a time: a promotion is a deployment there, by the strategy of the manifest, and the place before is
vacant from the same transaction on. It needs what every deployment needs; no environment takes a version that is not approved.
"""

from __future__ import annotations

from attestry.domain.errors import ConflictError
from attestry.domain.stages import Standing
from attestry.domain.version import Version


def next_environment(version: Version) -> str | None:
    """Return the environment that a version may be promoted to from where it is, or None."""
    order = (version.deployment_environment, *version.promotes_to)
    place = max(i for i, name in enumerate(order) if name == version.deployment_environment)
    return order[place + 1] if place + 1 < len(order) else None


def check_promotion(version: Version, to: str) -> None:
    """Refuse a promotion that leaves out an environment, or of a version that does not stand deployed where it is.

    Raises:
        ConflictError: with the rule.
    """
    following = next_environment(version)
    if to != following:
        may = f"the next one is {following}" if following else "there is none after it"
        raise ConflictError(f"{version.reference} belongs to {version.deployment_environment}, and is not promoted to {to}: {may}")
    if version.standing is not Standing.DEPLOYED:
        raise ConflictError(
            f"{version.reference} stands {version.standing}; only what stands deployed in {version.deployment_environment} is promoted"
        )
