"""Verbs of the embedded registry: up, down."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.context import Cli, verb
from attestry.domain.errors import AttestryError

if TYPE_CHECKING:
    from attestry.local.stack import LocalStack

DEFAULT_DATA = Path(".attestry")
MLFLOW_VARIABLE = "ATTESTRY_MLFLOW_POLICY"
"""What the synthesis reads (`attestry.local.synthesis`), which is not imported before it is needed."""


class MlflowPolicy(StrEnum):
    """The mode of models that are made through MLflow."""

    GOVERNED = "governed"
    OPEN = "open"


DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help="Data directory; kept between runs.")]


class NotInstalledError(AttestryError):
    """The embedded AWS is an extra that is not installed."""

    code = "not_installed"
    status = 400


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app)
    def up(
        cli: Cli,
        data: DataOption = DEFAULT_DATA,
        port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Port of the loopback address.")] = None,
        mlflow_policy: Annotated[MlflowPolicy | None, typer.Option(help="Mode of models that are made through MLflow.")] = None,
    ) -> None:
        """Start the registry on this machine, on an embedded AWS; nothing to do where it runs."""
        if mlflow_policy is not None:
            os.environ[MLFLOW_VARIABLE] = mlflow_policy.value
        stack = _stack_module()
        running = stack.up(data, port, cli.say)
        cli.show(_described(running), lambda _: _welcome(running))

    @verb(app)
    def down(cli: Cli, data: DataOption = DEFAULT_DATA) -> None:
        """Stop the registry on this machine; its data stays."""
        stopped = bool(_stack_module().down(data))
        told = "stopped" if stopped else f"nothing runs on {data}"
        cli.show({"stopped": stopped, "data": str(data)}, lambda _: told)

    @verb(app)
    def token(
        cli: Cli,
        login: Annotated[str, typer.Argument(metavar="LOGIN", help="One of the local people.")],
        data: DataOption = DEFAULT_DATA,
    ) -> None:
        """Print a bearer token for one of the local people, of the embedded registry's stand-in for an identity provider.

        export ATTESTRY_TOKEN=$(attestry token erin), and the command line signs in by it. The registry knows them as oidc:local:LOGIN.
        """
        running = _stack_module().connect(data)
        from attestry.local.errors import LocalError
        from attestry.local.issuer import issue

        person = next((one for one in running.people if one.login == login), None)
        if person is None:
            raise LocalError(f"there is no {login}; the local people are {', '.join(one.login for one in running.people)}")
        made = issue(running.data, person.login, person.roles)
        cli.show({"token": made, "login": f"oidc:local:{login}", "api_url": running.api_url}, _print_token)


def _print_token(told: dict[str, Any]) -> None:
    # As it is, since a console would break a line of its length.
    sys.stdout.write(f"{told['token']}\n")


def _stack_module() -> Any:
    try:
        from attestry.local import stack
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            f"the embedded AWS is not installed ({error.name} is missing): pip install 'attestry[local,infra]'"
        ) from error
    return stack


def _described(stack: LocalStack) -> dict[str, Any]:
    profiles = list(stack.profiles)
    return {
        "api_url": stack.api_url,
        "endpoint_url": stack.endpoint_url,
        "profiles": profiles,
        "environment": stack.environment(profiles[0]) if profiles else {},
        "root_pin": str(stack.root_pin),
        "parity": json.loads(stack.parity.to_json()),
    }


def _welcome(stack: LocalStack) -> str:
    told = _described(stack)
    lines = ["How this differs from the synthesised template:", *(f"  {line}" for line in stack.parity.lines()), ""]
    lines += [
        f"registry   {stack.api_url}",
        f"AWS        {stack.endpoint_url}",
        f"pin        {stack.root_pin} (a DEMO ROOT, for --root)",
        "",
        "To act as one of its people:",
        "",
    ]
    lines += [f"  export {name}={value}" for name, value in told["environment"].items()]
    if told["profiles"]:
        lines += [
            "",
            f"Profiles: {', '.join(told['profiles'])}",
            "",
            "Their keys lie in the data directory, for you alone; on this machine IAM is a test aid, not a boundary.",
        ]
    return "\n".join(lines)
