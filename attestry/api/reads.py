"""Operations that read models, versions, and what is known about them."""

from __future__ import annotations

from attestry.api.access import STANDING
from attestry.api.components import MODEL_ROW
from attestry.api.operation import ALL, PAGE, Operation, Parameter, listed
from attestry.api.schema import (
    ENVIRONMENT,
    MODEL,
    NUMBER,
    SHA256,
    TIME,
    URL,
    many,
    mapping,
    maybe,
    one_of,
    ref,
    text,
    told,
    whole,
)

VERSION = "/v1/models/{model}/versions/{number}"

ME = {"allOf": [ref("Principal"), told({"access": told(STANDING)})]}

MODELS = (
    Operation("me.read", "GET", "/v1/me", "Tell who the caller is to the registry, and where which role counts for them.", ME, roles=ALL),
    Operation("models.list", "GET", "/v1/models", "List all models, by name.", listed("models", ref("ModelRow")), query=PAGE, roles=ALL),
    Operation(
        "models.read",
        "GET",
        "/v1/models/{model}",
        "Show a model, what is deployed where, and its open findings.",
        told(
            {"model": MODEL, "versions": whole(), "deployed": many(ref("Deployment")), "findings": many(ref("Finding"))},
            {name: schema for name, schema in MODEL_ROW["properties"].items() if name not in MODEL_ROW["required"]},
        ),
        roles=ALL,
        errors=(404,),
    ),
    Operation(
        "rollouts.read",
        "GET",
        "/v1/models/{model}/rollout",
        "Show what stands beside the deployed version, and what was seen of it.",
        told(
            {
                "model": MODEL,
                "environment": text(),
                "deployed": maybe(whole("Number of the deployed version; null while the place is vacant.")),
                "canary": mapping("Empty where there is none."),
                "shadow": mapping("Empty where there is none."),
            }
        ),
        query=(Parameter("environment", ENVIRONMENT),),
        errors=(404,),
    ),
    Operation(
        "refreshes.read",
        "GET",
        "/v1/models/{model}/refreshes",
        "Show the last refresh of a model, when the next is due, which data wait, and what was skipped and why.",
        told(
            {
                "model": MODEL,
                "last": mapping(),
                "in_force": maybe(whole("The version that a refresh starts from; null while there is none.")),
                "schedule": text(),
                "due": text(),
                "waiting": many(told({"source": text(), "key": text(), "came": text()})),
                "skipped": many(told({"kind": text(), "reason": text(), "at": TIME, "facts": mapping()})),
            }
        ),
        errors=(404,),
    ),
)

VERSIONS = (
    Operation(
        "versions.list",
        "GET",
        "/v1/models/{model}/versions",
        "List the versions of a model, by number.",
        listed("versions", ref("VersionRow")),
        query=PAGE,
        errors=(404,),
    ),
    Operation("versions.read", "GET", VERSION, "Show all that is recorded of a version.", ref("Version"), errors=(404, 409)),
    Operation(
        "versions.packet",
        "GET",
        f"{VERSION}/packet",
        "Show the packet that a decision on a version rests on, as exactly the text that was digested.",
        told(
            {
                "model": MODEL,
                "version": NUMBER,
                "sha256": SHA256,
                "key": text(),
                "transition": whole("The transition that opened the approval, or the promotion.", least=1),
                "content": text("The packet's text."),
            },
            {"version_id": text(), "page": told({"sha256": SHA256, "url": URL}), "promotion": text("The environment, of a promotion.")},
        ),
        query=(Parameter("promotion", text("The environment, for the packet of the promotion there.", most=63)),),
        errors=(404, 409),
        note="Leaves an audited act.",
    ),
    Operation(
        "versions.log",
        "GET",
        f"{VERSION}/logs",
        "Show the log of the latest run of a stage.",
        told({"stage": text(), "attempt": whole(least=1), "sha256": SHA256, "size": whole(), "text": text()}),
        query=(Parameter("stage", text("Name of a stage.", least=1), required=True),),
        errors=(404,),
    ),
    Operation(
        "versions.data",
        "GET",
        f"{VERSION}/data",
        "List the files of a data set of a version, each with a URL that reads it.",
        told(
            {
                "set": text(),
                "digests": mapping("Data set to its digest.", text()),
                "files": many(told({"path": text(), "sha256": SHA256, "size": whole(), "url": URL})),
            }
        ),
        query=(Parameter("set", one_of("source", "training", "holdout", "holdout-labels"), required=True),),
        errors=(404,),
        note="The hold-out's labels are shown to approvers, auditors and admins alone. Leaves an audited act.",
    ),
    Operation(
        "versions.files",
        "GET",
        f"{VERSION}/files",
        "List the frozen files of a version, each with a URL that reads exactly the recorded bytes.",
        told(
            {
                "model": MODEL,
                "version": NUMBER,
                "version_digest": SHA256,
                "files": many(told({"path": text(), "sha256": SHA256, "size": whole(), "url": URL})),
            }
        ),
        errors=(404,),
        note="`artifact-manifest.json`, whose SHA-256 is the version digest, is among them. Leaves an audited act.",
    ),
    Operation(
        "versions.diff",
        "GET",
        "/v1/models/{model}/diff",
        "Show what differs between two versions of a model, by section and field.",
        told(
            {
                "from": NUMBER,
                "to": NUMBER,
                "differences": many(told({"section": text(), "field": text(), "before": {}, "after": {}, "change": {}})),
            }
        ),
        query=(Parameter("from", NUMBER, required=True), Parameter("to", NUMBER, required=True)),
        errors=(404, 409),
    ),
    Operation(
        "findings.list",
        "GET",
        "/v1/findings",
        "List what reconciliation found and nobody has mended, the oldest first.",
        listed("findings", ref("Finding")),
        query=(Parameter("model", text("Only those of this model; a page may then hold fewer than its limit.")), *PAGE),
    ),
    Operation(
        "lineage.walk",
        "GET",
        "/v1/lineage",
        "Walk the graph of what was made of what, from any node.",
        told(
            {
                "start": text(),
                "nodes": many(told({"id": text(), "kind": text(), "name": text(), "facts": mapping()})),
                "edges": many(told({"from": text(), "to": text(), "role": text()})),
                "truncated": {"type": "boolean", "description": "Whether there is more than was walked."},
            }
        ),
        query=(
            Parameter("node", text("A version, prediction or key ID, a commit, a digest, or `kind:name`.", least=1), required=True),
            Parameter("direction", one_of("up", "down", "both")),
            Parameter("depth", whole(least=1, most=20)),
        ),
        errors=(404,),
    ),
)
