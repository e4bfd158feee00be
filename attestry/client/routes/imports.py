"""Models that were made elsewhere, and frozen files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.client.connection import Connection
from attestry.client.paths import model_path, version_path


class ImportRoutes(Connection):
    """Imports, and the frozen files of a version."""

    def announce_import(self, files: Sequence[Mapping[str, Any]], key: str = "") -> Any:
        """Announce files (`name`, `size`, `sha256`) and return where each is to be PUT; under the same key, the same submission."""
        return self.post("/v1/imports", {"files": list(files), **({"key": key} if key else {})})

    def import_submission(self, model: str, submission: str, claims: Mapping[str, Any]) -> Any:
        """Make a version of a submission's files; the same again answers the same version."""
        return self.post(f"{model_path(model)}/versions", {**claims, "submission": submission})

    def files(self, model: str, number: int) -> Any:
        """Return the frozen files of a version, with URLs that read them."""
        return self.get(f"{version_path(model, number)}/files")
