"""Verbs of validation records: validate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from attestry.cli.context import Cli, read_reference, verb
from attestry.cli.read import VersionArgument


def register(app: typer.Typer) -> None:
    """Add the verbs."""

    @verb(app, roles=("validator",))
    def validate(
        cli: Cli,
        version: VersionArgument,
        record: Annotated[Path, typer.Option("--record", metavar="FILE", help="YAML or JSON: the kind, and what the record says.")],
        sign_with: Annotated[
            Path, typer.Option("--sign-with", "--key", metavar="KEY", help="Sign it with this SSH key (ssh-ed25519), by ssh-keygen.")
        ],
    ) -> None:
        """Hand in a signed validation record; effect, interval and p-value the registry computes itself."""
        from attestry.client.validate import validate_version

        reference = read_reference(version)
        if not record.is_file():
            raise typer.BadParameter(f"there is no file {record}", param_hint="--record")
        answer = validate_version(cli.client, reference.model, reference.number, record, sign_with, datetime.now(UTC))
        cli.show(answer, lambda a: told(str(reference), a))


def told(version: str, answer: Mapping[str, Any]) -> str:
    """Return what was recorded, and what is demanded yet, for a person."""
    facts = answer["facts"]
    lacking = f"; before {version} can be approved: {'; '.join(answer['missing'])}" if answer.get("missing") else ""
    return f"{version}: {facts['check']} recorded by {answer['person']}, signed by person: {outcome(facts)}{lacking}"


def outcome(facts: Mapping[str, Any]) -> str:
    """Return what a record came to."""
    if "p_value" in facts:
        effect, low, high, p_value = (float(facts[name]) for name in ("effect", "low", "high", "p_value"))
        confidence = float(facts["confidence"])
        return f"{facts['metric']} better by {effect:.4g} ({low:.4g} to {high:.4g} at {confidence:.0%} confidence), p {p_value:.3g}"
    if "overlap_rows" in facts:
        rows = f"{facts['overlap_rows']} of {facts['holdout_rows']} rows of the hold-out are in the training set"
        return f"{rows}, counted by the {facts['counted_by']}"
    return f"{facts['violations']} violations in {facts['rows']} rows, {facts['differing_columns']} columns differ"
