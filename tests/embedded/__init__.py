"""Tests on the embedded AWS."""

import pytest

pytest.register_assert_rewrite("tests.embedded.flows", "tests.embedded.flow_versions")
