"""The decision packet of a version: read back and checked, for who decides and for who shows it."""

from __future__ import annotations

from typing import Any

from attestry.domain.errors import IntegrityError, NotFoundError
from attestry.domain.promotion import Promotion, promotion_of
from attestry.domain.version import Version
from attestry.evidence.packet import MAX_PACKET_BYTES, Packet, page_key
from attestry.evidence.promotion_packet import PromotionPacket, promotion_packet_key, promotion_page_key
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.records import load_version, transition_key

PAGE_SECONDS = 15 * 60


def show_packet(meta: MetaStore, store: ObjectStore, model: str, number: int) -> dict[str, Any]:
    """Return a version's decision packet as exactly the text that was digested, and a URL of the page that shows it.

    Raises:
        NotFoundError: no such version, or its approval has not been opened yet.
        IntegrityError: the stored packet is not the one that the version names.
    """
    version = load_version(meta, model, number)
    if not version.packet:
        raise NotFoundError(
            f"{version.reference} has no decision packet: it is in {version.stage} {version.status}, "
            "and the packet is frozen when its approval opens"
        )
    place = version.packet
    packet = load_packet(store, version)
    page = page_key(version.folder, int(place["transition"]))
    return {
        "model": model,
        "version": number,
        "sha256": packet.sha256,
        "key": place["key"],
        "version_id": place["version_id"],
        "transition": place["transition"],
        "content": packet.raw.decode(),
        "page": {"sha256": place["page_sha256"], "url": store.presign_get(page, None, seconds=PAGE_SECONDS)},
    }


def show_promotion_packet(meta: MetaStore, store: ObjectStore, model: str, number: int, environment: str) -> dict[str, Any]:
    """Return the packet of a version's latest promotion to an environment, as exactly the text that was digested, and its page's URL.

    Raises:
        NotFoundError: no such version, or nobody has asked for a promotion there that people approve.
        IntegrityError: the stored packet is not the one that the version names.
    """
    version = load_version(meta, model, number)
    promotion = promotion_of(version, environment)
    if promotion is None:
        raise NotFoundError(f"nobody has asked for a promotion of {version.reference} to {environment} that people approve")
    packet = load_promotion_packet(store, version, promotion)
    key = promotion_packet_key(version.folder, packet.sha256)
    told = {"model": model, "version": number, "sha256": packet.sha256, "key": key, "transition": promotion.opened}
    shown: dict[str, Any] = {"content": packet.raw.decode(), "promotion": environment}
    opened = meta.get(transition_key(model, number, promotion.opened)) or {}
    page_sha256 = (opened.get("data") or {}).get("page_sha256")
    if page_sha256:  # promotions of former times have no page
        url = store.presign_get(promotion_page_key(version.folder, packet.sha256), None, seconds=PAGE_SECONDS)
        shown["page"] = {"sha256": page_sha256, "url": url}
    return {**told, **shown}


def load_packet(store: ObjectStore, version: Version) -> Packet:
    """Return the packet that the version names.

    Raises:
        IntegrityError: the stored bytes have another digest, or speak of another version.
        NotFoundError: the recorded S3 version is gone.
    """
    place = version.packet
    packet = Packet.parse(store.read(place["key"], place["version_id"], max_bytes=MAX_PACKET_BYTES))
    of = (packet.reference, packet.content["version_digest"], packet.content["transition"])
    if packet.sha256 != place["sha256"] or of != (version.reference, version.version_digest, place["transition"]):
        raise IntegrityError(f"the decision packet of {version.reference} is not the one that was frozen")
    return packet


def load_promotion_packet(store: ObjectStore, version: Version, promotion: Promotion) -> PromotionPacket:
    """Return the packet that a promotion rests on.

    Raises:
        IntegrityError: the stored bytes have another digest, or speak of another promotion.
        NotFoundError: it is gone.
    """
    raw = store.read(promotion_packet_key(version.folder, promotion.packet), None, max_bytes=MAX_PACKET_BYTES)
    packet = PromotionPacket.parse(raw)
    of = (packet.reference, packet.content["version_digest"], packet.content["transition"], packet.content["environment"])
    if packet.sha256 != promotion.packet or of != (version.reference, version.version_digest, promotion.opened, promotion.environment):
        raise IntegrityError(
            f"the packet of the promotion of {version.reference} to {promotion.environment} is not the one that was frozen"
        )
    return packet
