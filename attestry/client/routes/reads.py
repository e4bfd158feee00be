"""What the API tells of models and versions."""

from __future__ import annotations

from typing import Any

from attestry.client.connection import Connection
from attestry.client.paths import model_path, path_part, version_path


class ReadsRoutes(Connection):
    """Models, versions, and what is known of them."""

    def whoami(self) -> Any:
        """Return the caller as the registry sees it."""
        return self.get("/v1/me")

    def models(self) -> list[dict[str, Any]]:
        """Return all models."""
        return list(self.every("/v1/models", "models"))

    def model(self, model: str) -> Any:
        """Return a model and what is deployed where."""
        return self.get(model_path(model))

    def versions(self, model: str) -> list[dict[str, Any]]:
        """Return the versions of a model."""
        return list(self.every(f"{model_path(model)}/versions", "versions"))

    def version(self, model: str, number: int) -> Any:
        """Return all that is recorded of a version."""
        return self.get(version_path(model, number))

    def diff(self, model: str, before: int, after: int) -> list[dict[str, Any]]:
        """Return what differs between two versions."""
        rows: list[dict[str, Any]] = self.get(f"{model_path(model)}/diff", {"from": before, "to": after})["differences"]
        return rows

    def log(self, model: str, number: int, stage: str) -> Any:
        """Return the log of a stage's latest run."""
        return self.get(f"{version_path(model, number)}/logs", {"stage": stage})

    def data(self, model: str, number: int, name: str) -> Any:
        """Return the files of a data set of a version, with URLs that read them."""
        return self.get(f"{version_path(model, number)}/data", {"set": name})

    def submission(self, submission: str) -> Any:
        """Return what became of a submission."""
        return self.get(f"/v1/submissions/{path_part(submission)}")

    def findings(self, model: str | None = None) -> list[dict[str, Any]]:
        """Return the open findings of reconciliation, of one model or of all."""
        return list(self.every("/v1/findings", "findings", {"model": model} if model else {}))

    def lineage(self, node: str, *, direction: str = "both", depth: int = 20) -> Any:
        """Return the graph around a node: `start`, `nodes`, `edges`, `truncated`."""
        return self.get("/v1/lineage", {"node": node, "direction": direction, "depth": depth})

    def compliance(self, *, after: str = "") -> Any:
        """Return the deployed versions with what their lineage lacks; go on behind `next` until it is None."""
        return self.get("/v1/compliance", {"after": after} if after else {})

    def rollout(self, model: str, *, environment: str = "production") -> Any:
        """Return what stands beside the deployed version: `canary` and `shadow`, each empty or with what was seen of it."""
        return self.get(f"{model_path(model)}/rollout", {"environment": environment})

    def refreshes(self, model: str) -> Any:
        """Return what is known of a model's refreshes."""
        return self.get(f"{model_path(model)}/refreshes")

    def conflicts(self, model: str) -> list[dict[str, Any]]:
        """Return the conflicts of interest that were declared on a model, what was withdrawn included."""
        return list(self.every(f"{model_path(model)}/conflicts", "conflicts"))
