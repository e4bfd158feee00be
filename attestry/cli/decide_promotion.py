"""A decision on a promotion: what is said of its packet before, and of the outcome after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attestry.cli.context import Cli, read_reference

if TYPE_CHECKING:
    from attestry.evidence.promotion_packet import PromotionPacket


def decide_promotion(cli: Cli, version: str, decision: str, reason: str, seen: str, environment: str, sign_with: Path | None) -> None:
    """Show the promotion's packet, sign it where that is asked for, and send the decision with the packet's digest.

    Raises:
        ConflictError: the packet is another one than the one that was read.
    """
    from attestry.cli import render
    from attestry.domain.errors import ConflictError

    reference = read_reference(version)
    packet = cli.client.promotion_packet(reference.model, reference.number, environment)
    if seen and seen != packet.sha256:
        again = f"attestry packet {reference} --promotion {environment}"
        raise ConflictError(f"the packet of the promotion of {reference} is {packet.sha256}, not {seen}; read it again: {again}")
    for line in summary(packet):
        cli.say(render.text(line).plain)
    signature = ""
    if sign_with is not None:
        from attestry.client.ssh_sign import sign_packet

        signature = sign_packet(packet.sha256, sign_with)
    told: Any = {"packet_sha256": packet.sha256, "signature": signature, "promotion": environment}
    answer = cli.client.decide(reference.model, reference.number, decision, reason, **told)
    cli.show(answer, lambda a: decided(str(reference), environment, a))


def decided(version: str, environment: str, answer: dict[str, Any]) -> str:
    """Return the sentence that tells what a decision led to, and what comes next."""
    about = f"the promotion of {version} to {environment}"
    told = "signed by person" if answer.get("signed_by_person") else "recorded by registry"
    if answer["decision"] == "reject":
        return f"{about} is rejected; {version} stays where it stands"
    if answer["complete"]:
        return f"{about} is approved, {told}; a deployer makes it: attestry promote {version} --to {environment} --reason TEXT"
    lacking = f"; missing: {answer['missing']}" if answer.get("missing") else ""
    return f"{about} has {len(answer['approvals'])} of {answer['needed']} approvals, {told}{lacking}"


def asked(version: str, environment: str, answer: dict[str, Any]) -> str:
    """Return the sentence that tells what `promote` led to."""
    promotion = answer.get("promotion")
    if not promotion:
        return f"{version} is being promoted to {environment}"
    if promotion["state"] == "WITHDRAWN":
        return f"the promotion of {version} to {environment} is withdrawn"
    approve = f"attestry approve {version} --promotion {environment} --reason TEXT"
    return f"the promotion of {version} to {environment} waits for its approval, asked for by {promotion['asked_by']}: {approve}"


def summary(packet: PromotionPacket) -> list[str]:
    """Return the lines that are said of a promotion's packet before a decision is sent."""
    content: Any = packet.content
    metrics = ", ".join(f"{name} {str(value)[:8]}" for name, value in content["metrics"].items())
    failed = [str(g.get("name")) for g in content["gates"] if not g.get("passed")]
    service, replaces, findings = content["service"], content["replaces"], content["findings"]
    since = f" since {service['since']}" if service["since"] else ""
    return [
        f"promotion of {packet.reference} from {content['origin']} to {content['environment']}, packet {packet.sha256}",
        f"  asked for {content['asked_by'].get('person')}: {content['reason']}",
        f"  metrics   {metrics or 'none'}",
        f"  gates     {len(content['gates'])} judged, " + (f"failed: {', '.join(failed)}" if failed else "all passed"),
        f"  approved  by {', '.join(content['approval']['approved_by'])}",
        f"  service   {service['standing']} in {content['origin']}{since}, {service['predictions']} predictions",
        f"  replaces  {content['model']}@{replaces['number']}" if replaces else "  replaces  nothing",
        f"  findings  {len(findings)} open" if findings else "  findings  none open",
        *(f"  earlier   {_ended(earlier)}" for earlier in content.get("earlier", [])),
    ]


def _ended(earlier: dict[str, Any]) -> str:
    decisions = "; ".join(f"{d['decision']} by {d['person']}: {d['reason']}" for d in earlier["decisions"])
    return f"asked for by {earlier['asked_by']}, {decisions or 'nobody decided'}"
