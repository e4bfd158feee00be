"""The routes of MLflow's registry REST surface, and which registry role calls which.

They are many, and a role's policy has room for 10,240 characters, so most are granted together by a pattern of their method. What a role
may not call although its patterns reach it is denied by name, as everywhere (`infra.identity.routes_beyond`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MODELS = "/api/2.0/mlflow/registered-models"
VERSIONS = "/api/2.0/mlflow/model-versions"
FILES = "/api/2.0/mlflow-artifacts"
WEBHOOKS = "/api/2.0/mlflow/webhooks"


@dataclass(frozen=True)
class MlflowRoute:
    """One route: method, path, and the end of the ARN by which it is granted; empty for its own."""

    method: str
    path: str
    pattern: str = ""


def _together(method: str, *paths: str) -> tuple[MlflowRoute, ...]:
    return tuple(MlflowRoute(method, path, f"{method}/api/2.0/mlflow/*") for path in paths)


READS = (
    *(
        MlflowRoute("GET", path, "GET/api/2.0/mlflow*")
        for path in (
            f"{MODELS}/get",
            f"{MODELS}/search",
            f"{MODELS}/get-latest-versions",
            f"{MODELS}/alias",
            f"{VERSIONS}/get",
            f"{VERSIONS}/search",
            f"{VERSIONS}/get-download-uri",
            f"{FILES}/artifacts",
            f"{FILES}/artifacts/{{path+}}",
            f"{FILES}/presigned/{{path+}}",
        )
    ),
    MlflowRoute("POST", f"{MODELS}/get-latest-versions"),
)
"""What shows models, versions and files, to every role; MLflow asks for the latest versions by POST."""

DESCRIBING = (
    *_together("POST", f"{MODELS}/create", f"{MODELS}/rename", f"{MODELS}/set-tag", f"{VERSIONS}/set-tag"),
    *_together("PATCH", f"{MODELS}/update", f"{VERSIONS}/update"),
    *_together("DELETE", f"{MODELS}/delete", f"{MODELS}/delete-tag", f"{VERSIONS}/delete-tag"),
)
"""What changes the catalogue, aliases apart."""

ALIASES = (MlflowRoute("POST", f"{MODELS}/alias"), MlflowRoute("DELETE", f"{MODELS}/alias"))
REGISTERING = (MlflowRoute("POST", f"{VERSIONS}/create"),)
MOVING = (MlflowRoute("POST", f"{VERSIONS}/transition-stage"),)
DELETING = (MlflowRoute("DELETE", f"{VERSIONS}/delete"),)
"""Of a governed model this retires a version, which the function behind allows to few."""

WEBHOOK_READS = (MlflowRoute("GET", WEBHOOKS), MlflowRoute("GET", f"{WEBHOOKS}/{{webhook_id}}"))
WEBHOOK_CHANGES = (
    MlflowRoute("POST", WEBHOOKS),
    MlflowRoute("PATCH", f"{WEBHOOKS}/{{webhook_id}}"),
    MlflowRoute("DELETE", f"{WEBHOOKS}/{{webhook_id}}"),
    MlflowRoute("POST", f"{WEBHOOKS}/{{webhook_id}}/test"),
)
"""There where a deployment has no webhooks too: the function behind says so then."""

MODEL_ROUTES = (*READS, *DESCRIBING, *ALIASES, *REGISTERING, *MOVING, *DELETING)
EVERY = (*MODEL_ROUTES, *WEBHOOK_READS, *WEBHOOK_CHANGES)

CALLS: Mapping[str, tuple[MlflowRoute, ...]] = {
    "scientist": MODEL_ROUTES,
    "validator": (*READS, *MOVING),
    "approver": (*READS, *ALIASES, *MOVING),
    "deployer": (*READS, *ALIASES, *MOVING, *DELETING),
    "consumer": READS,
    "auditor": (*READS, *WEBHOOK_READS),
    "admin": (*READS, *DESCRIBING, *ALIASES, *MOVING, *DELETING, *WEBHOOK_READS, *WEBHOOK_CHANGES),
}
"""Registry role to what it calls, as on the native routes. In what a move ends, the functions behind decide by their own tables."""
