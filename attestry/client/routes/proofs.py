"""Predictions, and what proves them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attestry.client.connection import Connection
from attestry.client.errors import ApiError
from attestry.client.paths import model_path, path_part, version_path
from attestry.domain.errors import NotFoundError


class ProofsRoutes(Connection):
    """Predictions, traces, bundles, the ledger's files, and the root of trust."""

    def predict(self, model: str, instances: Sequence[Mapping[str, Any]], *, environment: str = "", routing_key: str = "") -> Any:
        """Return predictions with their ID and receipt; waits while the version loads.

        Args:
            model: the model's name.
            instances: what is asked for.
            environment: where; by default in production.
            routing_key: requests with the same key go to a canary or not alike; by default each goes by chance.
        """
        query = {name: value for name, value in (("environment", environment), ("routing_key", routing_key)) if value}
        return self.post(f"{model_path(model)}/predictions", {"instances": list(instances)}, query)

    def score(
        self, model: str, given: Mapping[str, Any], *, environment: str = "production", request: str = "", retry: bool = False
    ) -> Any:
        """Go on with the scoring of a file, and return where it stands.

        Args:
            model: the model's name.
            given: `sha256`, `size` and `format` of the input file.
            environment: whose deployed version answers.
            request: a name for the request.
            retry: try again what has failed.
        """
        more = {name: value for name, value in (("request", request), ("retry", retry)) if value}
        return self.post(f"{model_path(model)}/scorings", {"input": dict(given), "environment": environment, **more})

    def trace(self, prediction_id: str, *, deep: bool = False) -> Any:
        """Return the trace document of a prediction; `deep` has every file hashed again."""
        return self.get(f"/v1/predictions/{path_part(prediction_id)}/trace", {"deep": "true"} if deep else {})

    def prediction_bundle(self, prediction_id: str, *, payload: bool = False) -> Any:
        """Have a prediction's bundle made: `url`, `sha256`, `size`; `payload` puts in request and output, for roles that may see them."""
        return self.get(f"/v1/predictions/{path_part(prediction_id)}/bundle", {"payload": "true"} if payload else {})

    def version_bundle(self, model: str, number: int) -> Any:
        """Have the bundle of a version made: `url`, `sha256`, `size`."""
        return self.get(f"{version_path(model, number)}/bundle")

    def ledger_file(self, path: str) -> bytes:
        """Return a published file of the ledger: `checkpoint`, or a path of C2SP tlog-tiles.

        Raises:
            NotFoundError: there is none.
        """
        try:
            answer = self.get("/v1/ledger/file", {"path": path})
        except ApiError as error:
            if error.status == NotFoundError.status:
                raise NotFoundError(error.message) from error
            raise
        return base64.b64decode(answer["content"], validate=True)

    def audit_batches(self, *, since: str = "") -> Iterator[dict[str, Any]]:
        """Yield the batches of audited acts, the latest first, a page when it is needed."""
        return self.every("/v1/ledger/audit", "batches", {"since": since} if since else {})

    def audit_batch(self, number: int) -> Any:
        """Return where a batch of audited acts can be read, and the leaf of the event that names it."""
        return self.get(f"/v1/ledger/audit/{number}")

    def root(self) -> Any:
        """Return the root of trust: all its metadata, and what it says."""
        return self.get("/v1/root")

    def root_keys(self) -> Any:
        """Return the public keys that the deployment signs with."""
        return self.get("/v1/root/keys")

    def publish_root(self, files: Mapping[str, str]) -> Any:
        """Publish metadata of the root of trust, file name to text."""
        return self.post("/v1/root", {"files": dict(files)})
