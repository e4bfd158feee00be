"""What people do to versions over the API: from an upload to retirement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attestry.client.connection import Connection
from attestry.client.paths import given, model_path, version_path
from attestry.domain.errors import IntegrityError

if TYPE_CHECKING:
    from attestry.evidence.packet import Packet
    from attestry.evidence.promotion_packet import PromotionPacket


class ActsRoutes(Connection):
    """Uploads, decisions, deployments, and everything else that moves a version."""

    def announce_upload(self, files: Sequence[Mapping[str, Any]]) -> Any:
        """Announce files (`name`, `size`, `sha256`) and return where each is to be PUT."""
        return self.post("/v1/uploads", {"files": list(files)})

    def promotion_packet(self, model: str, number: int, environment: str) -> PromotionPacket:
        """Return the packet that a decision on a version's promotion to an environment rests on, its digest checked.

        Raises:
            IntegrityError: the text has another digest than the registry says, or it is of another promotion.
        """
        from attestry.evidence.promotion_packet import PromotionPacket

        answer = self.get(f"{version_path(model, number)}/packet", {"promotion": environment})
        packet = PromotionPacket.parse(str(answer["content"]).encode())
        if packet.sha256 != answer["sha256"] or (packet.reference, packet.content["environment"]) != (f"{model}@{number}", environment):
            raise IntegrityError(f"the registry showed a packet of {packet.reference} with another digest than it says")
        return packet

    def packet(self, model: str, number: int) -> Packet:
        """Return the packet that a decision on a version rests on, its digest checked.

        Raises:
            IntegrityError: the text has another digest than the registry says, or it is of another version.
        """
        from attestry.evidence.packet import Packet

        answer = self.get(f"{version_path(model, number)}/packet")
        packet = Packet.parse(str(answer["content"]).encode())
        if packet.sha256 != answer["sha256"] or packet.reference != f"{model}@{number}":
            raise IntegrityError(f"the registry showed a packet of {packet.reference} with another digest than it says")
        return packet

    def decide(
        self,
        model: str,
        number: int,
        decision: str,
        reason: str,
        *,
        packet_sha256: str = "",
        signature: str = "",
        conditions: Mapping[str, Any] | None = None,
        promotion: str = "",
    ) -> Any:
        """Approve or reject a version that waits for it, or its promotion to an environment.

        Args:
            model: the model's name.
            number: the version's number.
            decision: `approve` or `reject`.
            reason: why.
            packet_sha256: digest of the packet that was read; refused where the version has another.
            signature: the caller's own signature over it, armored; only to approve.
            conditions: under what the caller approves: `until` (day), `max_predictions`, `segments` (feature to values).
            promotion: the environment, to decide on the promotion there; then without conditions.
        """
        given = (
            ("packet_sha256", packet_sha256),
            ("signature", signature),
            ("conditions", dict(conditions or {})),
            ("promotion", promotion),
        )
        seen = {name: value for name, value in given if value}
        return self.post(f"{version_path(model, number)}/decision", {"decision": decision, "reason": reason, **seen})

    def validate(self, model: str, number: int, record: str, signature: str) -> Any:
        """Hand in a validation record of a version.

        Args:
            model: the model's name.
            number: the version's number.
            record: the record's text, see `attestry.client.validate`.
            signature: the caller's own signature over its digest, armored.
        """
        return self.post(f"{version_path(model, number)}/validations", {"record": record, "signature": signature})

    def claim(self, model: str, number: int) -> Any:
        """Make the caller the submitter of a version that was uploaded by hand under the caller's own prefix."""
        return self.post(f"{version_path(model, number)}/claim", {})

    def declare_conflict(self, model: str, reason: str, *, person: str = "", withdraw: bool = False) -> Any:
        """Record a conflict of interest of the caller's on a model; an admin names another person, or withdraws one."""
        return self.post(f"{model_path(model)}/conflicts", {"reason": reason, "person": person, "withdraw": withdraw})

    def deploy(self, model: str, number: int, reason: str, *, strategy: str | None = None) -> Any:
        """Begin to put an approved version in place, by its manifest's strategy or `all-at-once`."""
        return self.post(f"{version_path(model, number)}/deployment", {"reason": reason, **given(strategy=strategy)})

    def promote(self, model: str, number: int, to: str, reason: str, *, withdraw: bool = False) -> Any:
        """Begin to put a version in place in the environment after the one where it stands deployed, or ask for that one's approval.

        Args:
            model: the model's name.
            number: the version's number.
            to: the environment.
            reason: why.
            withdraw: take back what was asked for, where the version has not come there yet.
        """
        body = {"to": to, "reason": reason, **({"withdraw": True} if withdraw else {})}
        return self.post(f"{version_path(model, number)}/promotion", body)

    def change_rollout(
        self, model: str, action: str, reason: str, *, environment: str = "production", version: int | None = None, step: int | None = None
    ) -> Any:
        """Advance, halt or finish the rollout of an environment; with version, and step to leave, the same again changes nothing."""
        meant = {name: value for name, value in (("version", version), ("step", step)) if value is not None}
        return self.post(f"{model_path(model)}/rollout", {"action": action, "reason": reason, "environment": environment, **meant})

    def rollback(self, model: str, reason: str, *, to: int | None = None, environment: str | None = None) -> Any:
        """Put the version that is kept for rollback, or another approved one, back in place.

        Args:
            model: the model's name.
            reason: why.
            to: number of that version. Without it the registry refuses a rollback right after a rollback.
            environment: where; by default in production.
        """
        return self.post(f"{model_path(model)}/rollback", {"reason": reason, **given(to=to, environment=environment)})

    def set_capture(self, model: str, rate: str, reason: str, *, environment: str = "production") -> Any:
        """Set the share of predictions, 0 to 1, whose payload is kept for what is deployed."""
        return self.post(f"{model_path(model)}/capture", {"rate": rate, "reason": reason, "environment": environment})

    def kill(self, model: str, number: int, reason: str, *, drill: bool = False) -> Any:
        """Take a version out of use at once; it answers nothing from 5 seconds after this returns on.

        Args:
            model: the model's name.
            number: the version's number.
            reason: why.
            drill: refuse it unless the version stands deployed elsewhere than in production.
        """
        return self.post(f"{version_path(model, number)}/kill", {"reason": reason, **({"drill": True} if drill else {})})

    def retire(self, model: str, number: int, reason: str, *, on: str | None = None, even_if_deployed: bool = False) -> Any:
        """Take a version out of use, now or from 00:00 UTC of a day (`YYYY-MM-DD`) on.

        Args:
            model: the model's name.
            number: the version's number.
            reason: why.
            on: the day; None for now.
            even_if_deployed: also where it stands deployed, so that nothing does afterwards.
        """
        body = {"reason": reason, "even_if_deployed": even_if_deployed, **({"on": on} if on else {})}
        return self.post(f"{version_path(model, number)}/retirement", body)

    def retry(self, model: str, number: int, reason: str) -> Any:
        """Try a failed version again."""
        return self.post(f"{version_path(model, number)}/retry", {"reason": reason})

    def hold(self, model: str, number: int, reason: str) -> Any:
        """Hold a version: it begins no stage, and is neither approved nor put in place, until it is released."""
        return self.post(f"{version_path(model, number)}/hold", {"reason": reason})

    def release(self, model: str, number: int, reason: str) -> Any:
        """End the hold of a version."""
        return self.post(f"{version_path(model, number)}/release", {"reason": reason})

    def redo(self, model: str, number: int, stage: str, reason: str, *, attempt: int | None = None) -> Any:
        """Have PROCESSING or VALIDATION run again, and every stage behind it.

        Args:
            model: the model's name.
            number: the version's number.
            stage: which.
            reason: why.
            attempt: the attempt that is to be followed by another one, so that a request that is sent twice is done once.
        """
        return self.post(f"{version_path(model, number)}/redo", {"stage": stage, "reason": reason, **given(attempt=attempt)})

    def transition(self, model: str, number: int, to: str, reason: str, *, attempt: int | None = None) -> Any:
        """Have a version moved towards a stage or standing, by what may lead there; `attempt` as for `redo`."""
        return self.post(f"{version_path(model, number)}/transition", {"to": to, "reason": reason, **given(attempt=attempt)})

    def refresh(
        self, model: str, reason: str, *, version: int | None = None, data: Mapping[str, Any] | None = None, request: str = ""
    ) -> Any:
        """Have a new version made of what is deployed, or of `version`; `data` is what `bring_data` returned."""
        more = {"version": version, "data": dict(data or {}), "request": request}
        return self.post(f"{model_path(model)}/refresh", {"reason": reason, **{k: v for k, v in more.items() if v}})

    def reproduce(self, model: str, number: int, reason: str, *, request: str = "") -> Any:
        """Have a version's recipe run again, to be compared."""
        more = {"request": request} if request else {}
        return self.post(f"{version_path(model, number)}/reproduction", {"reason": reason, **more})
