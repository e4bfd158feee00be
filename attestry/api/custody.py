"""Operations on what versions leave: legal holds and disposals."""

from __future__ import annotations

from attestry.api.operation import Operation
from attestry.api.reads import VERSION
from attestry.api.schema import MODEL, NUMBER, REASON, asked, flag, mapping, text, told

_ATTENDED = told(
    {
        "model": MODEL,
        "version": NUMBER,
        "standing": text(),
        "legal_hold": mapping("`by`, `reason` and `at` while one stands; else empty.", {}),
        "disposal": mapping("How far a disposal is: `state` and who asked, confirmed and when; else empty.", {}),
        "changed": flag("Whether this request changed anything."),
        "complete": flag("Whether nothing is left to do for now; else the registry goes on by itself."),
    }
)

CUSTODY = (
    Operation(
        "versions.preserve",
        "POST",
        f"{VERSION}/legal-hold",
        "Have nothing of a version disposed until the hold is lifted, or lift it.",
        _ATTENDED,
        roles=("validator", "approver", "auditor", "admin"),
        body=asked({"reason": REASON}, {"lift": flag()}),
        errors=(404, 409),
        note="To lift a hold takes the role admin, and a person who did not submit the version.",
    ),
    Operation(
        "versions.dispose",
        "POST",
        f"{VERSION}/disposal",
        "Ask for the disposal of what a retired or killed version has left, or confirm it.",
        _ATTENDED,
        roles=("approver", "admin"),
        body=asked({"reason": REASON}, {"confirm": flag()}),
        status=(202,),
        errors=(404, 409),
        note="An admin asks; an approver who is another person and did not submit the version confirms.",
    ),
)
