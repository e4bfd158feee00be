"""Verbs that change what a version is, or use it: approve, reject, deploy, rollback, retry, claim, predict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.decide_promotion import decide_promotion
from attestry.cli.exit_codes import ExitCode
from attestry.cli.read import ModelArgument, VersionArgument

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stays on the record.")]
PacketOption = Annotated[
    str, typer.Option("--packet", metavar="SHA256", help="The packet that you have read; by default, the one that is shown now.")
]
PromotionOption = Annotated[
    str, typer.Option("--promotion", metavar="ENVIRONMENT", help="Not the version, but its promotion to this environment.")
]
LOADING_SECONDS = 180.0


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    _register_decisions(app)
    _register_operations(app)
    _register_predict(app)


def _register_decisions(app: typer.Typer) -> None:
    @verb(app, roles=("approver", "validator"))
    def approve(
        cli: Cli,
        version: VersionArgument,
        reason: ReasonOption,
        sign_with: Annotated[
            Path | None, typer.Option("--sign-with", metavar="KEY", help="Sign the packet with this SSH key (ssh-ed25519), by ssh-keygen.")
        ] = None,
        packet: PacketOption = "",
        until: Annotated[
            str | None, typer.Option("--until", metavar="YYYY-MM-DD", help="The approval counts up to 00:00 UTC of this day.")
        ] = None,
        max_predictions: Annotated[
            int | None, typer.Option("--max-predictions", min=1, metavar="N", help="It allows so many predictions.")
        ] = None,
        segment: Annotated[
            list[str] | None,
            typer.Option("--segment", metavar="NAME=VALUE", help="It allows requests in which this feature has this value; repeatable."),
        ] = None,
        promotion: PromotionOption = "",
    ) -> None:
        """Approve a version that waits for it, with conditions where you set any; or its promotion to an environment."""
        conditions = read_condition_options(until, max_predictions, segment or [])
        if promotion:
            if conditions:
                raise typer.BadParameter("a promotion has no conditions; those of the version's approval hold there too")
            decide_promotion(cli, version, "approve", reason, packet, promotion, sign_with)
            return
        _decide(cli, version, "approve", reason, packet, sign_with, conditions)

    @verb(app, roles=("approver", "validator"))
    def reject(
        cli: Cli, version: VersionArgument, reason: ReasonOption, packet: PacketOption = "", promotion: PromotionOption = ""
    ) -> None:
        """Reject a version that waits for approval, which is final; or its promotion, and the version stays where it stands."""
        if promotion:
            decide_promotion(cli, version, "reject", reason, packet, promotion, None)
            return
        _decide(cli, version, "reject", reason, packet, None)

    @verb(app, roles=("approver", "validator", "admin"))
    def conflict(
        cli: Cli,
        model: ModelArgument,
        reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; without it, what is declared is listed.")] = None,
        person: Annotated[str, typer.Option("--person", metavar="PERSON", help="Whose; for admins. By default, your own.")] = "",
        withdraw: Annotated[bool, typer.Option("--withdraw", help="It is no more; for admins, and never one's own.")] = False,
    ) -> None:
        """Declare a conflict of interest on a model: who has one decides on none of its versions."""
        if reason is None:
            cli.show({"conflicts": cli.client.conflicts(model)}, lambda a: "\n".join(map(_conflict, a["conflicts"])) or "none is declared")
            return
        cli.show(cli.client.declare_conflict(model, reason, person=person, withdraw=withdraw), _conflict)


def _conflict(row: dict[str, Any]) -> str:
    what = "has a conflict of interest" if row["active"] else "has no conflict of interest any more"
    return f"{row['person']} {what} on {row['model']}: {row['reason']} ({row['by']}, {row['at']})"


def _register_operations(app: typer.Typer) -> None:
    @verb(app, roles=("deployer",))
    def deploy(
        cli: Cli,
        version: VersionArgument,
        reason: ReasonOption,
        wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is in place.")] = True,
        strategy: Annotated[
            str | None,
            typer.Option("--strategy", metavar="NAME", help="`all-at-once`, whatever the manifest says; by default, what it says."),
        ] = None,
    ) -> None:
        """Put an approved version in place, or begin its rollout."""
        reference = read_reference(version)
        answer = cli.client.deploy(reference.model, reference.number, reason, strategy=strategy)
        if not wait:
            cli.show(answer, lambda _: f"{reference} is being deployed")
            return
        from attestry.client.wait import wait_for_version

        followed = wait_for_version(cli.client, reference.model, reference.number, through_approval=True)
        state = {k: followed.version.get(k) for k in ("stage", "status", "standing", "error")}
        told = f"{reference}: {state['stage']} {state['status']}, {state['standing']} {state['error'] or ''}".rstrip()
        cli.show({"model": reference.model, "version": reference.number, **state}, lambda _: told)
        cli.end(ExitCode.OK if followed.is_good else ExitCode.FAILED)

    @verb(app, roles=("deployer",))
    def rollback(
        cli: Cli,
        model: ModelArgument,
        reason: ReasonOption,
        to: Annotated[
            int | None, typer.Option("--to", metavar="NUMBER", help="The version; by default, the one that is kept for rollback.")
        ] = None,
        environment: Annotated[str, typer.Option("--environment", metavar="NAME", help="Where.")] = "production",
    ) -> None:
        """Put the version before the deployed one, or another approved one, back in place; asked for twice, it needs --to."""
        answer = cli.client.rollback(model, reason, to=to, environment=environment)
        cli.show(answer, lambda a: f"{model}@{a['version']} is {a['standing']}")

    @verb(app, roles=("scientist", "deployer"))
    def retry(cli: Cli, version: VersionArgument, reason: ReasonOption) -> None:
        """Try a failed version again, under the same number."""
        reference = read_reference(version)
        answer = cli.client.retry(reference.model, reference.number, reason)
        cli.show(answer, lambda a: f"{reference} is tried again, attempt {a['attempt']}")

    @verb(app, roles=("scientist",))
    def claim(cli: Cli, version: VersionArgument) -> None:
        """Say that you submitted a version that was uploaded by hand under your own prefix."""
        reference = read_reference(version)
        answer = cli.client.claim(reference.model, reference.number)
        cli.show(answer, lambda a: f"{reference} was submitted by {a['submitter']}")


def _register_predict(app: typer.Typer) -> None:
    @verb(app, roles=("consumer",))
    def predict(
        cli: Cli,
        model: ModelArgument,
        file: Annotated[
            Path | None, typer.Option("--file", "-f", metavar="FILE", help="JSON file with instances; `-` is standard input.")
        ] = None,
        instance: Annotated[list[str] | None, typer.Option("--instance", metavar="JSON", help="One instance; repeatable.")] = None,
        wait: Annotated[
            float, typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait while the version loads.")
        ] = LOADING_SECONDS,
        environment: Annotated[str, typer.Option("--environment", metavar="NAME", help="Where; by default in production.")] = "",
        routing_key: Annotated[
            str, typer.Option("--routing-key", metavar="TEXT", help="Requests of the same key go to a canary or not alike.")
        ] = "",
    ) -> None:
        """Ask the deployed version, or its canary; the answer names which, and carries its prediction ID and receipt."""
        from attestry.cli import render

        name, at, _ = model.partition("@")
        if at:
            raise typer.BadParameter(f"only the version that stands deployed predicts, so give the model alone: attestry predict {name}")
        cli.patience_seconds = wait
        instances = read_instances(file, instance or [])
        cli.show(cli.client.predict(model, instances, environment=environment, routing_key=routing_key), render.prediction)


def read_instances(file: Path | None, texts: list[str]) -> list[Any]:
    """Return the instances of a file, of standard input, or of options.

    A file holds `{"instances": [...]}`, a list of instances, or one instance.

    Raises:
        typer.BadParameter: no instances, from two places, or no JSON.
    """
    if file is not None and texts:
        raise typer.BadParameter("instances come from --file or from --instance, not from both")
    if texts:
        return [_parse(text, f"--instance {index}") for index, text in enumerate(texts, start=1)]
    if file is None and sys.stdin.isatty():
        raise typer.BadParameter("no instances: give --file FILE, --instance JSON, or JSON on standard input")
    if file is None or str(file) == "-":
        value = _parse(sys.stdin.read(), "standard input")
    else:
        try:
            value = _parse(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{file} cannot be read: {error}") from error
    if isinstance(value, dict) and "instances" in value:
        value = value["instances"]
    return value if isinstance(value, list) else [value]


def _parse(text: str, where: str) -> Any:
    from attestry.domain.errors import InvalidInputError
    from attestry.evidence.canonical import parse_strict

    try:
        return parse_strict(text)
    except InvalidInputError as error:
        raise typer.BadParameter(f"{where}: {error.problems[0].message}") from error


def read_condition_options(until: str | None, max_predictions: int | None, segments: list[str]) -> dict[str, Any]:
    """Return the conditions that options set; the values of one feature that is named several times are all allowed.

    Raises:
        typer.BadParameter: a segment is not of the form NAME=VALUE.
    """
    features: dict[str, list[str]] = {}
    for text in segments:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"--segment {text}: give NAME=VALUE, for example region=EU")
        features.setdefault(name, []).append(value)
    given = {"until": until, "max_predictions": max_predictions, "segments": features}
    return {name: value for name, value in given.items() if value}


def _decide(
    cli: Cli,
    version: str,
    decision: str,
    reason: str,
    seen: str,
    sign_with: Path | None,
    conditions: dict[str, Any] | None = None,
) -> None:
    """Show the packet, sign it where that is asked for, and send the decision with the packet's digest."""
    from attestry.cli import render
    from attestry.cli.packet import summary
    from attestry.domain.errors import ConflictError

    reference = read_reference(version)
    packet = cli.client.packet(reference.model, reference.number)
    if seen and seen != packet.sha256:
        raise ConflictError(f"the packet of {reference} is {packet.sha256}, not {seen}; read it again: attestry packet {reference}")
    for line in summary(packet):
        cli.say(render.text(line).plain)
    signature = ""
    if sign_with is not None:
        from attestry.client.ssh_sign import sign_packet

        signature = sign_packet(packet.sha256, sign_with)
    answer = cli.client.decide(
        reference.model, reference.number, decision, reason, packet_sha256=packet.sha256, signature=signature, conditions=conditions
    )
    cli.show(answer, lambda a: _decided(str(reference), a))


def _decided(version: str, answer: dict[str, Any]) -> str:
    told = ", signed by person" if answer.get("signed_by_person") else ", recorded by registry"
    if answer["decision"] == "reject":
        return f"{version} is rejected"
    if answer["complete"]:
        from attestry.domain.conditions import Terms

        terms = str(Terms.from_item(answer.get("terms") or {}))
        return f"{version} is approved{f' {terms}' if terms else ''}{told}"
    lacking = f"; missing: {answer['missing']}" if answer.get("missing") else ""
    return f"{version} has {len(answer['approvals'])} of {answer['needed']} approvals{told}{lacking}"
