"""Who gives commands: persons in the roles of the registry, strangers, and the pipeline; and who may give which."""

from __future__ import annotations

from collections.abc import Mapping

from attestry.domain.commands import Command
from attestry.domain.principal import Principal, registry_principal
from tests.versions import session

PIPELINE_PRINCIPAL = registry_principal("pipeline")
PRINCIPALS: Mapping[str, Principal] = {
    "submitter": session("scientist", "dana"),
    "submitter as approver": session("approver", "dana"),
    "submitter under a second login": session("approver", "dana2"),
    "approver": session("approver", "erin"),
    "second approver": session("approver", "grace"),
    "validator": session("validator", "vera"),
    "deployer": session("deployer", "henry"),
    "deployer as approver": session("approver", "henry"),
    "other deployer": session("deployer", "judy"),
    "submitter as deployer": session("deployer", "dana2"),
    "deployer nobody knows": session("deployer", "mallory"),
    "consumer": session("consumer", "frank"),
    "admin": session("admin", "alex"),
    "other scientist": session("scientist", "judy"),
    "stranger": session("approver", "mallory"),
}
"""Who asks; a stranger acts as approver, but its login maps to no person."""

RIGHTFUL: Mapping[Command, str] = {
    Command.CLAIM: "submitter",
    Command.RETRY: "submitter",
    Command.REDO_PROCESSING: "submitter",
    Command.REDO_TRAINING: "submitter",
    Command.REDO_VALIDATION: "submitter",
    Command.HOLD: "approver",
    Command.RELEASE: "approver",
    Command.DEPLOY: "deployer",
    Command.ROLLBACK: "deployer",
    Command.KILL: "admin",
    Command.RETIRE: "deployer",
    Command.SCHEDULE: "deployer",
}
"""Who may give a command that a person gives."""
