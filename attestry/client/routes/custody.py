"""Legal holds and disposals, as a client asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attestry.client.api import RegistryClient


def set_legal_hold(client: RegistryClient, model: str, number: int, reason: str, *, lift: bool = False) -> Any:
    """Have nothing of a version disposed until the hold is lifted, or lift it.

    Args:
        client: the registry.
        model: the model's name.
        number: the version's number.
        reason: why.
        lift: end the hold.
    """
    return client.call("POST", f"/v1/models/{model}/versions/{number}/legal-hold", body={"reason": reason, "lift": lift})


def dispose(client: RegistryClient, model: str, number: int, reason: str, *, confirm: bool = False) -> Any:
    """Ask for the disposal of what a version has left, or confirm it as another person; confirmed again, it is gone on with.

    Args:
        client: the registry.
        model: the model's name.
        number: the version's number.
        reason: why.
        confirm: confirm what somebody else has asked for.
    """
    return client.call("POST", f"/v1/models/{model}/versions/{number}/disposal", body={"reason": reason, "confirm": confirm})
