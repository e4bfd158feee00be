"""The catalogue, and searches in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attestry.client.connection import Connection
from attestry.client.paths import model_path, path_part, subject_path


class CatalogueRoutes(Connection):
    """Models, labels, tags, aliases, remarks, and searches."""

    def create_model(self, name: str, *, description: str = "", tags: Mapping[str, str] | None = None, mode: str = "governed") -> Any:
        """Create a model without versions."""
        return self.post("/v1/models", {"name": name, "description": description, "tags": dict(tags or {}), "mode": mode})

    def change_model(self, model: str, changes: Mapping[str, Any]) -> Any:
        """Change a model's `description` or, of an open one, its `name`."""
        return self.call("PATCH", model_path(model), body=dict(changes))

    def delete_model(self, model: str) -> Any:
        """Delete an open model from the catalogue."""
        return self.call("DELETE", model_path(model))

    def label_version(self, model: str, number: int, changes: Mapping[str, Any]) -> Any:
        """Change the `description`, or all `tags`, of a version."""
        return self.call("PATCH", subject_path(model, number), body=dict(changes))

    def labels(self, model: str, number: int) -> Any:
        """Return description and tags of a version."""
        return self.get(f"{subject_path(model, number)}/labels")

    def set_tag(self, model: str, number: int | None, key: str, value: str) -> Any:
        """Set a tag of a model or, with a number, of a version."""
        return self.call("PUT", f"{subject_path(model, number)}/tags/{path_part(key)}", body={"value": value})

    def delete_tag(self, model: str, number: int | None, key: str) -> Any:
        """Take a tag away from a model or, with a number, from a version."""
        return self.call("DELETE", f"{subject_path(model, number)}/tags/{path_part(key)}")

    def aliases(self, model: str) -> list[dict[str, Any]]:
        """Return the aliases of a model."""
        return list(self.get(f"{model_path(model)}/aliases")["aliases"])

    def set_alias(self, model: str, alias: str, number: int) -> Any:
        """Let an alias name a version."""
        return self.call("PUT", f"{model_path(model)}/aliases/{path_part(alias)}", body={"number": number})

    def delete_alias(self, model: str, alias: str) -> Any:
        """Take an alias away."""
        return self.call("DELETE", f"{model_path(model)}/aliases/{path_part(alias)}")

    def annotate(self, model: str, number: int, text: str, transition: int = 0) -> Any:
        """Remark on a version, or on one of its moves."""
        return self.post(f"{subject_path(model, number)}/annotations", {"text": text, "transition": transition})

    def annotations(self, model: str, number: int) -> list[dict[str, Any]]:
        """Return the remarks on a version, the oldest first; all of them, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"after": found[-1]["sequence"]} if found else None
            page = self.get(f"{subject_path(model, number)}/annotations", query=query)["annotations"]
            if not page:
                return found
            found += page

    def search(self, what: str, conditions: Sequence[Mapping[str, Any]] = (), **further: Any) -> Iterator[dict[str, Any]]:
        """Yield what meets all conditions, page by page.

        Args:
            what: `models` or `versions`.
            conditions: see docs/catalogue.md.
            further: `order_by`, `max_results` of a page, `walk`.
        """
        cursor = None
        while True:
            page = self.call(
                "POST", f"/v1/search/{what}", body={"filter": list(conditions), **further, **({"cursor": cursor} if cursor else {})}
            )
            yield from page["results"]
            cursor = page["cursor"]
            if cursor is None:
                return
