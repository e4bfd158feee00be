"""What every verb shares: the options `--json` and `--profile`, the client, the output, and how errors end a command.

A verb is a function whose first parameter is the `Cli`:

    @verb(app)
    def whoami(cli: Cli) -> None:
        cli.show(cli.client.whoami(), render.identity)

With `--json`, standard output holds one JSON document and nothing else, also for an error; people are talked to on standard error.
Everything heavy is imported when it is used, so that help and usage errors come at once.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from attestry.cli.exit_codes import ExitCode, exit_code_of
from attestry.domain.errors import AttestryError, InvalidInputError, Problem

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from attestry.client.api import RegistryClient
    from attestry.domain.names import VersionReference

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else.")]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="AWS profile to act as; by default, AWS_PROFILE and the usual chain.")
]
PATIENCE_SECONDS = 60.0

Verb = TypeVar("Verb", bound=Callable[..., None])


class Cli:
    """One run of the command line.

    Args:
        as_json: print JSON.
        profile: AWS profile, or None for the usual chain.
    """

    def __init__(self, *, as_json: bool, profile: str | None) -> None:
        self.as_json = as_json
        self.profile = profile
        self.patience_seconds = PATIENCE_SECONDS

    @cached_property
    def out(self) -> Console:
        """Standard output, for people."""
        from rich.console import Console

        # Output that goes into a pipe is not cut to the width of a terminal that is not there.
        return Console(highlight=False, width=None if sys.stdout.isatty() else 200)

    @cached_property
    def err(self) -> Console:
        """Standard error."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    @property
    def is_watched(self) -> bool:
        """Whether a person watches standard error, so that progress is worth showing."""
        return sys.stderr.isatty() and not self.as_json

    @cached_property
    def client(self) -> RegistryClient:
        """The registry's API, with the profile's credentials, or by default those that `Connection` finds."""
        import boto3
        from botocore.exceptions import BotoCoreError

        from attestry.client.api import RegistryClient
        from attestry.client.errors import EndpointError

        try:
            # A profile that is asked for comes before a token in the environment, and before a sign-in.
            session = boto3.Session(profile_name=self.profile) if self.profile else None
            return RegistryClient(session, patience_seconds=self.patience_seconds, on_wait=self._tell_wait)
        except BotoCoreError as error:
            raise EndpointError(str(error)) from error

    def show(self, data: Any, render: Callable[[Any], RenderableType | None]) -> None:
        """Print the data as JSON, or as `render` makes it."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
            return
        shown = render(data)
        if shown is not None:
            self.out.print(shown)

    def say(self, text: str) -> None:
        """Tell a person what happens, on standard error."""
        if not self.as_json:
            self.err.print(text, markup=False, style="dim", soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """Give progress bars on standard error while a person watches, else None."""
        if not self.is_watched:
            yield None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.err, transient=True) as bars:
            yield bars

    def fail(self, error: AttestryError) -> typer.Exit:
        """Tell an error, and return the exit that ends the command."""
        if self.as_json:
            sys.stdout.write(json.dumps({"error": error.to_dict()}, indent=2, ensure_ascii=False) + "\n")
        else:
            self._tell_error(error)
        return typer.Exit(exit_code_of(error))

    def end(self, code: ExitCode) -> None:
        """End the command with a code, where it is not 0."""
        if code is not ExitCode.OK:
            raise typer.Exit(code)

    def _tell_error(self, error: AttestryError) -> None:
        problems: tuple[Problem, ...] = getattr(error, "problems", ())
        # The message of an invalid input is its problems in one line; they are listed below.
        listed = error.code == InvalidInputError.code and problems
        count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
        self.err.print("error:", style="bold red", end=" ")
        self.err.print(count if listed else error.message, markup=False, soft_wrap=True)
        for problem in problems:
            self.err.print(f"  {sentence(problem)}", markup=False, soft_wrap=True)
        if request_id := getattr(error, "request_id", ""):
            self.err.print(f"  code {error.code}, request {request_id}", markup=False, style="dim")

    def _tell_wait(self, why: str, seconds: float) -> None:
        self.say(f"{why}; trying again in {seconds:.0f} s")


def verb(app: typer.Typer, name: str | None = None, *, roles: tuple[str, ...] = ()) -> Callable[[Verb], Verb]:
    """Register a verb: its function gets the `Cli` first, its command the shared options last.

    Args:
        app: the application or group that it belongs to.
        name: its name, by default the function's.
        roles: the registry's roles that may do it, told to who may not; empty where every role may.
    """

    def register(function: Verb) -> Verb:
        signature = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def run(context: typer.Context, *, as_json: bool, profile: str | None, **arguments: Any) -> None:
            shared = context.find_root().obj or {}
            cli = Cli(as_json=as_json or shared.get("as_json", False), profile=profile or shared.get("profile"))
            try:
                function(cli, **arguments)
            except AttestryError as error:
                raise cli.fail(_naming_role(error, name or function.__name__, roles)) from error

        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in list(signature.parameters.values())[1:]]
        shared = [
            inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption),
            inspect.Parameter("profile", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ProfileOption),
        ]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        run.__signature__ = inspect.Signature([context, *own, *shared])  # type: ignore[attr-defined]  # read by inspect.signature
        app.command(name)(run)
        return function

    return register


def _naming_role(error: AttestryError, act: str, roles: tuple[str, ...]) -> AttestryError:
    from attestry.client.errors import ApiError

    return error.naming_role(act, roles) if isinstance(error, ApiError) else error


def sentence(problem: Problem) -> str:
    """Return a problem as a line: where, what, and which rule."""
    line = f"line {problem.line}: " if problem.line is not None else ""
    field = f"{problem.field}: " if problem.field else ""
    return f"{line}{field}{problem.message} [{problem.rule}]"


def read_reference(text: str) -> VersionReference:
    """Return the version that MODEL@N names.

    Raises:
        typer.BadParameter: the text names none.
    """
    from attestry.domain.names import VersionReference

    try:
        return VersionReference.parse(text)
    except InvalidInputError as error:
        raise typer.BadParameter(error.problems[0].message) from error
