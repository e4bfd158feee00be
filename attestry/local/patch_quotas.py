"""Patch: how many resources a stack may hold.

This is the one patch that goes away from AWS: CloudFormation takes 500 resources, and so does the emulator. The embedded registry has every
option at once (all executors, bearer tokens, webhooks), which no deployment can have; that each deployment stays below 500 is checked on
its own template, by the tests of `infra`.
"""

from __future__ import annotations

from attestry.local.patching import PatchError, load

RESOURCES = 700


def apply() -> None:
    """Let a stack hold more resources.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    engine = load("ministack.services.cloudformation.engine")
    quotas = getattr(engine, "_SECTION_QUOTAS", ())
    if ("Resources", 500) not in {(quota[0], quota[3]) for quota in quotas}:
        raise PatchError("the emulator has no quota of 500 resources")
    engine._SECTION_QUOTAS = tuple((*quota[:3], RESOURCES if quota[0] == "Resources" else quota[3]) for quota in quotas)
