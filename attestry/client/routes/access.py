"""Who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestry.client.connection import Connection


class AccessRoutes(Connection):
    """Grants, placements, access policies, and reviews."""

    def grants(self, **subject: str) -> list[dict[str, Any]]:
        """Return what was granted, to everybody or to one (`person=` or `login=`)."""
        granted: list[dict[str, Any]] = self.get("/v1/access/grants", subject)["granted"]
        return granted

    def grant(self, role: str, scope: str, *, reason: str, until: str = "", **subject: str) -> Any:
        """Let a role count somewhere for `person=` or `login=`; the same again changes nothing."""
        body = {"role": role, "scope": scope, "reason": reason, **subject, **({"until": until} if until else {})}
        return self.post("/v1/access/grants", body)

    def withdraw_grant(self, role: str, scope: str, *, reason: str, **subject: str) -> Any:
        """End a grant."""
        return self.post("/v1/access/withdrawals", {"role": role, "scope": scope, "reason": reason, **subject})

    def who_can(self, action: str, model: str = "", *, alias: str = "") -> Any:
        """Tell who can do something to a model, or to the registry."""
        return self.get("/v1/access/who-can", _named(action=action, model=model, alias=alias))

    def check_access(self, action: str, model: str = "", *, alias: str = "", **subject: str) -> Any:
        """Tell whether the caller can do something; for reviewers, whether `person=` or `login=` can."""
        return self.get("/v1/access/check", {**_named(action=action, model=model, alias=alias), **subject})

    def access_policies(self) -> Any:
        """Return the default access policies and those that were added."""
        return self.get("/v1/access/policies")

    def publish_access_policy(self, name: str, text: str, *, reason: str) -> Any:
        """Put an edition of an added access policy in force; an empty text ends it."""
        return self.post("/v1/access/policies", {"name": name, "text": text, "reason": reason})

    def placement(self, model: str) -> Any:
        """Return where a model is placed."""
        return self.get("/v1/access/placements", {"model": model})

    def place_model(self, model: str, tags: Mapping[str, str], *, project: str = "", unit: str = "", reason: str) -> Any:
        """Say where a model lies: all its tags, its project and its business unit."""
        body = {"model": model, "tags": dict(tags), **_named(project=project, unit=unit), "reason": reason}
        return self.post("/v1/access/placements", body)


def _named(**texts: str) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}
