"""Capture: set the share of predictions whose payload is kept, for what is deployed in an environment.

The rate that applied to a prediction is in its receipt's row. Who set which rate when is the event of the deployment, and of each change
since: `capture.set`, written in one transaction with the pointer. A rollback brings back the rate that the version had when it left.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from attestry.domain.errors import ConditionFailedError, ConflictError, InvalidInputError
from attestry.domain.events import Event, timestamp
from attestry.domain.principal import Principal
from attestry.ports import MetaStore, Update, When
from attestry.usecases.pointer import require_deployed
from attestry.usecases.records import outbox_put, pointer_key

SET: Final = "capture.set"
MAX_DECIMALS: Final = 6
TRIES: Final = 8


@dataclass(frozen=True)
class CaptureRate:
    """The outcome.

    Attributes:
        number: the version that is deployed.
        rate: the rate from now on, as text.
        previous: the rate before.
        changed: False when it was the rate already.
    """

    number: int
    rate: str
    previous: str
    changed: bool


def read_rate(value: Any) -> str:
    """Return a checked capture rate as text without needless digits.

    Raises:
        InvalidInputError: no number from 0 to 1 with at most six decimals.
    """
    rule = f"the capture rate is a number from 0 to 1 with at most {MAX_DECIMALS} decimals"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or len(str(value)) > 20:
        raise InvalidInputError.of("rate", "type", rule)
    try:
        rate = Decimal(str(value))
    except InvalidOperation as error:
        raise InvalidInputError.of("rate", "type", rule) from error
    if not rate.is_finite() or not 0 <= rate <= 1 or rate != round(rate, MAX_DECIMALS):
        raise InvalidInputError.of("rate", "range", rule)
    return format(abs(rate).normalize(), "f")


def set_capture_rate(meta: MetaStore, model: str, environment: str, rate: str, *, reason: str, by: Principal, at: datetime) -> CaptureRate:
    """Set the rate for what is deployed; the same again changes nothing.

    Args:
        meta: the table.
        model: the model's name.
        environment: where, for example `production`.
        rate: see `read_rate`.
        reason: why, checked.
        by: who.
        at: the time.

    Raises:
        NotFoundError: nothing is deployed there.
        ConflictError: the pointer keeps moving.
    """
    key = pointer_key(model, environment)
    for _ in range(TRIES):
        pointer = require_deployed(meta.get(key), model, environment)
        number, previous, rev = int(pointer["number"]), str(pointer["capture_rate"]), int(pointer["rev"])
        if Decimal(previous) == Decimal(rate):
            return CaptureRate(number, previous, previous, changed=False)
        changes = {"capture_rate": rate, "rev": rev + 1, "capture": {"by": by.person or by.login, "at": timestamp(at), "reason": reason}}
        facts = {"rate": rate, "previous": previous, "number": number, "reason": reason}
        event = Event(SET, f"{model}/{environment}", rev + 1, at, by, facts)
        try:
            meta.transact([Update(key, changes, When(exists=True, equals={"rev": rev})), outbox_put(event)])
        except ConditionFailedError:
            continue
        return CaptureRate(number, rate, previous, changed=True)
    raise ConflictError(f"the deployed version of {model} in {environment} is being changed; try again")
