"""What is known of a version that was made elsewhere, as tables for people: what is verified and what is claimed stand apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from attestry.cli.render import facts, table, text


def made_elsewhere(told: Mapping[str, Any]) -> list[RenderableType]:
    """Return the parts that show an import.

    Args:
        told: what `attestry.usecases.import_facts.facts_of` gives.
    """
    verified, claimed, mlmodel = told["verified"], told["claimed"], told["mlmodel"]
    files = table("file", "bytes", "SHA-256", title="verified")
    for file in verified["files"]:
        files.add_row(*(text(file[k]) for k in ("path", "size", "sha256")))
    reading = mlmodel.get("reading") or {}
    said = {
        "source": claimed["source"],
        "run": claimed["run"]["id"] + (" (attestry runs show)" if told.get("run") else ""),
        "experiment": claimed["run"]["experiment"],
        "parameters": claimed["run"]["params"],
        "metrics": claimed["run"]["metrics"],
        "description": claimed["description"],
        "tags": claimed["tags"],
        "flavours": sorted(reading.get("flavors", {})),
        "requirements": reading.get("requirements"),
        "MLmodel could not be read": mlmodel.get("problem"),
    }
    shown = {name: value for name, value in said.items() if value}
    warning = Text("made elsewhere: nothing of it was processed, trained or judged here", style="bold")
    return [warning, files, Text("claimed, which nobody here saw", style="bold"), facts(shown), text(told["serving"])]
