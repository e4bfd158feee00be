"""The command line: `attestry VERB ...`.

Exit codes: 0 done; 1 refused or failed; 2 usage; 3 not found; 4 forbidden, or no credentials; 5 bytes differ from the record, or a
trace is BROKEN; 6 the registry does not answer or is not ready yet. `docs/cli.md` tells more.
"""

from __future__ import annotations

from typing import Annotated

import typer

from attestry.cli.context import JsonOption, ProfileOption


def make_app() -> typer.Typer:
    """Return the command line with all its verbs."""
    # The verbs register themselves; each imports what it needs when it runs.
    from attestry.cli import (
        access,
        act,
        api_verbs,
        candidates,
        catalogue,
        custody_verbs,
        drill,
        embedded,
        evidence,
        imports,
        ledger,
        lineage,
        operate_verbs,
        packet,
        people,
        policy,
        read,
        refresh_verbs,
        rollout,
        root,
        runs,
        scoring,
        shim,
        sign_in,
        validations,
        webhooks,
    )

    app = typer.Typer(
        name="attestry",
        help="A model registry on AWS in which every prediction can be traced to code, data, settings and people.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        # A crash shows Python's own traceback: one with local variables could show credentials.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_keep_shared_options)
    verbs = (embedded, sign_in, candidates, imports, read, lineage, packet, evidence, ledger, act, operate_verbs, refresh_verbs, people)
    for module in (
        *verbs,
        validations,
        drill,
        catalogue,
        custody_verbs,
        policy,
        rollout,
        root,
        runs,
        scoring,
        api_verbs,
        access,
        webhooks,
        shim,
    ):
        module.register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from attestry import __version__

        typer.echo(f"attestry {__version__}")
        raise typer.Exit


def _keep_shared_options(
    context: typer.Context,
    as_json: JsonOption = False,
    profile: ProfileOption = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version of this program.")
    ] = False,
) -> None:
    """Keep the options that stand before the verb; each verb takes them too."""
    context.obj = {"as_json": as_json, "profile": profile}


def main() -> None:
    """Run the command line."""
    make_app()()


if __name__ == "__main__":
    main()
