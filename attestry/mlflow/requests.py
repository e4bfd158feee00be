"""The requests of the registry's REST surface, each as the values that its operation works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from attestry.mlflow import filters, ordering
from attestry.mlflow.errors import invalid
from attestry.mlflow.fields import Fields
from attestry.mlflow.filters import Filter
from attestry.mlflow.ordering import Order
from attestry.mlflow.pages import MAX_PAGE, question, read_token
from attestry.mlflow.rules import PROMPT_TAG, check_alias, check_description, check_name, check_tag, check_version
from attestry.mlflow.stages import ACTIVE, STAGES, check_stage

MODELS_AT_MOST: Final = 1000
VERSIONS_AT_MOST: Final = 200_000
MODELS_BY_DEFAULT: Final = 100
MAX_LINK: Final = 500
MAX_RUN: Final = 256


@dataclass(frozen=True)
class CreateModel:
    """Make a model."""

    name: str
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class CreateVersion:
    """Make a version of files that lie somewhere.

    Attributes:
        name: the model's name.
        source: where the files are, as the client says it.
        run_id: the run that made them, as the client says it; nothing here knows the run.
        run_link: a link to that run.
        model_id: the logged model that they are, in the client's tracking server.
        description: of the version.
        tags: of the version.
    """

    name: str
    source: str
    run_id: str
    run_link: str
    model_id: str
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class MoveVersion:
    """Move a version to a stage.

    Attributes:
        name: the model's name.
        number: the version's number.
        stage: one of `attestry.mlflow.stages.STAGES`.
        archive: move what stands in that stage to Archived.
    """

    name: str
    number: int
    stage: str
    archive: bool


@dataclass(frozen=True)
class Search:
    """Search models or versions.

    Attributes:
        filter: what they must meet.
        order: what to order them by.
        limit: how many to answer with.
        cursor: where an earlier page ended; empty for the first.
        question: digest of the search, for the next page's token.
    """

    filter: Filter
    order: tuple[Order, ...]
    limit: int
    cursor: str
    question: str


def read_create_model(fields: Fields) -> CreateModel:
    """Return a checked request.

    Raises:
        MlflowError: a value breaks its rule; so do all functions of this module.
    """
    tags = fields.tags()
    _refuse_prompt(tags)
    return CreateModel(model_name(fields), check_description(fields.text("description")), tags)


def read_create_version(fields: Fields) -> CreateVersion:
    """Return a checked request."""
    tags = fields.tags()
    _refuse_prompt(tags)
    run_id, link = fields.text("run_id"), fields.text("run_link")
    if len(run_id) > MAX_RUN or len(link) > MAX_LINK:
        raise invalid(f"'run_id' has at most {MAX_RUN} characters, 'run_link' at most {MAX_LINK}")
    return CreateVersion(
        name=model_name(fields),
        source=fields.required("source"),
        run_id=run_id,
        run_link=link,
        model_id=fields.text("model_id"),
        description=check_description(fields.text("description")),
        tags=tags,
    )


def read_move(fields: Fields) -> MoveVersion:
    """Return a checked request."""
    name, number = version_of(fields)
    stage, archive = check_stage(fields.required("stage")), fields.flag("archive_existing_versions")
    if archive and stage not in ACTIVE:
        raise invalid(
            "Model version transition cannot archive existing model versions because "
            f"'{stage}' is not an Active stage. Valid stages are {list(ACTIVE)}"
        )
    return MoveVersion(name, number, stage, archive)


def read_search(fields: Fields, of: Literal["models", "versions"]) -> Search:
    """Return a checked search."""
    text, clauses = fields.text("filter"), fields.texts("order_by")
    digest = question(of, text, clauses)
    cursor = read_token(fields.text("page_token"), digest)
    if of == "models":
        conditions = filters.parse_filter(text, filters.OF_MODELS)
        order = ordering.parse_order(clauses, ordering.OF_MODELS)
        limit = fields.count("max_results", MODELS_BY_DEFAULT, MODELS_AT_MOST)
    else:
        conditions = filters.parse_filter(text, filters.OF_VERSIONS)
        order = ordering.parse_order(clauses, ordering.OF_VERSIONS)
        limit = fields.count("max_results", MAX_PAGE, VERSIONS_AT_MOST)
    return Search(conditions, order, min(limit, MAX_PAGE), cursor, digest)


def model_name(fields: Fields, parameter: str = "name") -> str:
    """Return a model's name."""
    return check_name(fields.required(parameter), parameter)


def version_of(fields: Fields) -> tuple[str, int]:
    """Return name and number of a version."""
    return model_name(fields), check_version(fields.required("version"))


def alias_of(fields: Fields, *, settable: bool = False) -> str:
    """Return an alias."""
    return check_alias(fields.required("alias"), settable=settable)


def tag_of(fields: Fields) -> tuple[str, str]:
    """Return key and value of a tag to set."""
    key, value = check_tag(fields.required("key"), fields.text("value"))
    _refuse_prompt({key: value})
    return key, value


def tag_key(fields: Fields) -> str:
    """Return the key of a tag to delete."""
    return check_tag(fields.required("key"))[0]


def description_of(fields: Fields) -> str | None:
    """Return a description, or None where none was given."""
    text = fields.optional("description")
    return None if text is None else check_description(text)


def stages_of(fields: Fields) -> tuple[str, ...]:
    """Return the stages that are asked for, all of them where none is named."""
    return tuple(dict.fromkeys(check_stage(stage) for stage in fields.texts("stages"))) or STAGES


def _refuse_prompt(tags: Mapping[str, str]) -> None:
    if tags.get(PROMPT_TAG, "false").lower() != "false":
        raise invalid("prompts are no models: this registry keeps none. Leave them with the tracking server")
