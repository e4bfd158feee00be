"""Operations on webhooks: who is told what stands in the ledger."""

from __future__ import annotations

from attestry.api.operation import Operation, Parameter
from attestry.api.schema import REASON, Schema, asked, many, maybe, one_of, text, told, whole

_NAME = text("The webhook's name, which is also its ID.", least=1, most=63, pattern="^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
_KINDS = many(text("`version.*`, `alias.set`, or `*`.", least=1, most=81), "Patterns of kinds of events.", least=1, most=20)
_MODELS = many(text("`credit-risk`, `credit-*`, or `*`.", least=1, most=64), "Patterns of models.", least=1, most=20)
_SHOWN: dict[str, Schema] = {
    "webhook": _NAME,
    "url": text("Where to."),
    "kinds": many(text()),
    "models": many(text()),
    "state": one_of("ACTIVE", "DISABLED", "REMOVED", description="DISABLED where the receiver has answered 410."),
    "secret_number": whole("Counts the secrets that the name has had.", least=1),
    "rotated": text("When the secret was replaced; for a day after it, the one before signs as well. Empty where it never was."),
    "reason": text("Why it was changed last."),
    "by": text("Who did."),
    "last": maybe(told({"at": text(), "id": text(), "outcome": text(), "attempt": whole(least=1)}, description="The last try.")),
}
_WEBHOOK = told(_SHOWN)
_WITH_SECRET = told({**_SHOWN, "secret": text("`whsec_` and base64. It is shown here and never again.")})

WEBHOOKS = (
    Operation(
        "webhooks.list",
        "GET",
        "/v1/webhooks",
        "List the webhooks, by name, each with what became of its last delivery.",
        told({"webhooks": many(_WEBHOOK)}),
        roles=("auditor", "admin"),
    ),
    Operation(
        "webhooks.add",
        "POST",
        "/v1/webhooks",
        "Add a webhook, or add one again that was removed or disabled; the answer shows its secret.",
        _WITH_SECRET,
        roles=("admin",),
        body=asked(
            {"webhook": _NAME, "url": text("`https://...`", least=1, most=512), "reason": REASON},
            {"kinds": _KINDS, "models": _MODELS},
        ),
        status=(201,),
        errors=(409,),
        note="docs/events.md tells what is sent, and how a receiver checks it.",
    ),
    Operation(
        "webhooks.remove",
        "DELETE",
        "/v1/webhooks/{webhook}",
        "Take a webhook away; what is queued for it is dropped.",
        _WEBHOOK,
        roles=("admin",),
        query=(Parameter("reason", REASON, required=True),),
        errors=(404, 409),
    ),
    Operation(
        "webhooks.rotate",
        "POST",
        "/v1/webhooks/{webhook}/rotation",
        "Give a webhook another secret; the answer shows it, and for a day the one before signs as well.",
        _WITH_SECRET,
        roles=("admin",),
        body=asked({"reason": REASON}),
        errors=(404, 409),
    ),
    Operation(
        "webhooks.ping",
        "POST",
        "/v1/webhooks/{webhook}/ping",
        "Queue a message to a webhook that tells nothing; what became of it is shown in the list.",
        told({"webhook": _NAME, "ping": text("ID of the message, its `webhook-id`.")}),
        roles=("admin",),
        body=asked({}),
        status=(202,),
        errors=(404, 409),
    ),
)
