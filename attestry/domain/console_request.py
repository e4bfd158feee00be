"""The input of an execution of `RegistryDecision`: what a person asks for in the AWS console.

    {"action": "approve", "model": "credit-risk", "version": 3, "reason": "read the packet", "packet": "<SHA-256>"}

Rules:
- `action`, `model` and `reason` are always there, `version` but for a rollback; `decision` for `action` is the older form of the first two
  acts. Who acts is never in it.
- An unknown field is refused, because a typing error must not turn a wish into another; so is a name that occurs twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from attestry.domain.approvals import read_packet_sha256, read_reason
from attestry.domain.days import read_day
from attestry.domain.errors import InvalidInputError
from attestry.domain.names import ModelName, VersionReference
from attestry.domain.operations import ROLES_OF, Operation
from attestry.domain.stages import PIPELINE, Stage

DECISIONS: Final = (Operation.APPROVE, Operation.REJECT)
"""Acts that end in an approval's row."""

IN_CONSOLE: Final = (
    *DECISIONS,
    Operation.HOLD,
    Operation.RELEASE,
    Operation.REDO,
    Operation.DEPLOY,
    Operation.ROLLBACK,
    Operation.KILL,
    Operation.RETIRE,
)
"""Acts that can be asked for in the AWS console."""

_ALWAYS: Final = ("action", "decision", "model", "version", "reason")
_FURTHER: Final[Mapping[Operation, tuple[str, ...]]] = {
    Operation.APPROVE: ("packet", "promotion"),
    Operation.REJECT: ("packet", "promotion"),
    Operation.REDO: ("stage",),
    Operation.DEPLOY: ("environment",),
    Operation.ROLLBACK: ("environment",),
    Operation.RETIRE: ("on", "even_if_deployed"),
}
_MAX_NUMBER: Final = 10**9
PRODUCTION: Final = "production"


@dataclass(frozen=True)
class ConsoleRequest:
    """What is asked for.

    Attributes:
        operation: the act.
        model: the model's name.
        version: the version's number; of a rollback the one that is wanted back in place, None for whichever is kept.
        reason: why, checked.
        packet: SHA-256 of the packet that the person says they saw, or empty.
        stage: the stage that is to run again, of a redo.
        environment: where; empty for where the version belongs, and of a rollback for production.
        on: the day of a retirement; None for now.
        even_if_deployed: whether what stands deployed may be retired.
        promotion: the environment, of a decision on the promotion there; empty for one on the version.
    """

    operation: Operation
    model: str
    version: int | None
    reason: str
    packet: str = ""
    stage: Stage | None = None
    environment: str = ""
    on: date | None = None
    even_if_deployed: bool = False
    promotion: str = ""

    @property
    def number(self) -> int:
        """Return the version's number, of an act that has one."""
        if self.version is None:
            raise InvalidInputError.of("version", "required", "the version's number is needed")
        return self.version

    @property
    def subject(self) -> str:
        """Return what it is about: `MODEL@N`, or the model's environment."""
        return f"{self.model}/{self.environment or PRODUCTION}" if self.version is None else f"{self.model}@{self.version}"


def console_roles() -> tuple[str, ...]:
    """Return the roles that may do something in the AWS console, sorted."""
    return tuple(sorted({role for operation in IN_CONSOLE for role in ROLES_OF[operation]}))


def read_operation(body: Any) -> Operation:
    """Return what an input asks for.

    Raises:
        InvalidInputError: no JSON object, or no act that is known here.
    """
    if not isinstance(body, Mapping):
        raise InvalidInputError.of("", "type", "the input is a JSON object")
    action, decision = body.get("action"), body.get("decision")
    if action is not None and decision is not None and action != decision:
        raise InvalidInputError.of("decision", "contradiction", "'action' and 'decision' say two things; 'action' alone is enough")
    field, asked = ("action", action) if action is not None or decision is None else ("decision", decision)
    known = [operation.value for operation in (IN_CONSOLE if field == "action" else DECISIONS)]
    if asked not in known:
        raise InvalidInputError.of(field, "enum", f"the {field} is one of {', '.join(known)}")
    return Operation(asked)


def read_console_request(body: Any) -> ConsoleRequest:
    """Return the checked request.

    Args:
        body: the execution's input, parsed strictly.

    Raises:
        InvalidInputError: naming the field and the rule.
    """
    operation = read_operation(body)
    allowed = (*_ALWAYS, *_FURTHER.get(operation, ()))
    unknown = sorted(str(name) for name in body if name not in allowed)
    if unknown:
        raise InvalidInputError.of(unknown[0][:64], "unknown_field", f"{operation} takes the fields {', '.join(allowed)}")
    model, version = body.get("model"), body.get("version")
    if not isinstance(model, str):
        raise InvalidInputError.of("model", "model_name", "the model's name is a text")
    if version is not None or operation is not Operation.ROLLBACK:
        version = _number(model, version)
    else:
        ModelName(model)
    return ConsoleRequest(
        operation=operation,
        model=model,
        version=version,
        reason=read_reason(body.get("reason")),
        packet=_packet(body.get("packet")),
        stage=_stage(body.get("stage")) if operation is Operation.REDO else None,
        environment=read_environment("environment", body.get("environment")),
        on=_day(body.get("on")),
        even_if_deployed=_flag(body.get("even_if_deployed")),
        promotion=read_environment("promotion", body.get("promotion")),
    )


def _number(model: str, version: Any) -> int:
    if type(version) is not int or not 0 < version < _MAX_NUMBER:
        raise InvalidInputError.of("version", "version_reference", "the version's number is needed, a whole number from 1")
    return VersionReference.parse(f"{model}@{version}").number


def _packet(value: Any) -> str:
    try:
        return read_packet_sha256(value)
    except InvalidInputError as error:
        raise InvalidInputError.of("packet", "sha256", error.problems[0].message) from error


def _stage(value: Any) -> Stage:
    if not isinstance(value, str) or value not in [stage.value for stage in PIPELINE]:
        raise InvalidInputError.of("stage", "enum", f"the stage is one of {', '.join(stage.value for stage in PIPELINE)}")
    return Stage(value)


def read_environment(field: str, value: Any) -> str:
    """Return the checked name of an environment, empty where none is given.

    Raises:
        InvalidInputError: no such name.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInputError.of(field, "type", "the environment is a text")
    try:
        return str(ModelName(value))
    except InvalidInputError as error:
        raise InvalidInputError.of(field, "name", "an environment is named in lower-case letters, digits and hyphens") from error


def _day(value: Any) -> date | None:
    return None if value is None else date.fromisoformat(read_day("on", value))


def _flag(value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidInputError.of("even_if_deployed", "type", "even_if_deployed is true or false")
    return value
