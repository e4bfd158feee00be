"""Persons and policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.client.connection import Connection
from attestry.client.paths import path_part


class AdministrationRoutes(Connection):
    """Persons with their logins and keys, and policies in their editions."""

    def people(self) -> list[dict[str, Any]]:
        """Return the persons and their logins."""
        return list(self.every("/v1/people", "people"))

    def add_person(self, person: str, logins: Sequence[str], name: str = "", *, ssh_keys: Sequence[str] = ()) -> Any:
        """Add a person, or logins and SSH keys (lines of `.pub` files) to one."""
        more = {**({"name": name} if name else {}), **({"ssh_keys": list(ssh_keys)} if ssh_keys else {})}
        return self.post("/v1/people", {"person": person, "logins": list(logins), **more})

    def withdraw_keys(self, person: str, fingerprints: Sequence[str], reason: str) -> Any:
        """Withdraw SSH keys of a person, for good, by their fingerprints (`SHA256:...`)."""
        return self.post("/v1/people", {"person": person, "withdraw": list(fingerprints), "reason": reason})

    def policies(self) -> list[dict[str, Any]]:
        """Return the policies in force, each with its document."""
        return list(self.every("/v1/policies", "policies"))

    def policy_editions(self, name: str) -> list[dict[str, Any]]:
        """Return all editions of a policy, the first one first."""
        return list(self.every(f"/v1/policies/{path_part(name)}", "editions"))

    def publish_policy(self, document: Mapping[str, Any], reason: str) -> Any:
        """Put an edition of a policy in force; the same document again is answered like the first time."""
        return self.post("/v1/policies", {"document": dict(document), "reason": reason})

    def replay_policy(self, document: Mapping[str, Any], since: str, *, after: str = "") -> Any:
        """Judge the promotions since a day (`YYYY-MM-DD`) by a policy; go on behind `next` until it is None."""
        return self.post("/v1/policy-replay", {"document": dict(document), "since": since, **({"after": after} if after else {})})
