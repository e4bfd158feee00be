"""What is taken out of the synthesised template before it goes to the embedded AWS. Pure: templates in, templates out.

Two things only are taken out, everything else is deployed as CDK wrote it:
- resources of a type that the emulator does not know, because one of them makes it refuse the whole template;
- statements of resource policies that deny requests without TLS, because the embedded AWS speaks plain HTTP on the loopback
  address and would deny everything.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Template = dict[str, Any]

TRANSPORT_KEY = "aws:SecureTransport"


@dataclass(frozen=True)
class Removal:
    """Something that the template has and the deployed one has not.

    Attributes:
        resource: logical ID of the resource.
        type: its type.
        part: `resource`, or the path of the statement below `Properties`.
        reason: a sentence.
    """

    resource: str
    type: str
    part: str
    reason: str


@dataclass(frozen=True)
class Filtered:
    """A template that the embedded AWS takes, and what was removed to get it."""

    template: Template
    removals: tuple[Removal, ...]


def filter_template(template: Template, unknown_types: Collection[str]) -> Filtered:
    """Return the template without what the embedded AWS cannot take.

    Args:
        template: the synthesised template; it is not changed.
        unknown_types: resource types that the emulator refuses.

    Raises:
        ValueError: a resource that stays needs one that goes.
    """
    kept = copy.deepcopy(template)
    removals = [*_remove_types(kept, unknown_types), *_remove_transport_rules(kept)]
    return Filtered(kept, tuple(removals))


def _remove_types(template: Template, unknown_types: Collection[str]) -> Iterator[Removal]:
    resources = template["Resources"]
    gone = {name: res["Type"] for name, res in resources.items() if res["Type"] in unknown_types}
    for name, kind in gone.items():
        del resources[name]
        yield Removal(name, kind, "resource", "the emulator does not know this type")
    for resource in resources.values():
        _remove_dependencies(resource, gone)
    for section in ("Resources", "Outputs", "Conditions"):
        for where, part in (template.get(section) or {}).items():
            if needed := sorted(set(references(part)) & gone.keys()):
                raise ValueError(f"{section}.{where} needs {needed[0]} of type {gone[needed[0]]}, which the emulator does not know")


def _remove_dependencies(resource: dict[str, Any], gone: Mapping[str, str]) -> None:
    needs = resource.get("DependsOn")
    if needs is None:
        return
    left = [name for name in ([needs] if isinstance(needs, str) else needs) if name not in gone]
    if left:
        resource["DependsOn"] = left
    else:
        del resource["DependsOn"]


def references(part: Any) -> Iterator[str]:
    """Yield the logical IDs that a part of a template refers to, by Ref, Fn::GetAtt or Fn::Sub."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "Ref" and isinstance(value, str):
                yield value
            elif key == "Fn::GetAtt":
                yield value[0] if isinstance(value, list) else str(value).split(".")[0]
            elif key == "Fn::Sub":
                text = value[0] if isinstance(value, list) else value
                yield from (piece.split("}")[0].split(".")[0] for piece in str(text).split("${")[1:])
                yield from references(value)
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def _remove_transport_rules(template: Template) -> Iterator[Removal]:
    for name, resource in list(template["Resources"].items()):
        document = (resource.get("Properties") or {}).get("PolicyDocument")
        if not isinstance(document, dict) or not isinstance(document.get("Statement"), list):
            continue
        statements = document["Statement"]
        for index, statement in enumerate(statements):
            if _denies_plain_http(statement):
                label = statement.get("Sid") or index
                yield Removal(
                    name,
                    resource["Type"],
                    f"PolicyDocument.Statement[{label}]",
                    f"it denies requests without TLS ({TRANSPORT_KEY}), and the embedded AWS speaks plain HTTP on the loopback address",
                )
        left = [statement for statement in statements if not _denies_plain_http(statement)]
        if left:
            document["Statement"] = left
        else:
            # A policy without statements is refused, and a resource without a policy means the same.
            del template["Resources"][name]
            for other in template["Resources"].values():
                _remove_dependencies(other, {name: resource["Type"]})


def _denies_plain_http(statement: Any) -> bool:
    if not isinstance(statement, dict) or statement.get("Effect") != "Deny":
        return False
    keys = [key for block in (statement.get("Condition") or {}).values() for key in block]
    return keys == [TRANSPORT_KEY]
