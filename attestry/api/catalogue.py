"""Operations on the catalogue: what people say about models and versions, and what is found by it."""

from __future__ import annotations

from attestry.api.operation import Operation, Parameter
from attestry.api.reads import VERSION
from attestry.api.schema import MODEL, NUMBER, TIME, Schema, asked, flag, many, mapping, maybe, one_of, text, told, whole

_WRITERS = ("scientist", "admin")
_NAMERS = ("scientist", "approver", "deployer", "admin")
_TALKERS = ("scientist", "validator", "approver", "deployer", "auditor", "admin")
_TAGS = mapping("Key to value.", text(most=5000))
_REV = whole("Do it only at this revision.")
_NAME = text("As people see it.", least=1, most=250)
_DESCRIBED = told(
    {
        "name": _NAME,
        "model": MODEL,
        "description": text(most=5000),
        "tags": _TAGS,
        "mode": one_of("open", "governed"),
        "rev": whole("Counts the changes; 0 of a model that was never described."),
    }
)
_LABELS = told({"model": MODEL, "number": NUMBER, "description": text(), "tags": _TAGS, "rev": whole()})
_ALIAS = told({"alias": text(), "model": MODEL, "number": NUMBER, "rev": whole(), "set": TIME, "by": text()})
_REMARK = told(
    {
        "model": MODEL,
        "number": NUMBER,
        "sequence": whole(least=1),
        "transition": whole("0 for the version as a whole."),
        "text": text(),
        "by": text(),
        "at": TIME,
    }
)
_CONDITION: Schema = {
    "type": "object",
    "description": "One of: `field` and `is`; `tag` and `is` or `is_not`; `label` and `is`; `text`; `name_like`; `metric`, `from`, `to`.",
    "properties": {
        **{name: text() for name in ("field", "tag", "label", "is", "is_not", "text", "name_like", "metric")},
        "ignore_case": flag(),
        "from": {"type": "number"},
        "to": {"type": "number"},
    },
    "additionalProperties": False,
}
_ORDER = asked({"by": one_of("name", "created", "updated", "metric")}, {"descending": flag(), "metric": text(most=200)})
_SEARCH = asked(
    {},
    {
        "filter": many(_CONDITION, "All must hold.", most=10),
        "order_by": _ORDER,
        "max_results": whole(least=1, most=200),
        "cursor": text("Of the page before."),
        "walk": flag("Go through everything, a piece a page, where no condition has an index."),
    },
)
_FOUND = {"cursor": maybe(text("For the next page; a page may be short of results and still have one."))}

SUBJECTS = (
    Operation(
        "models.create",
        "POST",
        "/v1/models",
        "Create a model without versions.",
        _DESCRIBED,
        roles=_WRITERS,
        body=asked(
            {"name": _NAME},
            {
                "description": text(most=5000),
                "tags": _TAGS,
                "mode": one_of("open", "governed"),
            },
        ),
        status=(201,),
        errors=(409,),
    ),
    Operation(
        "models.change",
        "PATCH",
        "/v1/models/{model}",
        "Change the description of a model or, of an open one, its name.",
        _DESCRIBED,
        roles=_WRITERS,
        body=asked({}, {"description": text(most=5000), "name": _NAME, "if_rev": _REV}),
        errors=(404, 409),
    ),
    Operation(
        "models.delete",
        "DELETE",
        "/v1/models/{model}",
        "Delete an open model from the catalogue; files, moves and events stay.",
        told({"model": MODEL, "deleted": flag()}),
        roles=_WRITERS,
        errors=(404, 409),
    ),
    Operation(
        "versions.label",
        "PATCH",
        VERSION,
        "Change the description, or all tags, of a version.",
        _LABELS,
        roles=_WRITERS,
        body=asked({}, {"description": text(most=5000), "tags": _TAGS, "if_rev": _REV}),
        errors=(404, 409),
    ),
    Operation(
        "versions.delete",
        "DELETE",
        VERSION,
        "Delete a version of an open model from the catalogue; files, moves and events stay.",
        told({"model": MODEL, "number": NUMBER, "deleted": flag()}),
        roles=_WRITERS,
        errors=(404, 409),
    ),
    Operation("labels.read", "GET", f"{VERSION}/labels", "Show description and tags of a version.", _LABELS, errors=(404,)),
)


def _tag(prefix: str, path: str, what: str) -> tuple[Operation, Operation]:
    return (
        Operation(
            f"{prefix}.tag",
            "PUT",
            f"{path}/tags/{{key}}",
            f"Set a tag of a {what}.",
            told({"key": text(), "value": text()}),
            roles=_WRITERS,
            body=asked({"value": text(most=5000)}, {"if_rev": _REV}),
            errors=(404, 409),
        ),
        Operation(
            f"{prefix}.untag",
            "DELETE",
            f"{path}/tags/{{key}}",
            f"Take a tag away from a {what}.",
            told({"key": text(), "deleted": flag()}),
            roles=_WRITERS,
            errors=(404, 409),
        ),
    )


NAMES = (
    *_tag("models", "/v1/models/{model}", "model"),
    *_tag("versions", VERSION, "version"),
    Operation(
        "aliases.list", "GET", "/v1/models/{model}/aliases", "List the aliases of a model.", told({"aliases": many(_ALIAS)}), errors=(404,)
    ),
    Operation(
        "aliases.set",
        "PUT",
        "/v1/models/{model}/aliases/{alias}",
        "Let an alias name a version; it deploys nothing.",
        _ALIAS,
        roles=_NAMERS,
        body=asked({"number": NUMBER}, {"if_rev": _REV}),
        errors=(404, 409),
    ),
    Operation(
        "aliases.delete",
        "DELETE",
        "/v1/models/{model}/aliases/{alias}",
        "Take an alias away.",
        told({"alias": text(), "deleted": flag()}),
        roles=_NAMERS,
        errors=(404, 409),
    ),
)

REMARKS = (
    Operation(
        "annotations.list",
        "GET",
        f"{VERSION}/annotations",
        "List the remarks on a version, the oldest first.",
        told({"annotations": many(_REMARK)}),
        query=(Parameter("after", whole("Only remarks behind this sequence.", least=1)),),
        errors=(404,),
    ),
    Operation(
        "annotations.add",
        "POST",
        f"{VERSION}/annotations",
        "Remark on a version or on one of its moves; a remark is never changed.",
        _REMARK,
        roles=_TALKERS,
        body=asked({"text": text(least=1, most=2000)}, {"transition": whole("Number of the move.", most=999_999)}),
        status=(201,),
        errors=(404, 409),
    ),
)

SEARCHES = (
    Operation(
        "models.search",
        "POST",
        "/v1/search/models",
        "Find models.",
        told({"results": many(told({"name": _NAME, "model": MODEL, "aliases": mapping("Alias to version.", NUMBER)})), **_FOUND}),
        body=_SEARCH,
        note="What would need a scan is refused with the rule `needs_scan`.",
    ),
    Operation(
        "versions.search",
        "POST",
        "/v1/search/versions",
        "Find versions.",
        told({"results": many(told({"model": MODEL, "number": NUMBER, "aliases": many(text())})), **_FOUND}),
        body=_SEARCH,
        note="What would need a scan is refused with the rule `needs_scan`.",
    ),
)

CATALOGUE = (*SUBJECTS, *NAMES, *REMARKS, *SEARCHES)
