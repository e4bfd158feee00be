"""Webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attestry.client.connection import Connection
from attestry.client.paths import path_part

_PATH = "/v1/webhooks"


class WebhookRoutes(Connection):
    """Addresses that are told of events."""

    def webhooks(self) -> list[dict[str, Any]]:
        """Return the webhooks, each with what became of its last delivery."""
        rows: list[dict[str, Any]] = self.get(_PATH)["webhooks"]
        return rows

    def add_webhook(self, name: str, url: str, *, reason: str, kinds: Sequence[str] = (), models: Sequence[str] = ()) -> Any:
        """Add a webhook; the answer has its `secret`, which is shown this once."""
        patterns = {**({"kinds": list(kinds)} if kinds else {}), **({"models": list(models)} if models else {})}
        return self.post(_PATH, {"webhook": name, "url": url, "reason": reason, **patterns})

    def rotate_webhook(self, name: str, *, reason: str) -> Any:
        """Give a webhook another secret; the answer has it in `secret`, this once."""
        return self.post(f"{_PATH}/{path_part(name)}/rotation", {"reason": reason})

    def remove_webhook(self, name: str, *, reason: str) -> Any:
        """Take a webhook away."""
        return self.call("DELETE", f"{_PATH}/{path_part(name)}", query={"reason": reason})

    def ping_webhook(self, name: str) -> Any:
        """Have a message sent to a webhook that tells nothing."""
        return self.post(f"{_PATH}/{path_part(name)}/ping", {})
