"""Decision packets for tests of the client and the command line."""

from __future__ import annotations

from attestry.domain.approvals import ApprovalPolicy
from attestry.evidence.packet import Packet
from tests.approvals import ApprovalWorld
from tests.unit.client_double import ApiDouble
from tests.versions import POLICY


def packet_of(model: str, number: int, *, policy: ApprovalPolicy = POLICY) -> Packet:
    """A packet as the registry freezes it."""
    world = ApprovalWorld()
    world.waiting(policy=policy)
    return Packet.make({**world.packet().content, "model": model, "number": number})


def serve_packet(api: ApiDouble, model: str = "credit-risk", number: int = 2) -> Packet:
    """Let the API show a packet."""
    packet = packet_of(model, number)
    api.answer(f"GET /v1/models/{model}/versions/{number}/packet", {"sha256": packet.sha256, "content": packet.raw.decode()})
    return packet
