"""Verbs of deployment strategies: rollout, promote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from attestry.cli.act import ReasonOption
from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.read import ModelArgument, VersionArgument

EnvironmentOption = Annotated[str, typer.Option("--environment", metavar="NAME", help="Where.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app)
    def rollout(
        cli: Cli,
        model: ModelArgument,
        action: Annotated[str, typer.Argument(metavar="[advance|halt|finish]", help="What to do; by default, tell how far it is.")] = "",
        reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stays on the record.")] = "",
        environment: EnvironmentOption = "production",
    ) -> None:
        """Tell what stands beside the deployed version and what was seen of it; advance, halt or finish it (deployer)."""
        if not action:
            cli.show(cli.client.rollout(model, environment=environment), lambda a: "\n".join(_told(a)))
            return
        if not reason:
            raise typer.BadParameter(f"say why: attestry rollout {model} {action} --reason TEXT")
        answer = cli.client.change_rollout(model, action, reason, environment=environment, **_meant(cli, model, action, environment))
        cli.show(answer, lambda a: f"{model}@{a['version']} is {a['standing']} in {environment}")

    @verb(app, roles=("deployer",))
    def promote(
        cli: Cli,
        version: VersionArgument,
        reason: ReasonOption,
        to: Annotated[str, typer.Option("--to", metavar="ENVIRONMENT", help="The environment after the one where it stands deployed.")],
        withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back what was asked for and not made yet.")] = False,
    ) -> None:
        """Put a version in place in the next environment, by its manifest's strategy; where that has an approval of its own, ask for it."""
        from attestry.cli.decide_promotion import asked

        reference = read_reference(version)
        answer = cli.client.promote(reference.model, reference.number, to, reason, withdraw=withdraw)
        cli.show(answer, lambda a: asked(str(reference), to, a))


def _meant(cli: Cli, model: str, action: str, environment: str) -> dict[str, int]:
    """Return what is rolled out at this moment, so that a request that is sent again says what it is about."""
    seen = cli.client.rollout(model, environment=environment)
    there = seen["canary"] or seen["shadow"]
    if not there:
        return {}
    return {"version": int(there["number"]), **({"step": int(there["step"])} if action == "advance" and "step" in there else {})}


def _told(answer: Mapping[str, Any]) -> Iterator[str]:
    model, environment = answer["model"], answer["environment"]
    deployed = f"{model}@{answer['deployed']} stands DEPLOYED" if answer["deployed"] else "nothing is deployed"
    yield f"{deployed} in {environment}"
    canary, shadow = answer["canary"], answer["shadow"]
    if canary:
        steps = ", ".join(f"{share}" for share in canary["plan"]["steps"])
        yield f"{model}@{canary['number']} stands CANARY: {canary['share']} percent of the requests (steps {steps}) since {canary['since']}"
        p95 = f"; 95 percent took up to {canary['p95_ms']} ms" if canary["p95_ms"] is not None else ""
        yield f"  in this step {canary['answered']} predictions, {canary['failed']} failures{p95}"
        yield from (f"  {failure['at']}  {failure['why']}" for failure in canary["failures"])
    if shadow:
        told = shadow["comparison"]
        yield f"{model}@{shadow['number']} stands SHADOW since {shadow['begun']}, for {shadow['plan']['minutes']} minutes"
        yield f"  {told['compared']} requests compared: {told['agreed']} of {told['instances']} predictions agree; {told['failed']} failed"
        if told["numeric"]:
            yield f"  numbers differ by {float(told['difference']) / int(told['numeric']):.6g} on average"
        if shadow["last_error"]:
            yield f"  the latest failure: {shadow['last_error']}"
    if not canary and not shadow:
        yield "nothing is rolled out beside it"
