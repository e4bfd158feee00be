"""Actions: what each route of the API is called in policies and audit notes, and what it acts on.

A route that is not in the table is refused to everybody: whoever adds one says here what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Resource(StrEnum):
    """What a request acts on, as far as the route tells.

    Attributes:
        MODEL: the model that the path names.
        REGISTRY: the registry as a whole, or nothing of a model.
        NAMED: the model that the query names, the registry where it names none.
        LATER: a model that only the function finds out; until then `FIND` is asked for, and the function asks for the action itself.
    """

    MODEL = "model"
    REGISTRY = "registry"
    NAMED = "named"
    LATER = "later"


@dataclass(frozen=True)
class Action:
    """An operation of the API.

    Attributes:
        name: as policies name it.
        resource: what it acts on.
        fresh: decided on rows as they are now; other actions may be decided on rows that were read up to `STALE_SECONDS` ago.
    """

    name: str
    resource: Resource
    fresh: bool


_VERSION = "/v1/models/{model}/versions/{number}"
_ON_MODEL = {
    "GET /v1/models/{model}": "models.read",
    "PATCH /v1/models/{model}": "models.change",
    "DELETE /v1/models/{model}": "models.delete",
    "PUT /v1/models/{model}/tags/{key}": "models.tag",
    "DELETE /v1/models/{model}/tags/{key}": "models.untag",
    "GET /v1/models/{model}/aliases": "aliases.list",
    "PUT /v1/models/{model}/aliases/{alias}": "aliases.set",
    "DELETE /v1/models/{model}/aliases/{alias}": "aliases.delete",
    f"PATCH {_VERSION}": "versions.label",
    f"DELETE {_VERSION}": "versions.delete",
    f"PUT {_VERSION}/tags/{{key}}": "versions.tag",
    f"DELETE {_VERSION}/tags/{{key}}": "versions.untag",
    f"GET {_VERSION}/labels": "labels.read",
    f"GET {_VERSION}/annotations": "annotations.list",
    f"POST {_VERSION}/annotations": "annotations.add",
    "GET /v1/models/{model}/rollout": "rollouts.read",
    "GET /v1/models/{model}/versions": "versions.list",
    "GET /v1/models/{model}/diff": "versions.diff",
    "GET /v1/models/{model}/refreshes": "refreshes.read",
    "GET /v1/models/{model}/conflicts": "conflicts.list",
    f"GET {_VERSION}": "versions.read",
    f"GET {_VERSION}/logs": "versions.log",
    f"GET {_VERSION}/data": "versions.data",
    f"GET {_VERSION}/files": "versions.files",
    f"GET {_VERSION}/packet": "versions.packet",
    f"GET {_VERSION}/bundle": "versions.bundle",
    f"POST {_VERSION}/decision": "versions.decide",
    f"POST {_VERSION}/validations": "versions.validate",
    f"POST {_VERSION}/deployment": "versions.deploy",
    f"POST {_VERSION}/promotion": "versions.promote",
    f"POST {_VERSION}/retry": "versions.retry",
    f"POST {_VERSION}/claim": "versions.claim",
    f"POST {_VERSION}/kill": "versions.kill",
    f"POST {_VERSION}/retirement": "versions.retire",
    f"POST {_VERSION}/hold": "versions.hold",
    f"POST {_VERSION}/release": "versions.release",
    f"POST {_VERSION}/redo": "versions.redo",
    f"POST {_VERSION}/legal-hold": "versions.preserve",
    f"POST {_VERSION}/disposal": "versions.dispose",
    f"POST {_VERSION}/transition": "versions.transition",
    f"POST {_VERSION}/reproduction": "versions.reproduce",
    "POST /v1/models/{model}/versions": "versions.import",
    "POST /v1/models/{model}/rollback": "models.rollback",
    "POST /v1/models/{model}/rollout": "rollouts.change",
    "POST /v1/models/{model}/capture": "models.capture",
    "POST /v1/models/{model}/refresh": "models.refresh",
    "POST /v1/models/{model}/conflicts": "conflicts.declare",
    "POST /v1/models/{model}/predictions": "predictions.make",
    "POST /v1/models/{model}/scorings": "scorings.make",
}
_ON_REGISTRY = {
    "GET /v1/me": "me.read",
    "GET /v1/openapi.json": "api.describe",
    "GET /v1/models": "models.list",
    "POST /v1/models": "models.create",
    "POST /v1/search/models": "models.search",
    "POST /v1/search/versions": "versions.search",
    "POST /v1/uploads": "uploads.create",
    "POST /v1/imports": "imports.create",
    "GET /v1/submissions/{submission}": "submissions.read",
    "GET /v1/ledger/file": "ledger.read",
    "GET /v1/ledger/audit": "audit.list",
    "GET /v1/ledger/audit/{number}": "audit.read",
    "GET /v1/lineage": "lineage.walk",
    "GET /v1/runs": "runs.list",
    "GET /v1/compliance": "compliance.review",
    "GET /v1/root": "root.read",
    "POST /v1/root": "root.publish",
    "GET /v1/root/keys": "root.keys",
    "GET /v1/people": "people.list",
    "POST /v1/people": "people.add",
    "GET /v1/webhooks": "webhooks.list",
    "POST /v1/webhooks": "webhooks.add",
    "DELETE /v1/webhooks/{webhook}": "webhooks.remove",
    "POST /v1/webhooks/{webhook}/rotation": "webhooks.rotate",
    "POST /v1/webhooks/{webhook}/ping": "webhooks.ping",
    "GET /v1/policies": "policies.list",
    "GET /v1/policies/{policy}": "policies.read",
    "POST /v1/policies": "policies.publish",
    "POST /v1/policy-replay": "policies.replay",
    "GET /v1/access/grants": "access.list",
    "POST /v1/access/grants": "access.grant",
    "POST /v1/access/withdrawals": "access.withdraw",
    "GET /v1/access/who-can": "access.review",
    "GET /v1/access/check": "access.check",
    "GET /v1/access/policies": "access.policies",
    "POST /v1/access/policies": "access.publish",
    "GET /v1/access/placements": "access.placement",
    "POST /v1/access/placements": "access.place",
}
_RUN = "/v1/runs/{run}"
_NAMED = {"GET /v1/findings": "findings.list"}
_LATER = {
    "GET /v1/predictions/{id}/trace": "predictions.trace",
    "GET /v1/predictions/{id}/bundle": "predictions.bundle",
    # A run lies where the model of its experiment's name does.
    "POST /v1/runs": "runs.start",
    f"GET {_RUN}": "runs.read",
    f"PATCH {_RUN}": "runs.change",
    f"POST {_RUN}/metrics": "runs.log",
    f"GET {_RUN}/metrics": "runs.metrics",
}
_MLFLOW_MODELS, _MLFLOW_VERSIONS, _MLFLOW_FILES = (
    "/api/2.0/mlflow/registered-models",
    "/api/2.0/mlflow/model-versions",
    "/api/2.0/mlflow-artifacts",
)
MLFLOW: Mapping[str, str] = {
    **{f"GET {_MLFLOW_MODELS}/{act}": "models.read" for act in ("get", "get-latest-versions", "alias")},
    f"POST {_MLFLOW_MODELS}/get-latest-versions": "models.read",
    f"GET {_MLFLOW_VERSIONS}/get": "models.read",
    f"GET {_MLFLOW_VERSIONS}/get-download-uri": "versions.load",
    f"GET {_MLFLOW_FILES}/artifacts": "versions.load",
    f"GET {_MLFLOW_FILES}/artifacts/{{path+}}": "versions.load",
    f"GET {_MLFLOW_FILES}/presigned/{{path+}}": "versions.load",
    **{f"POST {_MLFLOW_MODELS}/{act}": "models.change" for act in ("create", "rename")},
    f"PATCH {_MLFLOW_MODELS}/update": "models.change",
    f"DELETE {_MLFLOW_MODELS}/delete": "models.delete",
    f"POST {_MLFLOW_MODELS}/set-tag": "models.tag",
    f"DELETE {_MLFLOW_MODELS}/delete-tag": "models.untag",
    f"POST {_MLFLOW_MODELS}/alias": "aliases.set",
    f"DELETE {_MLFLOW_MODELS}/alias": "aliases.delete",
    f"PATCH {_MLFLOW_VERSIONS}/update": "versions.label",
    f"POST {_MLFLOW_VERSIONS}/set-tag": "versions.tag",
    f"DELETE {_MLFLOW_VERSIONS}/delete-tag": "versions.untag",
    # Of a governed model this retires, which the function behind decides; of an open one it asks for versions.delete as well.
    f"DELETE {_MLFLOW_VERSIONS}/delete": "versions.transition",
    f"POST {_MLFLOW_VERSIONS}/create": "versions.import",
    f"POST {_MLFLOW_VERSIONS}/transition-stage": "versions.transition",
}
"""MLflow's routes: they name the model in query or body, by a name that may have been changed, so the function finds it out."""

_MLFLOW_LISTS = {f"GET {place}/search": "models.list" for place in (_MLFLOW_MODELS, _MLFLOW_VERSIONS)}
_MLFLOW_WEBHOOKS = {
    "GET /api/2.0/mlflow/webhooks": "webhooks.list",
    "GET /api/2.0/mlflow/webhooks/{webhook_id}": "webhooks.list",
    "POST /api/2.0/mlflow/webhooks": "webhooks.add",
    "PATCH /api/2.0/mlflow/webhooks/{webhook_id}": "webhooks.add",
    "DELETE /api/2.0/mlflow/webhooks/{webhook_id}": "webhooks.remove",
    "POST /api/2.0/mlflow/webhooks/{webhook_id}/test": "webhooks.ping",
}
_OFTEN = frozenset({"predictions.make", "models.search", "versions.search", "runs.log"})
"""What is asked for so often that it is decided on rows read a moment ago, like reads; a search is one, and a batch of points."""

FIND = "predictions.find"
"""What is asked for where the model is not known yet."""

REGISTER = "versions.register"
"""Making a version of an uploaded manifest: no route, since the manifest names the model."""


def _actions() -> dict[str, Action]:
    tables = {
        Resource.MODEL: _ON_MODEL,
        Resource.REGISTRY: {**_ON_REGISTRY, **_MLFLOW_LISTS, **_MLFLOW_WEBHOOKS},
        Resource.NAMED: _NAMED,
        Resource.LATER: {**_LATER, **MLFLOW},
    }
    return {
        route: Action(name, resource, not route.startswith("GET ") and name not in _OFTEN)
        for resource, table in tables.items()
        for route, name in table.items()
    }


ACTIONS: Mapping[str, Action] = _actions()
"""Route, method and path template, to its action."""
