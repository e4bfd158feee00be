"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does, and is never a test's subject. Properties that do not say how many
# examples they need are tried on 40 in `make test` and on 1,000 in `make test-long`.
settings.register_profile("registry", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("ATTESTRY_PROPERTIES", "registry"))

# Whoever runs the tests may be signed in to a registry (`attestry login`); no test acts as they.
os.environ["ATTESTRY_SETTINGS"] = str(Path(__file__).parents[1] / "build" / "nobody")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name parameters of bytes by their argument: two workers must collect the same names, and compressed bytes carry a time."""
    return argname if isinstance(val, bytes) else None
