"""The API's routes of the catalogue and of searches, as a part of `RegistryClient`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote


class CatalogueRoutes:
    """The routes of the catalogue; a part of `RegistryClient`, which signs and sends."""

    def call(self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Send a request and return the answer's JSON."""
        raise NotImplementedError

    def create_model(self, name: str, *, description: str = "", tags: Mapping[str, str] | None = None, mode: str = "governed") -> Any:
        """Create a model without versions."""
        return self.call("POST", "/v1/models", body={"name": name, "description": description, "tags": dict(tags or {}), "mode": mode})

    def change_model(self, model: str, changes: Mapping[str, Any]) -> Any:
        """Change a model's `description` or, of an open one, its `name`."""
        return self.call("PATCH", _model(model), body=dict(changes))

    def delete_model(self, model: str) -> Any:
        """Delete an open model from the catalogue."""
        return self.call("DELETE", _model(model))

    def label_version(self, model: str, number: int, changes: Mapping[str, Any]) -> Any:
        """Change the `description`, or all `tags`, of a version."""
        return self.call("PATCH", _subject(model, number), body=dict(changes))

    def labels(self, model: str, number: int) -> Any:
        """Return description and tags of a version."""
        return self.call("GET", f"{_subject(model, number)}/labels")

    def set_tag(self, model: str, number: int | None, key: str, value: str) -> Any:
        """Set a tag of a model or, with a number, of a version."""
        return self.call("PUT", f"{_subject(model, number)}/tags/{quote(key, safe='')}", body={"value": value})

    def delete_tag(self, model: str, number: int | None, key: str) -> Any:
        """Take a tag away from a model or, with a number, from a version."""
        return self.call("DELETE", f"{_subject(model, number)}/tags/{quote(key, safe='')}")

    def aliases(self, model: str) -> list[dict[str, Any]]:
        """Return the aliases of a model."""
        return list(self.call("GET", f"{_model(model)}/aliases")["aliases"])

    def set_alias(self, model: str, alias: str, number: int) -> Any:
        """Let an alias name a version."""
        return self.call("PUT", f"{_model(model)}/aliases/{quote(alias, safe='')}", body={"number": number})

    def delete_alias(self, model: str, alias: str) -> Any:
        """Take an alias away."""
        return self.call("DELETE", f"{_model(model)}/aliases/{quote(alias, safe='')}")

    def annotate(self, model: str, number: int, text: str, transition: int = 0) -> Any:
        """Remark on a version, or on one of its moves."""
        return self.call("POST", f"{_subject(model, number)}/annotations", body={"text": text, "transition": transition})

    def annotations(self, model: str, number: int) -> list[dict[str, Any]]:
        """Return the remarks on a version, the oldest first; all of them, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"after": found[-1]["sequence"]} if found else None
            page = self.call("GET", f"{_subject(model, number)}/annotations", query=query)["annotations"]
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


def _model(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}"


def _subject(model: str, number: int | None) -> str:
    return _model(model) if number is None else f"{_model(model)}/versions/{number}"
