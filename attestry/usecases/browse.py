"""Browse: the read side of the registry, for the API and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attestry.domain import diff
from attestry.domain.errors import ForbiddenError, InvalidInputError, NotFoundError
from attestry.domain.paging import WHOLE, Page
from attestry.domain.principal import Principal
from attestry.domain.version import FileRef, Version
from attestry.ports import Item, MetaStore, ObjectStore
from attestry.usecases.aliases import Aliases
from attestry.usecases.catalogue_rows import COLLECTION as CATALOGUE
from attestry.usecases.catalogue_rows import aliases_key, catalogue_key
from attestry.usecases.disposed import read_disposals
from attestry.usecases.findings import findings_of
from attestry.usecases.import_facts import describe_import
from attestry.usecases.import_version import read_import_document
from attestry.usecases.manifests import load_manifest, load_registered_manifest
from attestry.usecases.pointer import require_deployed
from attestry.usecases.promotion_rows import PREFIX
from attestry.usecases.records import MODELS, load_version, model_key, pointer_key, version_key
from attestry.usecases.search import Readable, all_readable, earlier_like, tell_alike

URL_SECONDS = 15 * 60
MAX_LOG_BYTES = 1024 * 1024 + 4096
HOLDOUT_LABELS = "holdout-labels"
DATA_SETS = ("source", "training", "holdout", HOLDOUT_LABELS)
LABEL_READERS = frozenset({"approver", "auditor", "admin"})
LOOKED_AT = 2_000
"""Models that a page of a list looks at, of which the caller may read too few to fill it."""

_HIDDEN = ("token", "gsi_pk", "gsi_sk", "pk", "sk")


def list_models(meta: MetaStore, page: Page = WHOLE, readable: Readable = all_readable) -> tuple[list[dict[str, Any]], str | None]:
    """Return the models of a page and one more, by name: those that have versions, and those that were created without.

    Args:
        meta: the table.
        page: the page.
        readable: leaves those of some models, by name, which the caller may read.

    Returns:
        The models that the caller may read, and the place to go on from where the reading ended before the page was full; else None.
        That names a model which the caller may not read only where there was no other among so many.
    """
    found: list[dict[str, Any]] = []
    after, looked_at = page.after, 0
    while True:
        models = _models_behind(meta, after, page.ahead)
        may = set(readable([str(model["model"]) for model in models]))
        found += [model for model in models if model["model"] in may]
        if page.ahead is None or len(models) < page.ahead or len(found) >= page.ahead:
            return found[: page.ahead], None
        after, looked_at = str(models[-1]["model"]), looked_at + len(models)
        if looked_at >= LOOKED_AT:
            return found, str(found[-1]["model"]) if found else after


def _models_behind(meta: MetaStore, after: str | None, limit: int | None) -> list[dict[str, Any]]:
    rows: dict[str, Item] = {}
    for collection in (CATALOGUE, MODELS):
        rows |= {str(row["model"]): row for row in meta.list_collection(collection, after=after, limit=limit)}
    return [_shown_model(rows[model]) for model in sorted(rows)[:limit]]


def show_model(meta: MetaStore, model: str) -> dict[str, Any]:
    """Return the model with what is deployed where.

    Raises:
        NotFoundError: no such model.
    """
    rows = meta.get_many([model_key(model), catalogue_key(model), aliases_key(model)])
    row, described = rows.get(model_key(model)), rows.get(catalogue_key(model))
    if row is None and (described is None or described.get("deleted")):
        raise NotFoundError(f"there is no model {model}")
    pointers = meta.query(model_key(model).partition, prefix="POINTER#")
    deployed = [_shown_pointer(p) for p in pointers]
    shown = _shown_model(row or described or {})
    if described is not None and not described.get("deleted"):
        shown |= {name: described[name] for name in ("name", "description", "tags", "mode")}
        shown["catalogue_rev"] = int(described["rev"])
    shown["rev"] = int((row or {}).get("rev", 0))
    aliases = [alias.to_dict() for alias in Aliases.from_item(model, rows.get(aliases_key(model))).by_alias.values()]
    return {**shown, "aliases": aliases, "deployed": deployed, "findings": findings_of(meta, model, 0)}


def list_versions(meta: MetaStore, model: str, page: Page = WHOLE) -> list[dict[str, Any]]:
    """Return the versions of a model that are on a page, and one more, in order of their numbers.

    Raises:
        NotFoundError: no such model.
    """
    if meta.get(model_key(model)) is None:
        raise NotFoundError(f"there is no model {model}")
    fields = (
        "model",
        "number",
        "stage",
        "status",
        "standing",
        "created",
        "updated",
        "metrics",
        "version_digest",
        "error",
        "submitter_person",
        "retirement",
        "retires_on",
    )
    return [{f: row.get(f) for f in fields} for row in meta.list_collection(f"VERSIONS#{model}", after=page.after, limit=page.ahead)]


def show_version(meta: MetaStore, store: ObjectStore, model: str, number: int) -> dict[str, Any]:
    """Return all that is recorded of a version: head, manifest, transitions, runs of stages, decisions, and open findings.

    Of an imported version, `import` (`attestry.usecases.import_facts`) stands in the place of `manifest_content`, which is None.

    Raises:
        NotFoundError: no such version.
        IntegrityError: the manifest is not the one that was registered.
    """
    rows = meta.query(version_key(model, number).partition)
    head = next((r for r in rows if r["sk"] == "HEAD"), None)
    if head is None:
        raise NotFoundError(f"there is no version {model}@{number}")
    version = Version.from_item(head)
    return {
        **_shown(head),
        **_content(meta, store, version),
        "transitions": [_shown(r) for r in rows if r["sk"].startswith("TRANSITION#")],
        "stages": [_shown(r) for r in rows if r["sk"].startswith("STAGE#")],
        "approvals": [_shown(r) for r in rows if r["sk"].startswith("APPROVAL#")],
        **_promotions(rows),
        "reproductions": [_shown(r) for r in rows if r["sk"].startswith("REPRODUCTION#")],
        "findings": findings_of(meta, model, number),
        "alike": [tell_alike(version, other) for other in earlier_like(meta, version)],
    }


def _promotions(rows: Sequence[Item]) -> dict[str, Any]:
    """Return the decisions on promotions, where there are any; the head says what stands."""
    decided = [_shown(r) for r in rows if r["sk"].startswith(PREFIX) and "decision" in r]
    return {"promotion_decisions": decided} if decided else {}


def _content(meta: MetaStore, store: ObjectStore, version: Version) -> dict[str, Any]:
    if version.imported:
        run = version.traits.get("run")
        return {"manifest_content": None, "import": {**describe_import(meta, store, version), **({"run": run} if run else {})}}
    return {"manifest_content": load_registered_manifest(store, version).to_mapping()}


def diff_versions(meta: MetaStore, store: ObjectStore, model: str, before: int, after: int) -> list[dict[str, Any]]:
    """Return what differs between two versions, by section and field."""
    return compare_versions(store, load_version(meta, model, before), load_version(meta, model, after))


def compare_versions(store: ObjectStore, before: Version, after: Version) -> list[dict[str, Any]]:
    """Return what differs between two versions, by section and field.

    Raises:
        IntegrityError: a manifest is not the one that was registered.
    """
    return [row.to_item() for row in diff.compare_sections(_sections(store, before), _sections(store, after))]


def read_log(meta: MetaStore, store: ObjectStore, model: str, number: int, stage: str) -> dict[str, Any]:
    """Return the log of the latest run of a stage.

    Raises:
        NotFoundError: the stage has not run, or left no log.
    """
    rows = meta.query(version_key(model, number).partition, prefix=f"STAGE#{stage}#")
    logs = [r for r in rows if r.get("log")]
    if not logs:
        taken = json.loads(rows[-1]["plan"]).get("reused_from") if rows and rows[-1].get("plan") else None
        where = f": it was taken from {model}@{taken['number']}, which has the log of the run" if taken else ""
        raise NotFoundError(f"{model}@{number} has no log of {stage}{where}")
    log = logs[-1]["log"]
    raw = store.read(log["key"], log["version_id"], max_bytes=MAX_LOG_BYTES)
    return {
        "stage": stage,
        "attempt": logs[-1]["attempt"],
        "sha256": log["sha256"],
        "size": log["size"],
        "text": raw.decode("utf-8", "replace"),
    }


def list_data(meta: MetaStore, store: ObjectStore, model: str, number: int, name: str, *, by: Principal) -> dict[str, Any]:
    """Return the files of a data set of a version, each with its digest and a URL that reads exactly the recorded bytes.

    Raises:
        InvalidInputError: no such kind of data set.
        ForbiddenError: the caller may not see the labels that candidates are judged by.
        NotFoundError: no such version, it has not come that far, or its files were disposed.
    """
    if name not in DATA_SETS:
        raise InvalidInputError.of("set", "enum", f"the set is one of {', '.join(DATA_SETS)}")
    if name == HOLDOUT_LABELS and not set(by.roles) & LABEL_READERS:
        raise ForbiddenError(f"the hold-out's labels are shown to {', '.join(sorted(LABEL_READERS))} alone: candidates are judged by them")
    version = load_version(meta, model, number)
    chosen = [d for d in version.datasets if d.name == name or d.name.startswith(f"{name}/")]
    if not chosen:
        raise NotFoundError(f"{version.reference} has no {name} data yet")
    _refuse_disposed(meta, store, version, [f for d in chosen for f in d.files])
    files = [
        {"path": f.path, "sha256": f.sha256, "size": f.size, "url": store.presign_get(f.key, f.version_id, seconds=URL_SECONDS)}
        for d in chosen
        for f in d.files
    ]
    return {"set": name, "digests": {d.name: d.digest for d in chosen}, "files": files}


def _refuse_disposed(meta: MetaStore, store: ObjectStore, version: Version, files: Iterable[FileRef]) -> None:
    """Say of files that are gone by a disposal when and by whom, instead of giving URLs that lead nowhere.

    Raises:
        NotFoundError: one of them was disposed.
        IntegrityError: a list of what was disposed is another one.
    """
    if not version.disposal:
        return
    moves = meta.query(version_key(version.model, version.number).partition, prefix="TRANSITION#")
    disposals = read_disposals(store, version.reference, moves)
    gone = [f.path for f in files if disposals.covers(f)]
    if gone:
        raise NotFoundError(f"{gone[0]} of {version.reference} was {disposals.told}", details={"disposed": gone[:100]})


def list_files(meta: MetaStore, store: ObjectStore, model: str, number: int) -> dict[str, Any]:
    """Return the frozen files of a version, each with its digest and a URL that reads exactly the recorded bytes.

    Whoever downloads them checks each against the artifact manifest, which is among them, and that against the version digest.

    Returns:
        `{"model", "version", "version_digest", "files": [{"path", "sha256", "size", "url"}]}`; paths as below `frozen/`.

    Raises:
        NotFoundError: no such version, nothing is frozen yet, or files were disposed.
    """
    version = load_version(meta, model, number)
    if version.artifact is None:
        raise NotFoundError(f"{version.reference} has no frozen files: it is in {version.stage} {version.status}")
    _refuse_disposed(meta, store, version, version.frozen)
    files = [
        {"path": f.path, "sha256": f.sha256, "size": f.size, "url": store.presign_get(f.key, f.version_id, seconds=URL_SECONDS)}
        for f in (version.artifact, *version.frozen)
    ]
    return {"model": model, "version": number, "version_digest": version.version_digest, "files": files}


def current_pointer(meta: MetaStore, model: str, environment: str) -> dict[str, Any]:
    """Return what is deployed in an environment.

    Raises:
        NotFoundError: nothing is.
    """
    return _shown_pointer(require_deployed(meta.get(pointer_key(model, environment)), model, environment))


def _sections(store: ObjectStore, version: Version) -> dict[str, Any]:
    if version.imported:
        claimed = read_import_document(store, version).request.claimed
        files = {f.path: f.sha256 for f in version.frozen if f.path.startswith("model/")}
        return {"claimed": claimed, "files": files, "settings": {"approval": dict(version.approval_policy)}}
    manifest = load_manifest(store, version).to_mapping()
    return {
        "metrics": dict(version.metrics),
        "hyperparameters": manifest["training"]["hyperparameters"],
        "data": {
            "source": {s["name"]: s["sha256"] for s in manifest["data"]["source"]},
            "digests": {d.name: d.digest for d in version.datasets if not d.name.startswith("source/")},
            "preparation": manifest["data"]["preparation"],
            "label": manifest["data"]["label"],
        },
        "code": {k: manifest["source"][k] for k in ("repository", "revision", "author", "sha256")},
        "dependencies": {
            "packages": dict(p.split("==", 1) for p in (version.environment.packages if version.environment else ())),
            **{k: manifest["environment"][k] for k in ("framework", "algorithm")},
        },
        "schema": {c["name"]: c["type"] for c in version.schema},
        "settings": {k: manifest[k] for k in ("processing", "validation", "gates", "approval", "deployment", "reproduction")},
        "model": manifest["model"],
    }


def _shown_model(row: Item) -> dict[str, Any]:
    shown = {k: v for k, v in row.items() if k not in (*_HIDDEN, "rev", "next", "kind", "token")}
    return {**shown, "versions": int(row.get("next") or 1) - 1}


def _shown_pointer(row: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "model",
        "environment",
        "number",
        "version_digest",
        "capture_rate",
        "at",
        "previous",
        "by",
        "vacant",
        "kind",
        "canary",
        "shadow",
    )
    return {k: row.get(k) for k in names}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in _HIDDEN}
