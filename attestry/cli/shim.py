"""The verb that writes the entry shim, for images that serve versions on SageMaker."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def shim(to: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the archive.")]) -> None:
        """Write the entry shim, which an image that serves versions on SageMaker starts; the same release writes the same bytes."""
        from attestry.usecases.shim_archive import shim_archive

        archive = shim_archive()
        to.write_bytes(archive)
        typer.echo(f"{to}: {len(archive)} bytes, SHA-256 {hashlib.sha256(archive).hexdigest()}")
