"""The running registry of the embedded tests, for the attacks, and what each of them came to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attacks.scene import scene
from tests.embedded.conftest import stack

__all__ = ["scene", "stack", "tell"]

TOLD = pytest.StashKey[dict[str, list[str]]]()

Tell = Callable[[str], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Keeps what stopped or revealed the attack of this test, for the table at the end of the run."""
    kept = request.config.stash.setdefault(TOLD, {}).setdefault(request.node.name, [])
    return kept.append
