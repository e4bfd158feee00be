"""Operations that hand out evidence: traces, bundles, the ledger, audited acts, the root of trust."""

from __future__ import annotations

from attestry.api.components import AUDIT_BATCH
from attestry.api.operation import ALL, PAGE, Operation, Parameter, listed
from attestry.api.reads import VERSION
from attestry.api.schema import NUMBER, URL, asked, flag, many, mapping, maybe, one_of, ref, text, told, whole

EVIDENCE = (
    Operation(
        "predictions.trace",
        "GET",
        "/v1/predictions/{id}/trace",
        "Trace a prediction to the version, code, data, settings and people behind it.",
        ref("Trace"),
        roles=ALL,
        query=(Parameter("deep", one_of("true", "false", description="Read and hash every file, and prove it by the ledger.")),),
        errors=(404, 409),
        note="Leaves an audited act.",
    ),
    Operation(
        "predictions.bundle",
        "GET",
        "/v1/predictions/{id}/bundle",
        "Make the bundle from which anybody verifies a prediction offline.",
        ref("Bundle"),
        query=(Parameter("payload", one_of("true", "false", description="Put request and output in, for roles that may see them.")),),
        errors=(404, 409),
        note="Leaves an audited act.",
    ),
    Operation(
        "versions.bundle",
        "GET",
        f"{VERSION}/bundle",
        "Make the bundle from which anybody verifies a version offline.",
        ref("Bundle"),
        errors=(404, 409),
        note="Leaves an audited act.",
    ),
    Operation(
        "compliance.review",
        "GET",
        "/v1/compliance",
        "Review the lineage and the evidence of what is deployed, model by model.",
        told(
            {
                "deployed": many(
                    told(
                        {
                            "model": text(),
                            "version": NUMBER,
                            "environment": text(),
                            "version_digest": text(),
                            "complete": flag(),
                            "failed": many(ref("Step")),
                        }
                    )
                ),
                "incomplete": whole("How many of them lack something."),
                "next": maybe(text("The model to go on behind; null after the last one.")),
            }
        ),
        query=(Parameter("after", text("Go on behind this model.")),),
    ),
    Operation(
        "ledger.read",
        "GET",
        "/v1/ledger/file",
        "Read a published file of the ledger.",
        told({"path": text(), "size": whole(), "content": text("The bytes in base64.")}),
        roles=ALL,
        query=(Parameter("path", text("`checkpoint`, `checkpoints/SIZE` or a path of C2SP tlog-tiles.", least=1), required=True),),
        errors=(404,),
    ),
    Operation(
        "audit.list",
        "GET",
        "/v1/ledger/audit",
        "List the batches of audited acts, the latest first.",
        listed("batches", ref("AuditBatch")),
        roles=ALL,
        query=(Parameter("since", text("Only those that were logged from this time on, RFC 3339.")), *PAGE),
        note="For auditors and admins; a refusal of others is an audited act itself.",
    ),
    Operation(
        "audit.read",
        "GET",
        "/v1/ledger/audit/{number}",
        "Show where a batch of audited acts can be read, and the leaf of the event that names it.",
        told({**AUDIT_BATCH["properties"], "leaf": text("The leaf's text."), "size": whole(), "url": URL}),
        roles=ALL,
        errors=(404, 409),
        note="For auditors and admins. Leaves an audited act.",
    ),
    Operation("root.read", "GET", "/v1/root", "Show the root of trust.", ref("Root"), roles=ALL, errors=(404, 409)),
    Operation(
        "root.keys",
        "GET",
        "/v1/root/keys",
        "Show the public keys that the deployment signs with.",
        told(
            {
                "registry": text(),
                "keys": many(
                    told(
                        {"use": text(), "name": text(), "key_id": text(), "outside": flag(), "der": text("Base64."), "fingerprint": text()}
                    )
                ),
            }
        ),
        roles=("admin",),
    ),
    Operation(
        "root.publish",
        "POST",
        "/v1/root",
        "Publish metadata of the root of trust that the key holders signed.",
        ref("Root"),
        roles=("admin",),
        body=asked({"files": mapping("File name to text.", text())}),
        status=(200, 201),
        errors=(409,),
        note="201 where it changed something.",
    ),
)
