"""Operations that change versions and models: submissions, decisions, moves by hand."""

from __future__ import annotations

from attestry.api.components import PROMOTION, STATE
from attestry.api.operation import PAGE, Operation, Parameter, listed
from attestry.api.reads import VERSION
from attestry.api.schema import (
    DAY,
    ENVIRONMENT,
    MODEL,
    NUMBER,
    REASON,
    SHA256,
    asked,
    either,
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

_APPROVERS = ("validator", "approver")
_GUARDS = ("validator", "approver", "deployer", "admin")
_ATTEMPT = whole("The attempt that is to be followed by another one, so that a request that is sent twice is done once.", least=1)
WANTED = (
    *("PROCESSING", "TRAINING", "VALIDATION", "APPROVAL", "DEPLOYMENT"),
    *("CANDIDATE", "APPROVED", "SHADOW", "CANARY", "DEPLOYED", "ROLLBACK", "RETIRED", "REJECTED"),
    *("HELD", "RELEASED"),
)
_BY_REASON = asked({"reason": REASON})

STATE_FIELDS = {name: STATE["properties"][name] for name in ("model", "version", "stage", "status", "standing")}

SUBMISSIONS = (
    Operation(
        "uploads.create",
        "POST",
        "/v1/uploads",
        "Announce the files of a candidate, or data alone, and be given URLs that write exactly these.",
        told(
            {
                "submission": text("ID by which to ask what became of it."),
                "prefix": text(),
                "uploads": many(told({"name": text(), "key": text(), "url": text(), "headers": mapping("Headers of the PUT.", text())})),
            }
        ),
        roles=("scientist",),
        body=asked(
            {
                "files": many(
                    told(
                        {
                            "name": text("Path below the submission's folder.", least=1, most=1024),
                            "size": whole(most=5 * 1024**3),
                            "sha256": SHA256,
                        }
                    ),
                    least=1,
                    most=100,
                )
            }
        ),
        status=(201,),
    ),
    Operation(
        "submissions.read",
        "GET",
        "/v1/submissions/{submission}",
        "Tell what became of a submission of the caller's own.",
        told({"state": text("`PENDING` until the registry has looked at it."), "submission": text(), "errors": many(mapping())}),
        errors=(404,),
    ),
    Operation(
        "imports.create",
        "POST",
        "/v1/imports",
        "Announce the files of a version that was made elsewhere, and be given URLs that write exactly these.",
        told(
            {
                "submission": text("ID of the submission; also the idempotency key of the import."),
                "prefix": text(),
                "uploads": many(told({"name": text(), "key": text(), "url": text(), "headers": mapping("Headers of the PUT.", text())})),
            }
        ),
        roles=("scientist",),
        body=asked(
            {
                "files": many(
                    told({"name": text("Path of the file.", least=1, most=400), "size": whole(most=4 * 1024**3), "sha256": SHA256}),
                    least=1,
                    most=500,
                )
            },
            {"key": maybe(text("The same files under the same key are the same submission.", most=200))},
        ),
        status=(201,),
    ),
    Operation(
        "versions.import",
        "POST",
        "/v1/models/{model}/versions",
        "Make a version of files that were made elsewhere and that the caller uploaded; everything said of their run is a claim.",
        told({**STATE_FIELDS, "candidate": SHA256, "submitter": maybe(text("The person; null while unproven."))}),
        roles=("scientist",),
        body=asked(
            {"submission": text("The caller's own.", pattern="^[0-9a-f]{16,64}$")},
            {
                "source": maybe(text("Where the files come from, such as a URI.", most=2048)),
                "run": maybe(
                    asked(
                        {},
                        {
                            "id": maybe(text(most=250)),
                            "experiment": maybe(text(most=250)),
                            "params": maybe(mapping("Name to text.", text(most=8000))),
                            "metrics": maybe(mapping("Name to a number.", {"type": ["number", "string"]})),
                            "tags": maybe(mapping("Name to text.", text(most=8000))),
                        },
                    )
                ),
                "description": maybe(text(most=10_000)),
                "tags": maybe(mapping("Name to text.", text(most=8000))),
            },
        ),
        status=(202,),
        errors=(403, 409),
        note="The same submission again answers the same version. The files are frozen right afterwards: stage IMPORTED tells.",
    ),
    Operation(
        "versions.claim",
        "POST",
        f"{VERSION}/claim",
        "Make the caller's person the submitter of what was uploaded by hand under the caller's own prefix.",
        told({**STATE["properties"], "submitter": text()}),
        roles=("scientist",),
        body=asked({}),
        errors=(404, 409),
    ),
    Operation(
        "models.refresh",
        "POST",
        "/v1/models/{model}/refresh",
        "Have a new version made of a candidate that is registered already, with data of the caller's own or without.",
        ref("Made"),
        roles=("scientist", "deployer"),
        body=asked(
            {"reason": REASON},
            {
                "version": maybe(NUMBER),
                "data": maybe(
                    mapping("Name of a source to an uploaded file.", asked({"submission": text(), "name": text()})),
                ),
                "request": maybe(
                    text("Tells one request from another: what is sent twice is done once.", most=64, pattern="^[A-Za-z0-9_=-]*$")
                ),
            },
        ),
        status=(202,),
        errors=(404, 409),
    ),
    Operation(
        "versions.reproduce",
        "POST",
        f"{VERSION}/reproduction",
        "Have a version's recipe run again, to compare what comes out.",
        ref("Made"),
        roles=("scientist", "validator", "deployer", "auditor"),
        body=asked({"reason": REASON}, {"request": maybe(text("As of a refresh.", most=64, pattern="^[A-Za-z0-9_=-]*$"))}),
        status=(202,),
        errors=(404, 409),
    ),
)

DECISIONS = (
    Operation(
        "versions.decide",
        "POST",
        f"{VERSION}/decision",
        "Approve or reject a version that waits for it, or its promotion to an environment.",
        told(
            {
                **{name: STATE["properties"][name] for name in ("model", "version", "stage", "status", "standing")},
                "decision": one_of("approve", "reject"),
                "complete": flag("Whether the stage has ended; false while further approvals are needed."),
                "approvals": many(text(), "Persons who have approved."),
                "needed": whole("How many approvals the policy asks for."),
                "person": text("Who decided."),
                "packet_sha256": SHA256,
                "signed_by_person": flag(),
                "missing": text("What the policy asks for yet; empty where nothing."),
                "terms": mapping("Under what it may serve by its approvals."),
            },
            {"promotion": PROMOTION},
        ),
        roles=_APPROVERS,
        body=asked(
            {"decision": one_of("approve", "reject"), "reason": REASON},
            {
                "packet_sha256": maybe(text("Digest of the packet that was read; another is refused.", pattern="^([0-9a-f]{64})?$")),
                "signature": maybe(
                    text("The caller's own signature over it, as `ssh-keygen -Y sign` writes it.", pattern="^[\\x00-\\x7f]*$")
                ),
                "promotion": maybe(text("The environment, to decide on the promotion there; then there are no conditions.", most=63)),
                "conditions": maybe(
                    asked(
                        {},
                        {
                            "until": maybe(text("A day, UTC, or empty.")),
                            "max_predictions": maybe(whole(least=1)),
                            "segments": maybe(mapping("Feature to the values that it is approved for.", many({}))),
                        },
                    )
                ),
            },
        ),
        errors=(404, 409),
    ),
    Operation(
        "versions.validate",
        "POST",
        f"{VERSION}/validations",
        "Hand in a validation record, signed with the caller's own key.",
        told(
            {
                "model": MODEL,
                "version": NUMBER,
                "transition": whole("Number of the move that tells of it.", least=1),
                "record_sha256": SHA256,
                "facts": mapping("What the registry computed or counted of it."),
                "missing": many(text(), "What the manifest demands and does not stand yet."),
                "person": text("Who handed it in."),
            }
        ),
        roles=("validator",),
        body=asked(
            {
                "record": text("The record: canonical JSON (RFC 8785), see docs/formats.md.", least=2, most=262_144),
                "signature": text(
                    "The caller's own signature over its digest, as `ssh-keygen -Y sign` writes it.", pattern="^[\\x00-\\x7f]+$"
                ),
            },
            {},
        ),
        errors=(404, 409),
    ),
    Operation(
        "conflicts.declare",
        "POST",
        "/v1/models/{model}/conflicts",
        "Record that the caller, or for an admin somebody else, has a conflict of interest on a model, or has it no more.",
        ref("Conflict"),
        roles=("validator", "approver", "admin"),
        body=asked({"reason": REASON}, {"person": text("Whose; by default the caller's."), "withdraw": flag()}),
        errors=(404, 409),
    ),
    Operation(
        "conflicts.list",
        "GET",
        "/v1/models/{model}/conflicts",
        "List the conflicts of interest on a model, what was withdrawn included.",
        listed("conflicts", ref("Conflict")),
        query=PAGE,
    ),
)


def _act(id_: str, what: str, summary: str, roles: tuple[str, ...], **more: object) -> Operation:
    """Return an operation on a version that takes a reason."""
    given: dict[str, object] = {"answer": ref("Acted"), "body": _BY_REASON, **more}
    return Operation(id_, "POST", f"{VERSION}/{what}", summary, roles=roles, errors=(404, 409), **given)  # type: ignore[arg-type]


MOVES = (
    _act(
        "versions.deploy",
        "deployment",
        "Begin to put an approved version in place; its standing tells when it is.",
        ("deployer",),
        answer=ref("State"),
        body=asked({"reason": REASON}, {"strategy": maybe(text("By default that of the manifest.", least=1, most=63))}),
        status=(202,),
    ),
    _act(
        "versions.promote",
        "promotion",
        "Begin to put a version in place in the environment after the one where it stands deployed.",
        ("deployer",),
        answer=told(dict(STATE["properties"]), {"promotion": PROMOTION}),
        body=asked(
            {"reason": REASON, "to": ENVIRONMENT}, {"withdraw": flag("Take back a promotion that waits for its approval, or has it alone.")}
        ),
        status=(202,),
        note="Where the environment has an approval of its own, the first call asks for it and answers `promotion`; once it is given, the "
        "next one puts the version in place.",
    ),
    _act("versions.retry", "retry", "Start the next attempt of a failed version.", ("scientist", "deployer"), status=(202,)),
    _act("versions.hold", "hold", "Hold a version: it begins nothing until it is released.", _GUARDS),
    _act("versions.release", "release", "End the hold of a version.", _GUARDS),
    _act(
        "versions.redo",
        "redo",
        "Have PROCESSING or VALIDATION run again, and every stage behind it.",
        ("scientist", "validator", "admin"),
        body=asked(
            {"stage": one_of("PROCESSING", "TRAINING", "VALIDATION", "APPROVAL", "DEPLOYMENT"), "reason": REASON},
            {"attempt": maybe(_ATTEMPT)},
        ),
        status=(202,),
    ),
    _act(
        "versions.transition",
        "transition",
        "Have a version moved towards a stage or standing, by what may lead there.",
        ("scientist", "validator", "approver", "deployer", "admin"),
        body=asked({"to": one_of(*WANTED), "reason": REASON}, {"attempt": maybe(_ATTEMPT)}),
        status=(202,),
        note="What the transition leads to asks for the role of that act.",
    ),
    _act(
        "versions.kill",
        "kill",
        "Take a version out of use at once.",
        ("approver", "deployer", "admin"),
        answer=ref("Revoked"),
        body=asked({"reason": REASON}, {"drill": flag()}),
        note="With `drill` only a version that stands deployed elsewhere than in production, and the event says so.",
    ),
    _act(
        "versions.retire",
        "retirement",
        "Take a version out of use, now or from a day on.",
        ("deployer", "admin"),
        answer=ref("Revoked"),
        body=asked({"reason": REASON}, {"on": maybe(DAY), "even_if_deployed": flag()}),
    ),
    Operation(
        "models.rollback",
        "POST",
        "/v1/models/{model}/rollback",
        "Put the version that is kept for rollback, or another approved one, back in place.",
        told({**STATE["properties"], "previous": maybe(NUMBER), "environment": text()}),
        roles=("deployer",),
        body=asked({"reason": REASON}, {"environment": maybe(text(most=63)), "to": maybe(NUMBER)}),
        errors=(404, 409),
    ),
    Operation(
        "rollouts.change",
        "POST",
        "/v1/models/{model}/rollout",
        "Advance, halt or finish what is rolled out beside the deployed version.",
        told({**STATE["properties"], "environment": text()}),
        roles=("deployer",),
        body=asked(
            {"action": one_of("advance", "halt", "finish"), "reason": REASON},
            {
                "environment": maybe(ENVIRONMENT),
                "version": maybe(whole("The version that is meant; sent again, the request then changes nothing more.", least=1)),
                "step": maybe(whole("Of `advance`: the step that the canary is to leave, from 0; where it has left it, nothing changes.")),
            },
        ),
        errors=(404, 409),
    ),
    Operation(
        "models.capture",
        "POST",
        "/v1/models/{model}/capture",
        "Set the share of predictions whose payload is kept.",
        told({"model": MODEL, "environment": text(), "version": NUMBER, "rate": text(), "previous": text()}),
        roles=("deployer", "admin"),
        body=asked(
            {"rate": either([text(most=20), {"type": "number", "minimum": 0, "maximum": 1}], "0 to 1."), "reason": REASON},
            {"environment": maybe(text(most=63))},
        ),
        errors=(404, 409),
    ),
)

PREDICTIONS = (
    Operation(
        "predictions.make",
        "POST",
        "/v1/models/{model}/predictions",
        "Have the deployed version answer; the answer comes with its receipt.",
        told(
            {
                "prediction_id": text(),
                "model": MODEL,
                "version": NUMBER,
                "standing": one_of("DEPLOYED", "CANARY"),
                "output": many({}, "An element per instance."),
                "receipt": text("Compact JWS."),
                "request_salt": text("Hex, for checking the receipt's digest of the request."),
            }
        ),
        roles=("consumer",),
        body=asked({"instances": many(mapping("Feature to value."), least=1, most=1000)}),
        query=(
            Parameter("environment", ENVIRONMENT),
            Parameter("routing_key", text("Requests with the same key go to a canary or not alike.", most=128)),
        ),
        errors=(404, 409),
        note="503 with Retry-After while the version loads.",
    ),
    Operation(
        "scorings.make",
        "POST",
        "/v1/models/{model}/scorings",
        "Have the deployed version answer every row of a file; asked again, it goes on and tells where that stands.",
        told(
            {
                "scoring": text("Its ID."),
                "state": one_of("WAITING", "RUNNING", "DONE", "FAILED", description="WAITING for the input."),
                "model": MODEL,
                "environment": ENVIRONMENT,
                "version": maybe(NUMBER),
                "rows": maybe(whole("Known once the input is read.")),
                "error": maybe(text("Why it has failed.")),
                "upload": maybe(told({"url": text(), "headers": mapping("To be sent with the PUT.")}, description="Where the input goes.")),
                "output": maybe(told({"url": text(), "sha256": text(), "size": whole("Bytes.")})),
            },
            {
                "attestation": text("The DSSE envelope that signs the root over all rows, once it is done."),
                "event": text("The event `file.scored` in canonical JSON, once it is done."),
            },
        ),
        roles=("consumer",),
        body=asked(
            {
                "input": asked(
                    {
                        "sha256": text("Of the file, hex.", pattern="^[0-9a-f]{64}$"),
                        "size": whole("Bytes.", least=1, most=256 << 20),
                        "format": one_of("csv", "jsonl"),
                    }
                )
            },
            {
                "environment": ENVIRONMENT,
                "request": text("A name for the request, where the same file is to be scored anew.", pattern="^[A-Za-z0-9._-]{1,64}$"),
                "retry": flag("Try again what has failed; chunks that are done stay done."),
            },
        ),
        status=(200, 202),
        errors=(404, 409),
        note="An option of the deployment. 202 until it is done. Who asks, model, environment, input and request together are the scoring.",
    ),
)
