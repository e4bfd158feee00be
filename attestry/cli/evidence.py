"""Verbs of evidence: bundle, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attestry.cli.candidates import progress_bars
from attestry.cli.context import Cli, read_reference, verb

if TYPE_CHECKING:
    from attestry.evidence.verdict import Verification


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    _register_bundle(app)
    _register_verify(app)


def _register_bundle(app: typer.Typer) -> None:
    @verb(app)
    def bundle(
        cli: Cli,
        subject: Annotated[str, typer.Argument(metavar="PREDICTION_ID|MODEL@N", help="A prediction, or a version.")],
        to: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the zip.")],
        payload: Annotated[
            bool, typer.Option("--payload", help="Put in the prediction's request and output (auditor, deployer, admin).")
        ] = False,
    ) -> None:
        """Fetch a bundle: one zip from which anybody verifies a prediction or a version offline."""
        from attestry.client.download import download_files

        if "@" in subject:
            reference = read_reference(subject)
            answer = cli.client.version_bundle(reference.model, reference.number)
        else:
            answer = cli.client.prediction_bundle(subject, payload=payload)
        file = {"path": to.name, "sha256": answer["sha256"], "size": answer["size"], "url": answer["url"]}
        with cli.progress() as bars:
            download_files([file], to.parent, http=cli.client.http, advance=progress_bars(bars))
        made = {"file": str(to), **{k: answer[k] for k in ("subject", "sha256", "size", "payload", "pending")}}
        cli.show(made, _told)


def _register_verify(app: typer.Typer) -> None:
    @verb(app)
    def verify(
        cli: Cli,
        bundle: Annotated[Path | None, typer.Argument(metavar="[BUNDLE.zip]", help="A bundle.")] = None,
        root: Annotated[Path | None, typer.Option("--root", metavar="ROOT.json", help="The registry's TUF root that you pinned.")] = None,
        files: Annotated[Path | None, typer.Option("--files", metavar="DIR", help="Hash a downloaded frozen/ folder as well.")] = None,
        prediction: Annotated[str | None, typer.Option("--prediction", metavar="RECEIPT", help="A receipt, or its file.")] = None,
        delegation: Annotated[str | None, typer.Option("--delegation", metavar="JWT", help="Its delegation, or the file.")] = None,
        row: Annotated[Path | None, typer.Option("--row", metavar="PROOF.json", help="The proof of a row of a scored file.")] = None,
        given: Annotated[Path | None, typer.Option("--input", metavar="FILE", help="The input file, to check the row's line.")] = None,
        metadata: Annotated[Path | None, typer.Option("--metadata", metavar="DIR", help="TUF files: root/ of a bundle.")] = None,
        request: Annotated[Path | None, typer.Option("--request", metavar="FILE", help="The request's bytes.")] = None,
        salt: Annotated[str | None, typer.Option("--salt", metavar="HEX", help="The answer's request_salt.")] = None,
        output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="The output's bytes.")] = None,
    ) -> None:
        """Verify a bundle, a row of a scored file, or a receipt with its delegation, offline and without credentials.

        Exit codes: 0 PROVEN, 3 SIGNED-UNANCHORED, 4 INCOMPLETE, 5 BROKEN, 2 wrong usage.
        """
        from attestry.verifier.command import UnreadableError, verify_bundle_file, verify_prediction_files, verify_row_file

        if [bundle, prediction, row].count(None) != 2:
            raise typer.BadParameter("give either a bundle, or --row, or --prediction and --delegation")
        try:
            if bundle is not None:
                _tell(cli, verify_bundle_file(bundle, root=root, files=files))
                return
            if row is not None:
                _tell(cli, verify_row_file(row, root=root, given=given))
                return
            if delegation is None:
                raise typer.BadParameter("--prediction needs --delegation")
            found = verify_prediction_files(
                str(prediction), delegation, root=root, metadata=metadata, request=request, salt=salt, output=output
            )
            _tell(cli, found)
        except UnreadableError as error:
            raise typer.BadParameter(f"{error.problems[0].field} {error.problems[0].message}") from error


def _tell(cli: Cli, verification: Verification) -> None:
    from rich.text import Text

    from attestry.verifier.command import EXIT_CODES, told_as_text

    cli.show(verification.to_dict(), lambda _: Text(told_as_text(verification), no_wrap=True, overflow="ignore"))
    code = EXIT_CODES[verification.verdict]
    if code:
        raise typer.Exit(code)


def _told(made: dict[str, Any]) -> str:
    waiting = f"; {made['pending']} of its events are not in the ledger yet, ask again in a minute" if made["pending"] else ""
    return f"{made['file']}  {made['size']} bytes, SHA-256 {made['sha256']}{waiting}"
