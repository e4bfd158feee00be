"""What sequences are made of, and how often: candidates, their policies, who asks, and which commands lead on."""

from __future__ import annotations

from typing import Any

from attestry.domain.commands import Command
from attestry.domain.stages import Stage
from tests.machine.people import PRINCIPALS
from tests.machine.promotions import DEPLOYMENTS, ENVIRONMENTS

MAX_VERSIONS = 4
NOBODY = 99
SCRIPTS = (Stage.PROCESSING, Stage.TRAINING, Stage.VALIDATION)
POLICIES: dict[str, dict[str, Any]] = {
    "one approver": {"people": {"roles": ["approver"], "count": 1}},
    "two approvers": {"people": {"roles": ["approver"], "count": 2}},
    "validator or approver": {"people": {"roles": ["approver", "validator"], "count": 1}},
    "one approver, for days": {"people": {"roles": ["approver"], "count": 1}, "valid_days": 7, "on_lapse": "rollback"},
    "automatic": {"automatic": True},
}
DEMANDING = "one approver, with a record"
DEMAND = [{"kind": "leakage-check", "overlap_at_most": 0}]
"""What a validator hands in before the approval is completed."""

WAYS_TO_APPROVE = (*sorted(POLICIES), DEMANDING)
PEOPLE = tuple(sorted(PRINCIPALS))
WAYS = tuple(sorted(DEPLOYMENTS))
ANYWHERE = (*ENVIRONMENTS, "elsewhere")
COMMANDS_PER_STEP = 5
LEADING = 0.55
"""Share of the commands that are chosen among those that lead on."""

DEFYING = 0.2
"""Share of those that are to be refused where the version is."""

ANYBODY = 0.1
"""Share of these that are given by anybody."""

DECIDING = [
    *sorted(n for n, p in PRINCIPALS.items() if set(p.roles) & {"approver", "validator"}),
    "approver",
    "second approver",
    "consumer",
]
PROMOTING = 0.75
"""Share of the commands that lead on by its promotion what stands where it may be promoted."""

TO_PROMOTE = [*DECIDING, "validator", "validator", "approver", "second approver"]
ENDING = 0.4
"""Share of the commands that lead on what stands by an approval for some days, towards its end."""

RIGHTLY = 0.6
"""Share of the decisions on promotions that are by one of those who mostly may."""

WEIGHTS = {
    Command.START: 12,
    Command.SUCCEED: 12,
    Command.FAIL: 1,
    Command.GATES_FAIL: 1,
    Command.APPROVE: 12,
    Command.REJECT: 1,
    Command.RETRY: 4,
    Command.REDO_PROCESSING: 1,
    Command.REDO_VALIDATION: 2,
    Command.HOLD: 1.5,
    Command.RELEASE: 5,
    Command.DEPLOY: 4,
    Command.ROLLBACK: 4,
    Command.KILL: 0.3,
    Command.RETIRE: 0.3,
    Command.SCHEDULE: 0.3,
    Command.EXPIRE: 0.3,
}
"""How often a command is given where it leads on: most of them forward, few to an end."""
TO_APPROVAL = 7
"""Steps of the pipeline from the registration to where it waits for a decision."""
