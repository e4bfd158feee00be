"""API: MLflow's model registry, REST 2.0, for unmodified clients of MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from attestry.aws.http import Answer, Named, Request, serve
from attestry.aws.identity import caller
from attestry.aws.native import NativeActs, forward
from attestry.aws.world import World
from attestry.domain.catalogue import identity_of
from attestry.domain.errors import AttestryError, InvalidInputError
from attestry.domain.principal import Principal
from attestry.mlflow import requests
from attestry.mlflow.entities import ShownModel, ShownVersion
from attestry.mlflow.errors import ENDPOINT_NOT_FOUND, MlflowError, error_body
from attestry.mlflow.fields import Fields
from attestry.mlflow.pages import write_token
from attestry.mlflow.sources import own_submission
from attestry.usecases import mlflow_changing as changing
from attestry.usecases import mlflow_files as files
from attestry.usecases import mlflow_moving as moving
from attestry.usecases import mlflow_reading as reading
from attestry.usecases import mlflow_searching as searching
from attestry.usecases.foresight import Foresight
from attestry.usecases.mlflow_latest import latest_of_stages
from attestry.usecases.read_ahead import ReadAlong
from attestry.usecases.upload import candidate_prefix

MODELS = "/api/2.0/mlflow/registered-models"
VERSIONS = "/api/2.0/mlflow/model-versions"
WEBHOOKS = "/api/2.0/mlflow/webhooks"

NO_WEBHOOKS = (
    "this registry has no webhooks: they are off in its deployment. Who deploys it turns them on by the setting `webhooks` "
    "(cdk deploy -c attestry:webhooks=true)"
)

world = World(call_seconds=25)
foresight = Foresight()

Operation = Callable[[changing.Desk, Fields], Any]


def create_model(desk: changing.Desk, fields: Fields) -> Any:
    """Make a model."""
    return _model(changing.create_model(desk, requests.read_create_model(fields)))


def get_model(desk: changing.Desk, fields: Fields) -> Any:
    """Show a model."""
    return _model(changing.show_model(desk, requests.model_name(fields)))


def update_model(desk: changing.Desk, fields: Fields) -> Any:
    """Describe a model."""
    return _model(changing.describe_model(desk, requests.model_name(fields), requests.description_of(fields) or ""))


def rename_model(desk: changing.Desk, fields: Fields) -> Any:
    """Give a model another name."""
    return _model(changing.rename_model(desk, requests.model_name(fields), requests.model_name(fields, "new_name")))


def delete_model(desk: changing.Desk, fields: Fields) -> Any:
    """Delete a model."""
    changing.delete_model(desk, requests.model_name(fields))
    return {}


def search_models(request: Request) -> dict[str, Any]:
    """Search models."""
    asked = requests.read_search(Fields.of_query(request.raw_query), "models")
    found, cursor = searching.search_models(world.meta, asked, request.readable)
    return _page("registered_models", [model.to_dict() for model in found], write_token(asked.question, cursor))


def latest_versions(desk: changing.Desk, fields: Fields) -> Any:
    """Show the latest version of each stage."""
    known = desk.find(requests.model_name(fields))
    latest = latest_of_stages(desk.meta, known, requests.stages_of(fields))
    return {"model_versions": [version.to_dict() for version in latest]}


def set_model_tag(desk: changing.Desk, fields: Fields) -> Any:
    """Set a tag of a model."""
    key, value = requests.tag_of(fields)
    changing.set_tag(desk, desk.find(requests.model_name(fields)), key, value)
    return {}


def delete_model_tag(desk: changing.Desk, fields: Fields) -> Any:
    """Delete a tag of a model."""
    changing.delete_tag(desk, desk.find(requests.model_name(fields)), requests.tag_key(fields))
    return {}


def set_alias(desk: changing.Desk, fields: Fields) -> Any:
    """Let an alias name a version."""
    alias = requests.alias_of(fields, settable=True)
    changing.set_alias(desk, desk.find(*requests.version_of(fields), alias=alias), alias)
    return {}


def delete_alias(desk: changing.Desk, fields: Fields) -> Any:
    """Delete an alias."""
    alias = requests.alias_of(fields)
    changing.delete_alias(desk, desk.find(requests.model_name(fields), alias=alias), alias)
    return {}


def get_by_alias(desk: changing.Desk, fields: Fields) -> Any:
    """Show the version that an alias names."""
    known = desk.find(requests.model_name(fields))
    return _version(reading.find_by_alias(desk.meta, known, requests.alias_of(fields)).show_version())


def create_version(desk: changing.Desk, fields: Fields) -> Any:
    """Make a version of files that the caller uploaded."""
    asked = requests.read_create_version(fields)
    source = own_submission(asked.source, store=world.settings.store, prefix=candidate_prefix(desk.by.user_id))
    return _version(moving.create_version(desk, asked, source))


def get_version(desk: changing.Desk, fields: Fields) -> Any:
    """Show a version."""
    return _version(desk.find(*requests.version_of(fields)).show_version())


def update_version(desk: changing.Desk, fields: Fields) -> Any:
    """Describe a version."""
    return _version(changing.describe_version(desk, *requests.version_of(fields), requests.description_of(fields)))


def move_version(desk: changing.Desk, fields: Fields) -> Any:
    """Move a version to a stage, or ask for it."""
    return _version(moving.move_version(desk, requests.read_move(fields)))


def delete_version(desk: changing.Desk, fields: Fields) -> Any:
    """Delete or retire a version."""
    return {"message": moving.delete_version(desk, *requests.version_of(fields))}


def search_versions(request: Request) -> dict[str, Any]:
    """Search versions."""
    asked = requests.read_search(Fields.of_query(request.raw_query), "versions")
    found, cursor = searching.search_versions(world.meta, asked, request.readable)
    return _page("model_versions", [version.to_dict() for version in found], write_token(asked.question, cursor))


def set_version_tag(desk: changing.Desk, fields: Fields) -> Any:
    """Set a tag of a version."""
    key, value = requests.tag_of(fields)
    changing.set_tag(desk, desk.find(*requests.version_of(fields)), key, value)
    return {}


def delete_version_tag(desk: changing.Desk, fields: Fields) -> Any:
    """Delete a tag of a version."""
    changing.delete_tag(desk, desk.find(*requests.version_of(fields)), requests.tag_key(fields))
    return {}


def download_uri(request: Request) -> dict[str, Any]:
    """Tell where an unmodified client finds a version's files: on the tree that it asks, whose credentials it has."""
    desk = _desk(request)
    known = desk.find(*requests.version_of(Fields.of_query(request.raw_query)))
    files.require_handed_to(desk.by, known)
    return {"artifact_uri": files.artifact_uri(f"{_api_url()}{request.tree}", known)}


def list_files(desk: changing.Desk, fields: Fields) -> Any:
    """List what lies in a folder of a version."""
    known, folder = files.find_files(desk, fields.text("path"))
    return {"files": files.list_files(known, folder)}


_AT_DESK: Mapping[str, Operation] = {
    f"POST {MODELS}/create": create_model,
    f"GET {MODELS}/get": get_model,
    f"PATCH {MODELS}/update": update_model,
    f"POST {MODELS}/rename": rename_model,
    f"DELETE {MODELS}/delete": delete_model,
    f"POST {MODELS}/get-latest-versions": latest_versions,
    f"GET {MODELS}/get-latest-versions": latest_versions,
    f"POST {MODELS}/set-tag": set_model_tag,
    f"DELETE {MODELS}/delete-tag": delete_model_tag,
    f"POST {MODELS}/alias": set_alias,
    f"DELETE {MODELS}/alias": delete_alias,
    f"GET {MODELS}/alias": get_by_alias,
    f"POST {VERSIONS}/create": create_version,
    f"GET {VERSIONS}/get": get_version,
    f"PATCH {VERSIONS}/update": update_version,
    f"POST {VERSIONS}/transition-stage": move_version,
    f"DELETE {VERSIONS}/delete": delete_version,
    f"POST {VERSIONS}/set-tag": set_version_tag,
    f"DELETE {VERSIONS}/delete-tag": delete_version_tag,
    f"GET {files.ROUTE}": list_files,
}


def read_file(request: Request) -> Answer:
    """Hand out a file of a version."""
    known, path = _file(request)
    return Answer(files.read_file(world.store, known, path))


def presign_file(request: Request) -> dict[str, Any]:
    """Give a URL that reads a file of a version, and its digest."""
    known, path = _file(request)
    return files.presign_file(world.store, known, path)


def webhooks(request: Request) -> Answer:
    """Have the function that keeps webhooks answer; where the deployment has none, say so."""
    if not world.settings.webhooks_function:
        raise MlflowError(ENDPOINT_NOT_FOUND, NO_WEBHOOKS)
    return forward(world.functions, world.settings.webhooks_function, request)


def _at_desk(operation: Operation) -> Callable[[Request], Any]:
    def answer(request: Request) -> Any:
        fields = Fields.of_query(request.raw_query) if request.route.startswith("GET ") else Fields.of_body(request.raw)
        return operation(_desk(request), fields)

    return answer


ROUTES: Mapping[str, Callable[[Request], Any]] = {
    **{route: _at_desk(operation) for route, operation in _AT_DESK.items()},
    f"GET {MODELS}/search": search_models,
    f"GET {VERSIONS}/search": search_versions,
    f"GET {VERSIONS}/get-download-uri": download_uri,
    f"GET {files.ROUTE}/{{path+}}": read_file,
    "GET /api/2.0/mlflow-artifacts/presigned/{path+}": presign_file,
    **dict.fromkeys((f"GET {WEBHOOKS}", f"POST {WEBHOOKS}", f"POST {WEBHOOKS}/{{webhook_id}}/test"), webhooks),
    **{f"{method} {WEBHOOKS}/{{webhook_id}}": webhooks for method in ("GET", "PATCH", "DELETE")},
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer the API."""
    return serve(
        event,
        context,
        ROUTES,
        guard=world.guard,
        named=_named,
        on_denied=lambda request, error: world.audit.denied(request, error),
        on_error=_refuse,
        repeats=True,
    )


def _named(request: Request) -> Named | None:
    """Return what a request that changes something names: what decides who may is read with the rows that it acts on.

    What is out of form is refused by the operation, in its own words.
    """
    if request.route not in _AT_DESK or request.route.startswith("GET "):
        return None
    try:
        fields = Fields.of_body(request.raw)
        name = requests.model_name(fields)
        number = requests.version_of(fields)[1] if fields.values.get("version") else None
        return Named(identity_of(name), ReadAlong(world.meta, reading.rows_named(name, number)))
    except (MlflowError, InvalidInputError):
        return None


def _desk(request: Request) -> changing.Desk:
    settings = world.settings
    acts = NativeActs(world.functions, request, operate=settings.operate_function, uploads=settings.uploads_function)

    def gate(model: str, action: str | None = None, **context: str) -> Principal:
        return request.require(model, action, **context)

    reads = request.route.startswith("GET ")
    question = f"{request.route} {sorted(request.parameters.items())} {request.raw_query}"
    meta = foresight.ahead(world.meta, question) if reads else request.table or world.meta
    return changing.Desk(meta, acts, gate, caller(request, settings), world.clock.now(), settings.mlflow_policy)


def _file(request: Request) -> tuple[reading.Known, str]:
    known, path = files.find_files(_desk(request), request.text("path"))
    world.audit.allowed(request, "model.download", f"{known.require_version()[0].reference}/{path}")
    return known, path


def _refuse(error: AttestryError) -> Answer:
    status, body = error_body(error)
    return Answer(body, status)


@cache
def _api_url() -> str:
    """Return where the API answers, as every client is told."""
    return world.parameters.read(world.settings.api_url_parameter)


def _model(model: ShownModel) -> dict[str, Any]:
    return {"registered_model": model.to_dict()}


def _version(version: ShownVersion) -> dict[str, Any]:
    return {"model_version": version.to_dict()}


def _page(name: str, entries: list[dict[str, Any]], token: str) -> dict[str, Any]:
    return {**({name: entries} if entries else {}), **({"next_page_token": token} if token else {})}
