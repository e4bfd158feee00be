"""The API's routes of imports and frozen files, as a part of `RegistryClient`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote


class ImportRoutes:
    """The routes of imports and of frozen files; a part of `RegistryClient`, which signs and sends."""

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Send a request and return the answer's JSON."""
        raise NotImplementedError

    def announce_import(self, files: Sequence[Mapping[str, Any]], key: str = "") -> Any:
        """Announce files (`name`, `size`, `sha256`) and return where each is to be PUT; under the same key, the same submission."""
        return self.call("POST", "/v1/imports", body={"files": list(files), **({"key": key} if key else {})})

    def import_submission(self, model: str, submission: str, claims: Mapping[str, Any]) -> Any:
        """Make a version of a submission's files; the same again answers the same version."""
        path = f"/v1/models/{quote(model, safe='')}/versions"
        return self.call("POST", path, body={**claims, "submission": submission})

    def files(self, model: str, number: int) -> Any:
        """Return the frozen files of a version, with URLs that read them."""
        return self.call("GET", f"/v1/models/{quote(model, safe='')}/versions/{number}/files")
