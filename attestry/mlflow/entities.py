"""Models and versions in the shape of MLflow's messages: times in milliseconds, version numbers as texts, nothing that is empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from attestry.mlflow.rules import OWN_TAGS

Status = Literal["PENDING_REGISTRATION", "FAILED_REGISTRATION", "READY"]


@dataclass(frozen=True)
class ShownVersion:
    """A version as MLflow is shown it.

    Attributes:
        name: the model's name in MLflow.
        number: its number.
        created, updated: RFC 3339.
        user: who registered it.
        stage: see `attestry.mlflow.stages`.
        description: text.
        source: where its files came from.
        run_id, run_link, model_id: what the client said of its run.
        status: whether its files are frozen.
        message: what a person should know of it, for example why it is not in Production yet.
        tags: all of them; the registry's own are not shown.
        aliases: those that name it.
    """

    name: str
    number: int
    created: str
    updated: str
    user: str
    stage: str
    description: str = ""
    source: str = ""
    run_id: str = ""
    run_link: str = ""
    model_id: str = ""
    status: Status = "READY"
    message: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the message `ModelVersion`."""
        texts = {
            "name": self.name,
            "version": str(self.number),
            "user_id": self.user,
            "current_stage": self.stage,
            "description": self.description,
            "source": self.source,
            "run_id": self.run_id,
            "status": self.status,
            "status_message": self.message,
            "run_link": self.run_link,
            "model_id": self.model_id,
        }
        return {
            **{name: text for name, text in texts.items() if text},
            "creation_timestamp": milliseconds(self.created),
            "last_updated_timestamp": milliseconds(self.updated),
            **_tags(self.tags),
            **({"aliases": sorted(self.aliases)} if self.aliases else {}),
        }


@dataclass(frozen=True)
class ShownModel:
    """A model as MLflow is shown it.

    Attributes:
        name: its name in MLflow.
        created, updated: RFC 3339.
        description: text.
        tags: all of them; the registry's own are not shown.
        aliases: alias to number.
        latest: the latest version of each stage.
    """

    name: str
    created: str
    updated: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    latest: tuple[ShownVersion, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the message `RegisteredModel`."""
        aliases = [{"alias": alias, "version": str(number)} for alias, number in sorted(self.aliases.items())]
        return {
            "name": self.name,
            "creation_timestamp": milliseconds(self.created),
            "last_updated_timestamp": milliseconds(self.updated),
            **({"description": self.description} if self.description else {}),
            **_tags(self.tags),
            **({"aliases": aliases} if aliases else {}),
            **({"latest_versions": [version.to_dict() for version in self.latest]} if self.latest else {}),
        }


def milliseconds(at: str) -> int:
    """Return a time as MLflow writes it.

    Args:
        at: RFC 3339; empty where it is not known, which is 0.
    """
    if not at:
        return 0
    moment = datetime.fromisoformat(at)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def _tags(tags: Mapping[str, str]) -> dict[str, Any]:
    shown = [{"key": key, "value": value} for key, value in sorted(tags.items()) if not key.startswith(OWN_TAGS)]
    return {"tags": shown} if shown else {}
