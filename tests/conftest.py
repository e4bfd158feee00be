"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does, and is never a test's subject.
settings.register_profile("registry", deadline=None)
settings.load_profile("registry")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name parameters of bytes by their argument: two workers must collect the same names, and compressed bytes carry a time."""
    return argname if isinstance(val, bytes) else None
