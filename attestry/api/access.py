"""Operations on who may do what: grants, placements of models, access policies, and reviews of them."""

from __future__ import annotations

from attestry.api.operation import ALL, Operation, Parameter
from attestry.api.schema import MODEL, REASON, Schema, asked, flag, many, mapping, maybe, one_of, text, told, whole
from attestry.domain.principal import ROLES

_REVIEWERS = ("auditor", "admin")
_SCOPE = text("`registry`, `model/NAME`, `tag/KEY=VALUE`, `project/NAME` or `unit/NAME`.", least=1, most=140)
_ROLE = one_of(*ROLES)
_GRANT = told({"role": _ROLE, "scope": _SCOPE, "until": text("When it ends by itself, RFC 3339; empty where it does not.")})
_HELD = told({"subject": text("`person/ID` or `login/LOGIN`."), "grants": many(_GRANT)})
_WHO: dict[str, Schema] = {
    "person": text("ID of a person.", least=1, most=63),
    "login": text("A login that is nobody's.", least=1, most=256),
}
_NAME = text(least=1, most=63)
_PLACEMENT: dict[str, Schema] = {"tags": mapping(values=_NAME), "project": text(most=63), "unit": text("The business unit.", most=63)}
_PLACED = told({"model": MODEL, **_PLACEMENT, "scopes": many(_SCOPE, "Where roles on the model count.")})
_EDITION = told(
    {
        "name": text(),
        "number": whole(least=1),
        "sha256": text("Of the text; empty where the edition ends the policy."),
        "text": text("The policies, in Cedar's syntax."),
        "by": text(),
        "reason": text(),
        "at": text(),
    }
)
STANDING: dict[str, Schema] = {
    "governed": flag("Whether grants say what is held, not the platform alone."),
    "scopes": mapping("Role to the scopes in which it counts.", many(_SCOPE)),
}
_ASKED = (
    Parameter("action", text("ID of an operation.", least=1, most=80), required=True),
    Parameter("model", MODEL),
    Parameter("alias", text("The alias that would be set.", most=63)),
)
_OF = (Parameter("person", _WHO["person"]), Parameter("login", _WHO["login"]))

ACCESS = (
    Operation(
        "access.list",
        "GET",
        "/v1/access/grants",
        "List what was granted, to everybody or to one.",
        told({"granted": many(_HELD)}),
        roles=_REVIEWERS,
        query=_OF,
    ),
    Operation(
        "access.grant",
        "POST",
        "/v1/access/grants",
        "Let a role count somewhere for a person or a login.",
        _HELD,
        roles=("admin",),
        body=asked({"role": _ROLE, "reason": REASON}, {**_WHO, "scope": _SCOPE, "until": maybe(text("RFC 3339, UTC."))}),
        status=(201,),
        errors=(404, 409),
        note="Either `person` or `login` is needed. Nobody changes what they hold themselves.",
    ),
    Operation(
        "access.withdraw",
        "POST",
        "/v1/access/withdrawals",
        "End a grant.",
        _HELD,
        roles=("admin",),
        body=asked({"role": _ROLE, "reason": REASON}, {**_WHO, "scope": _SCOPE}),
        errors=(404, 409),
        note="Reads and predictions may still be let for ten seconds.",
    ),
    Operation(
        "access.review",
        "GET",
        "/v1/access/who-can",
        "Tell who can do something to a model, or to the registry.",
        told(
            {
                "action": text(),
                "on": text("The model, or `registry`."),
                "granted": many(told({"subject": text(), "grants": many(_GRANT), **STANDING})),
                "roles": many(_ROLE, "In which anybody may to whom nothing was granted."),
                "governed": many(text(), "Everybody to whom something was granted."),
            }
        ),
        roles=_REVIEWERS,
        query=_ASKED,
    ),
    Operation(
        "access.check",
        "GET",
        "/v1/access/check",
        "Tell whether the caller can do something; for reviewers, whether somebody else can.",
        told(
            {
                "action": text(),
                "on": text(),
                "allowed": flag(),
                "login": text(),
                "policies": many(text(), "IDs of the policies that made the difference."),
                "roles": many(_ROLE, "That would be let if they counted everywhere."),
                **STANDING,
            }
        ),
        roles=ALL,
        query=(*_ASKED, *_OF),
    ),
    Operation(
        "access.policies",
        "GET",
        "/v1/access/policies",
        "Show the default access policies, and the latest edition of each that was added.",
        told({"default": mapping("Name to text.", text()), "added": many(_EDITION)}),
        roles=_REVIEWERS,
    ),
    Operation(
        "access.publish",
        "POST",
        "/v1/access/policies",
        "Put an edition of an added access policy in force, or end the policy with an empty text.",
        _EDITION,
        roles=("admin",),
        body=asked({"name": text(least=1, most=64), "text": text(most=10_000), "reason": REASON}),
        status=(201,),
        errors=(404, 409),
    ),
    Operation(
        "access.placement",
        "GET",
        "/v1/access/placements",
        "Show where a model is placed.",
        _PLACED,
        roles=_REVIEWERS,
        query=(Parameter("model", MODEL, required=True),),
    ),
    Operation(
        "access.place",
        "POST",
        "/v1/access/placements",
        "Say where a model lies: its tags, its project and its business unit, all of them.",
        _PLACED,
        roles=("admin",),
        body=asked({"model": MODEL, "reason": REASON}, _PLACEMENT),
        errors=(409,),
    ),
)
