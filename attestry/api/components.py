"""The named schemas that several operations share, and those of large answers."""

from __future__ import annotations

from collections.abc import Mapping

from attestry.api.schema import (
    MODEL,
    NUMBER,
    SHA256,
    TIME,
    URL,
    Schema,
    flag,
    many,
    mapping,
    maybe,
    one_of,
    ref,
    text,
    told,
    whole,
)

STAGE = one_of("REGISTERED", "IMPORTED", "PROCESSING", "TRAINING", "VALIDATION", "APPROVAL", "DEPLOYMENT")
STATUS = one_of("RUNNING", "SUCCEEDED", "FAILED", "REJECTED")
STANDING = one_of("CANDIDATE", "APPROVED", "SHADOW", "CANARY", "DEPLOYED", "ROLLBACK", "RETIRED", "REJECTED")
_STATE: Mapping[str, Schema] = {
    "model": MODEL,
    "version": NUMBER,
    "stage": STAGE,
    "status": STATUS,
    "standing": STANDING,
}

STATE = told({**_STATE, "attempt": whole("Counts the executions of the pipeline for this version.")})
PROMOTION = told(
    {
        "state": one_of("OPEN", "APPROVED", "REJECTED", "WITHDRAWN", "LAPSED"),
        "origin": text("Where the version stood when it was asked for."),
        "opened": whole("The transition that opened it.", least=1),
        "asked_by": text("The person who asked for it, and never decides on it."),
        "since": text("When the version had been put in place there."),
        "approval": whole("The transition that had opened the version's own approval."),
        "packet": SHA256,
        "policy_sha256": SHA256,
        "until": text("The moment at which its approval ends; empty for none."),
    },
    {"environment": text("Where to.")},
    description="The latest promotion of a version to an environment that has an approval of its own.",
)
ACTED = told({**STATE["properties"], "held": mapping("Who holds the version, since when and why; empty else."), "changed": flag()})
REVOKED = told(
    {
        **STATE["properties"],
        "retirement": mapping("`kind`, `by`, `reason` and `at`; empty where it is due on a day to come.", text()),
        "retires_on": text("First day on which it may not be used any more; empty where none is set."),
        "vacated": many(text(), "Environments in which nothing stands deployed any more."),
        "rollback": mapping("Environment to the number of the version that is kept for rollback there.", maybe(whole())),
        "changed": flag("False where it was so already."),
    }
)

PROBLEM = told(
    {
        "type": text("URI of the kind of error: `urn:attestry:problem:<code>`."),
        "title": text("The kind of error in words."),
        "status": whole("The HTTP status.", least=400, most=599),
        "detail": text("What is wrong, for a person."),
        "code": text("Stable name of the kind of error."),
    },
    {
        "instance": text("URI of this occurrence; it ends in the ID under which the registry's log tells more."),
        "field": text("Dotted path of the field that breaks a rule; empty for the whole input."),
        "rule": text("Short name of the rule."),
        "line": maybe(whole("Line in the source text, counted from 1, where known.", least=1)),
        "details": mapping("Facts that belong to the code."),
        "problems": many(
            told({"field": text(), "rule": text(), "message": text(), "line": maybe(whole(least=1))}),
            "Everything that is wrong with the input.",
        ),
    },
    "An error of the registry, by RFC 9457.",
)
GATEWAY_REFUSAL = told({"message": text()}, description="What the gateway itself refuses: no rights, or too many requests at once.")

FILE = told({"path": text(), "key": text(), "version_id": text(), "size": whole(), "sha256": SHA256})
PRINCIPAL = told(
    {
        "subject": text("The ARN that was authenticated."),
        "user_id": text("The unique ID of the identity."),
        "issuer": text("Who vouches for it."),
        "method": text("How it was authenticated."),
        "address": text("Source IP address; empty where there is none."),
        "login": text("The login."),
        "roles": many(text(), "Roles of the registry that it acts in."),
        "person": maybe(text("Whom the login maps to; null for nobody.")),
    }
)
MODEL_ROW = told(
    {"model": MODEL, "versions": whole("How many versions it has.")},
    {
        "owner": text(),
        "team": text(),
        "purpose": text(),
        "risk_tier": text(),
        "labels": mapping("Name to text.", text()),
        "created": TIME,
    },
)
DEPLOYMENT = told(
    {
        "model": MODEL,
        "environment": text(),
        "number": maybe(whole("The version in place; null while the place is vacant.", least=1)),
        "version_digest": maybe(text()),
        "capture_rate": maybe(text("Share of predictions whose payload is kept, 0 to 1.")),
        "at": maybe(text()),
        "previous": maybe(whole("The version that is kept for rollback.")),
    },
    description="What stands in an environment.",
)
FINDING = told(
    {
        "id": text(),
        "what": text("Its kind."),
        "where": text("The row or object."),
        "expected": text(),
        "found": text(),
        "model": text("Empty for the registry itself."),
        "number": whole("Number of a version; 0 for the model or the registry as a whole."),
        "opened": TIME,
    },
    description="Something that reconciliation saw and that the registry did not do.",
)
VERSION_ROW = told(
    {
        "model": MODEL,
        "number": NUMBER,
        "stage": STAGE,
        "status": STATUS,
        "standing": STANDING,
        "created": TIME,
        "updated": TIME,
        "metrics": mapping("Metric to number as text.", text()),
        "version_digest": text("SHA-256 of the artifact manifest; empty before TRAINING, or an import, has ended."),
        "error": text("Why the latest stage failed or was rejected; else empty."),
        "submitter_person": maybe(text("The person behind the submitter; null while unproven.")),
        "retirement": maybe(mapping()),
        "retires_on": maybe(text()),
    },
    description="A version in a list.",
)
VERSION = told(
    {
        **{name: VERSION_ROW["properties"][name] for name in VERSION_ROW["required"] if name not in ("retirement", "retires_on")},
        "candidate": SHA256,
        "execution_id": text(),
        "folder": text("Prefix in the model store."),
        "submitter": ref("Principal"),
        "manifest": ref("File"),
        "source": maybe(ref("File")),
        "lock": maybe(ref("File")),
        "attempt": whole(least=1),
        "transition": whole("Number of the latest transition.", least=1),
        "rev": whole("Raised by each write; the ETag is made of it.", least=1),
        "datasets": many(mapping()),
        "frozen": many(ref("File")),
        "approved": flag(),
        "approval_policy": mapping("What the manifest asks for."),
        "manifest_content": maybe(mapping("The manifest; null of an imported version, which has `import`.")),
        "transitions": many(mapping(), "Every move, the first one first."),
        "stages": many(mapping(), "The record of every run of a stage."),
        "approvals": many(mapping(), "Decisions of people."),
        "reproductions": many(mapping()),
        "validations": mapping("The latest validation record of each kind, and of a trial of each metric."),
        "findings": many(ref("Finding")),
    },
    {
        "promotions": mapping("Environment to the latest promotion there that people decide on.", PROMOTION),
        "promotion_decisions": many(mapping(), "Decisions of people on promotions."),
    },
    description="All that is recorded of a version.",
)
PERSON = told(
    {
        "person": text(),
        "name": text(),
        "logins": many(text()),
        "added": TIME,
        "ssh_keys": many(told({"fingerprint": text(), "added": TIME, "withdrawn": maybe(TIME)})),
    }
)
EDITION = told(
    {
        "name": text(),
        "number": whole(least=1),
        "sha256": SHA256,
        "by": text(),
        "reason": text(),
        "at": TIME,
        "document": mapping("The policy, see docs/policies.md."),
    },
    description="An edition of a policy.",
)
CONFLICT = told({"model": MODEL, "person": text(), "active": flag(), "reason": text(), "by": text(), "at": TIME})
STEP = told({"step": text(), "outcome": one_of("passed", "failed", "missing"), "detail": text()})
BUNDLE = told(
    {
        "subject": text("What the bundle is of: `MODEL@N`, or the ID of a prediction."),
        "url": URL,
        "sha256": SHA256,
        "size": whole(),
        "payload": flag("Whether request and output are in it."),
        "pending": whole("How many of its events are not in the ledger yet."),
    }
)
AUDIT_BATCH = told(
    {"number": whole(least=1), "index": maybe(whole("Place of its event in the ledger; null where that is not there."))},
    {
        "logged": TIME,
        "from": text("The first minute that it has acts of."),
        "to": text("The last one."),
        "count": whole(),
        "object": text(),
        "sha256": SHA256,
    },
)
ROOT = told(
    {
        "registry": text("Identity of the ledger."),
        "demo": flag("Whether it is a demonstration's, whose root keys lie beside it."),
        "trusted_root_sha256": SHA256,
        "first_root_sha256": SHA256,
        "versions": mapping("Role of TUF to the version of its metadata.", whole()),
        "expires": mapping("Role of TUF to when its metadata ends.", text()),
        "files": mapping("File name to text.", text()),
    },
    description="The root of trust: all metadata, verified from the first root on.",
)
TRACE = told(
    {
        "format": whole(least=1),
        "verdict": one_of("PROVEN", "SIGNED-UNANCHORED", "INCOMPLETE", "BROKEN"),
        "deep": flag(),
        "steps": many(ref("Step")),
        "prediction": mapping(),
        "version": mapping(),
        "runs": many(mapping()),
        "validation": mapping(),
        "approvals": many(mapping()),
        "transitions": many(mapping()),
        "reproductions": many(mapping()),
        "validations": many(mapping()),
        "people": mapping(),
    },
    {"model": mapping(), "code": mapping(), "environment": mapping(), "data": mapping(), "settings": mapping(), "proof": mapping()},
    "A trace; every field is graded `verified`, `attested` or `claimed`.",
)
MADE = told(
    {"state": text(), "model": MODEL, "version": maybe(NUMBER), "reason": text()}, description="What became of the wish for a new version."
)

COMPONENTS: Mapping[str, Schema] = {
    "Problem": PROBLEM,
    "GatewayRefusal": GATEWAY_REFUSAL,
    "State": STATE,
    "Acted": ACTED,
    "Revoked": REVOKED,
    "File": FILE,
    "Principal": PRINCIPAL,
    "ModelRow": MODEL_ROW,
    "Deployment": DEPLOYMENT,
    "Finding": FINDING,
    "VersionRow": VERSION_ROW,
    "Version": VERSION,
    "Person": PERSON,
    "Edition": EDITION,
    "Conflict": CONFLICT,
    "Step": STEP,
    "Bundle": BUNDLE,
    "AuditBatch": AUDIT_BATCH,
    "Root": ROOT,
    "Trace": TRACE,
    "Made": MADE,
}
