"""Webhooks, over the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from attestry.client.api import RegistryClient

_PATH = "/v1/webhooks"


def list_webhooks(client: RegistryClient) -> list[dict[str, Any]]:
    """Return the webhooks, each with what became of its last delivery."""
    rows: list[dict[str, Any]] = client.call("GET", _PATH)["webhooks"]
    return rows


def add_webhook(
    client: RegistryClient, name: str, url: str, *, reason: str, kinds: Sequence[str] = (), models: Sequence[str] = ()
) -> dict[str, Any]:
    """Add a webhook; the answer has its `secret`, which is shown this once."""
    patterns = {**({"kinds": list(kinds)} if kinds else {}), **({"models": list(models)} if models else {})}
    answer: dict[str, Any] = client.call("POST", _PATH, body={"webhook": name, "url": url, "reason": reason, **patterns})
    return answer


def rotate_webhook(client: RegistryClient, name: str, *, reason: str) -> dict[str, Any]:
    """Give a webhook another secret; the answer has it in `secret`, this once."""
    answer: dict[str, Any] = client.call("POST", f"{_of(name)}/rotation", body={"reason": reason})
    return answer


def remove_webhook(client: RegistryClient, name: str, *, reason: str) -> dict[str, Any]:
    """Take a webhook away."""
    answer: dict[str, Any] = client.call("DELETE", _of(name), query={"reason": reason})
    return answer


def ping_webhook(client: RegistryClient, name: str) -> dict[str, Any]:
    """Have a message sent to a webhook that tells nothing."""
    answer: dict[str, Any] = client.call("POST", f"{_of(name)}/ping", body={})
    return answer


def _of(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"
