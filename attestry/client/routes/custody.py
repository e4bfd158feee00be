"""Legal holds and disposals."""

from __future__ import annotations

from typing import Any

from attestry.client.connection import Connection
from attestry.client.paths import version_path


class CustodyRoutes(Connection):
    """How long what a version left is kept, and its end."""

    def set_legal_hold(self, model: str, number: int, reason: str, *, lift: bool = False) -> Any:
        """Have nothing of a version disposed until the hold is lifted, or lift it."""
        return self.post(f"{version_path(model, number)}/legal-hold", {"reason": reason, "lift": lift})

    def dispose(self, model: str, number: int, reason: str, *, confirm: bool = False) -> Any:
        """Ask for the disposal of what a version has left, or confirm it as another person; confirmed again, it is gone on with."""
        return self.post(f"{version_path(model, number)}/disposal", {"reason": reason, "confirm": confirm})
