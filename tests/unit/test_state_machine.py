"""Random sequences of all commands by all kinds of principals, over memory ports: the invariants hold after each command."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import RegistryMachine

SETTINGS = settings(
    max_examples=100,
    stateful_step_count=9,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
LONG = settings(SETTINGS, max_examples=2000, stateful_step_count=40, derandomize=False)


def test_the_invariants_hold_over_100_random_sequences_of_commands() -> None:
    run_state_machine_as_test(RegistryMachine, settings=SETTINGS)  # type: ignore[no-untyped-call]


@pytest.mark.long
def test_the_invariants_hold_over_2000_random_sequences_of_commands() -> None:
    run_state_machine_as_test(RegistryMachine, settings=LONG)  # type: ignore[no-untyped-call]
