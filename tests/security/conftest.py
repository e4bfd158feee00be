"""The running registry of the embedded tests, for the tests of who may what."""

from tests.embedded.conftest import stack

__all__ = ["stack"]
