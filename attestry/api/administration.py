"""Operations on persons and policies, and the description of the API itself."""

from __future__ import annotations

from attestry.api.operation import ALL, PAGE, Operation, listed
from attestry.api.schema import REASON, asked, flag, many, mapping, maybe, ref, text, told

ADMINISTRATION = (
    Operation(
        "people.list",
        "GET",
        "/v1/people",
        "List all persons, by ID.",
        listed("people", ref("Person")),
        query=PAGE,
        roles=("auditor", "admin"),
    ),
    Operation(
        "people.add",
        "POST",
        "/v1/people",
        "Add a person, or logins and SSH keys to one; or withdraw keys of one, in a request of its own.",
        ref("Person"),
        roles=("admin",),
        body=asked(
            {"person": text(least=1, most=63)},
            {
                "name": maybe(text("How people call them.")),
                "logins": many(text(least=1, most=256), most=20),
                "ssh_keys": many(text(), "Lines of `.pub` files."),
                "withdraw": many(text(), "Fingerprints of keys, `SHA256:...`."),
                "reason": REASON,
            },
        ),
        status=(200, 201),
        errors=(404, 409),
    ),
    Operation(
        "policies.list",
        "GET",
        "/v1/policies",
        "List the policies in force, by name.",
        listed("policies", ref("Edition")),
        query=PAGE,
        errors=(409,),
    ),
    Operation(
        "policies.read",
        "GET",
        "/v1/policies/{policy}",
        "Show the editions of a policy, the first one first.",
        listed("editions", ref("Edition")),
        query=PAGE,
        errors=(404, 409),
    ),
    Operation(
        "policies.publish",
        "POST",
        "/v1/policies",
        "Put an edition of a policy in force.",
        ref("Edition"),
        roles=("admin",),
        body=asked({"document": mapping("The policy, see docs/policies.md."), "reason": REASON}),
        status=(201,),
        errors=(409,),
    ),
    Operation(
        "policies.replay",
        "POST",
        "/v1/policy-replay",
        "Judge promotions of the past by a policy, published or not; it changes nothing.",
        told(
            {
                "promotions": many(
                    told(
                        {
                            "version": text("`MODEL@N`."),
                            "kind": text(),
                            "at": text(),
                            "stopped": flag(),
                            "objections": many(told({"rule": text(), "field": text(), "message": text()})),
                        }
                    )
                ),
                "next": maybe(text("The model to go on behind; null after the last one.")),
            }
        ),
        roles=("validator", "approver", "auditor", "admin"),
        body=asked(
            {"document": mapping("The policy."), "since": text("A day or time, RFC 3339.")},
            {"after": maybe(text("Go on behind this model."))},
        ),
        errors=(409,),
    ),
    Operation(
        "api.describe",
        "GET",
        "/v1/openapi.json",
        "Return this description.",
        mapping("An OpenAPI 3.1 document."),
        roles=ALL,
    ),
)
