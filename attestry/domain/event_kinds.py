"""The kinds of events: what each tells, and the JSON Schema of what is told outside, which is made of that.

    KINDS["version.approved"].what
    schema()                 # manifests/event.schema.json, printed by `attestry api events`

`docs/formats.md` tells the same in prose. A kind that is not in the table is an event all the same: receivers pass over kinds and fields
that they do not know, and the schema lets them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_LIST: Schema = {"type": "array"}
_OBJECT: Schema = {"type": "object"}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TIME: Schema = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z$"}
_STATE: Schema = {
    "type": ["object", "null"],
    "properties": {"stage": _TEXT, "status": _TEXT, "standing": _TEXT},
    "required": ["stage", "standing", "status"],
}
_MOVE: Mapping[str, Schema] = {
    "from": _STATE,
    "to": _STATE,
    "reason": _TEXT,
    "evidence": _TEXT,
    "version_digest": _TEXT,
    "attestation": _SHA256,
}


@dataclass(frozen=True)
class Kind:
    """A kind of event.

    Attributes:
        what: what happened, in a sentence.
        subject: form of the subject.
        data: fields that `data` always has, with their schemas; of a move, those of every move besides.
        move: whether it is a move of a version.
    """

    what: str
    subject: str
    data: Mapping[str, Schema] = field(default_factory=dict)
    move: bool = False

    def data_schema(self) -> Schema:
        """Return the schema of `data`: open, since fields are added."""
        own = {"type": "object", "properties": dict(self.data), "required": sorted(self.data)}
        return {"$ref": "#/$defs/move", **own} if self.move else own


def _move(what: str, **data: Schema) -> Kind:
    return Kind(what, "MODEL@N", data, move=True)


_GRANT = {"role": _TEXT, "scope": _TEXT, "reason": _TEXT}
_SEAL = {"kid": _TEXT, "model": _TEXT, "number": _NUMBER, "count": _NUMBER, "last": _NUMBER}
_WEBHOOK = {
    "host": _TEXT,
    "url_sha256": _SHA256,
    "kinds": _LIST,
    "models": _LIST,
    "state": _TEXT,
    "secret_number": _NUMBER,
    "rotated": _TEXT,
    "reason": _TEXT,
}
_FINDING = {"what": _TEXT, "where": _TEXT, "model": _TEXT}
_CONFLICT = {"model": _TEXT, "person": _TEXT, "reason": _TEXT}
_PROMOTION = {"environment": _TEXT, "opened": _NUMBER}
_PLACED = {"environment": _TEXT, "capture_rate": _TEXT}

KINDS: Final[Mapping[str, Kind]] = {
    "candidate.registered": _move(
        "A version was begun from an uploaded manifest.", candidate=_TEXT, revision=_TEXT, folder=_TEXT, cause=_OBJECT
    ),
    "version.imported": _move("Files that were made elsewhere became a version."),
    "stage.started": _move("A stage began."),
    "stage.succeeded": _move("A stage succeeded."),
    "stage.failed": _move("A stage failed; its error and its log lie with the version."),
    "stage.retried": _move("Somebody asked for a failed stage to be run again."),
    "stage.reopened": _move("A version went back to the stage before one that is done again."),
    "approval.given": _move("A person approved; others still have to.", person=_TEXT, decision=_TEXT),
    "validation.recorded": _move("A validator handed in a record about a version, signed with their own key.", check=_TEXT, made=_TIME),
    "approval.lapsed": _move("The terms of an approval ended, and with them its effect."),
    "version.approved": _move("A version has the approvals that its policy asks for."),
    "version.rejected": _move("Gates or a person rejected a version."),
    "promotion.opened": _move(
        "Somebody asked for a promotion that people approve.", environment=_TEXT, origin=_TEXT, asked_by=_TEXT, packet_sha256=_SHA256
    ),
    "promotion.given": _move("A person approved a promotion; others still have to.", **_PROMOTION, person=_TEXT, decision=_TEXT),
    "promotion.approved": _move("A promotion has the approvals that its environment asks for.", **_PROMOTION),
    "promotion.rejected": _move("A person rejected a promotion; the version stays where it stands.", **_PROMOTION),
    "promotion.withdrawn": _move("A promotion was withdrawn before it was made.", **_PROMOTION),
    "promotion.lapsed": _move("The approval of a promotion ended, and with it the version's place there.", **_PROMOTION),
    "version.deployed": _move("A version stands deployed in an environment.", **_PLACED),
    "version.rolled_back": _move("The version before is back in place.", **_PLACED),
    "version.canaried": _move("A version answers a share of requests.", **_PLACED),
    "version.shadowed": _move("A version is asked beside the deployed one.", **_PLACED),
    "version.replaced": _move("A version left its place to another."),
    "version.released": _move("A version is kept ready no more."),
    "version.killed": _move("A version was taken out of use at once and for good."),
    "version.retired": _move("A version was retired."),
    "version.held": _move("A version was held: it begins nothing."),
    "version.resumed": _move("The hold on a version ended."),
    "version.reproduced": _move("A version's recipe was run again and compared."),
    "retirement.scheduled": _move("A day was set on which a version retires."),
    "rollout.advanced": _move("A canary answers a larger share.", environment=_TEXT, share=_NUMBER),
    "rollout.halted": _move("A rollout was halted.", environment=_TEXT),
    "rollout.ended": _move("A rollout ended.", environment=_TEXT),
    "legal_hold.placed": _move("A version and what it rests on must be kept."),
    "legal_hold.lifted": _move("That ended."),
    "disposal.requested": _move("Somebody asked that a version's objects be disposed of.", retained_until=_TEXT),
    "disposal.confirmed": _move("A second person confirmed it.", requested_by=_TEXT),
    "version.disposed": _move("Objects of a version are gone; their digests and their proof stay.", list=_TEXT),
    "disposal.ended": _move("All of them are gone that could be."),
    "submission.claimed": _move("A person said that an upload is theirs."),
    "model.created": Kind("A model was put into the catalogue.", "model/MODEL"),
    "model.changed": Kind("What the catalogue says of a model changed.", "model/MODEL"),
    "model.renamed": Kind("A model got another name.", "model/MODEL"),
    "model.deleted": Kind("A model was deleted.", "model/MODEL"),
    "tag.set": Kind("A tag was set.", "model/MODEL or model/MODEL/version/N"),
    "tag.deleted": Kind("A tag was deleted.", "model/MODEL or model/MODEL/version/N"),
    "alias.set": Kind("An alias leads to a version.", "model/MODEL/aliases"),
    "alias.deleted": Kind("An alias was deleted.", "model/MODEL/aliases"),
    "version.labelled": Kind("What people say of a version changed.", "model/MODEL/version/N"),
    "version.annotated": Kind("Somebody remarked on a version.", "model/MODEL/version/N/annotations"),
    "version.deleted": Kind("A version of an open model was deleted.", "model/MODEL/version/N"),
    "key.delegated": Kind(
        "A serving process may sign predictions of a version for an hour at most.",
        "key/KID",
        {"kid": _TEXT, "version": _TEXT, "expires": _NUMBER},
    ),
    "key.sealed": Kind("A batch of receipts was sealed.", "key/KID", {**_SEAL, "first": _NUMBER, "root": _SHA256}),
    "key.closed": Kind("A signing key is done; its count and its gaps are final.", "key/KID", {**_SEAL, "gaps": _LIST}),
    "file.scored": Kind(
        "A version answered every row of a file; one root is signed for all rows.",
        "scoring/ID",
        {
            "model": _TEXT,
            "number": _NUMBER,
            "version_digest": _SHA256,
            "environment": _TEXT,
            "input_sha256": _SHA256,
            "output_sha256": _SHA256,
            "rows": _NUMBER,
            "root": _SHA256,
            "attestation": _SHA256,
        },
    ),
    "capture.set": Kind("How much of the requests is kept was changed.", "MODEL/ENVIRONMENT", {"rate": _TEXT, "reason": _TEXT}),
    "policy.published": Kind("An edition of a policy is in force.", "policy/NAME", {"number": _NUMBER, "sha256": _SHA256, "reason": _TEXT}),
    "conflict.declared": Kind("Somebody may not decide on a model.", "conflict/MODEL/PERSON", _CONFLICT),
    "conflict.withdrawn": Kind("That ended.", "conflict/MODEL/PERSON", _CONFLICT),
    "person.changed": Kind("A person, their logins or their SSH keys changed.", "person/ID"),
    "grant.given": Kind("A role counts somewhere for somebody.", "grant/SUBJECT", {**_GRANT, "until": _TEXT}),
    "grant.withdrawn": Kind("That ended.", "grant/SUBJECT", _GRANT),
    "model.placed": Kind("An admin said where a model lies.", "placed/MODEL", {"tags": _OBJECT, "reason": _TEXT}),
    "access.published": Kind("An edition of an access policy is in force.", "access", {"name": _TEXT, "number": _NUMBER, "sha256": _TEXT}),
    "webhook.added": Kind("A webhook was added.", "webhook/NAME", _WEBHOOK),
    "webhook.changed": Kind("A webhook got another secret, or was disabled.", "webhook/NAME", _WEBHOOK),
    "webhook.removed": Kind("A webhook was removed.", "webhook/NAME", _WEBHOOK),
    "run.started": Kind("Somebody told of a development run that they began.", "run/RUN", {"experiment": _TEXT, "sha256": _SHA256}),
    "run.ended": Kind(
        "A development run ended, as its owner says; all that was logged has a digest.",
        "run/RUN",
        {
            "experiment": _TEXT,
            "state": _TEXT,
            "points": _NUMBER,
            "batches": _NUMBER,
            "metrics": _TEXT,
            "sha256": _SHA256,
        },
    ),
    "root.published": Kind(
        "The root of trust was published.", "root", {"trusted_root_sha256": _SHA256, "versions": _OBJECT, "demo": _FLAG}
    ),
    "audit.batch": Kind("Audited acts of some minutes were taken up.", "audit", {"object": _TEXT, "sha256": _SHA256, "count": _NUMBER}),
    "finding.opened": Kind("Reconciliation found something that was changed by hand.", "finding/ID", _FINDING),
    "finding.closed": Kind("What was found is there no more.", "finding/ID", _FINDING),
}

_PRINCIPAL: Schema = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("subject", "user_id", "issuer", "method", "address", "login"), _TEXT),
        "roles": {"type": "array", "items": _TEXT},
        "person": {"type": ["string", "null"]},
    },
    "required": ["address", "issuer", "login", "method", "person", "roles", "subject", "user_id"],
}


def schema() -> Schema:
    """Return the JSON Schema (2020-12) of what is told: the detail on the bus, and `data` in a webhook's body."""
    event = {
        "type": "object",
        "properties": {
            "format": {"const": 1},
            "id": _SHA256,
            "kind": {"type": "string", "pattern": "^[a-z_]+\\.[a-z_]+$"},
            "subject": _TEXT,
            "sequence": _NUMBER,
            "at": _TIME,
            "principal": _PRINCIPAL,
            "data": _OBJECT,
        },
        "required": ["at", "data", "format", "id", "kind", "principal", "sequence", "subject"],
        "additionalProperties": False,
        "allOf": [
            {"if": {"properties": {"kind": {"const": name}}}, "then": {"properties": {"data": {"$ref": f"#/$defs/{name}"}}}}
            for name in KINDS
        ],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of Attestry as it is told outside",
        "type": "object",
        "properties": {"id": _SHA256, "index": {"type": "integer", "minimum": 0}, "logged": _TIME, "event": event},
        "required": ["event", "id", "index", "logged"],
        "additionalProperties": False,
        "$defs": {
            "move": {
                "description": "What the data of every move of a version has.",
                "type": "object",
                "properties": dict(_MOVE),
                "required": sorted(_MOVE),
            },
            **{
                name: {"title": name, "description": f"{kind.what} Subject: `{kind.subject}`.", **kind.data_schema()}
                for name, kind in KINDS.items()
            },
        },
    }


def schema_text() -> str:
    """Return the schema as the text that is kept in manifests/event.schema.json."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def kinds_table() -> str:
    """Return the kinds as the Markdown table that is kept in docs/events.md."""
    rows = [f"| `{name}` | `{kind.subject}` | {kind.what} |" for name, kind in KINDS.items()]
    return "\n".join(["| kind | subject | what happened |", "|---|---|---|", *rows])
