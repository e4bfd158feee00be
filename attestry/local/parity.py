"""How the deployed stack differs from the synthesised template, computed and not listed by hand.

Four sources: what was taken out of the template before it was deployed; what each service reports of each resource, compared
with the properties that the template states; the condition keys of its policies that the emulator does not evaluate; and the states of its
state machines whose services a stand-in plays. What is
missing is set through the services' APIs where there is a way, and read again. What is missing even then has to be checked on
the template itself, which the tests of `infra` do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from attestry.local.deploy import Deployed, Services
from attestry.local.jobs.integrations import INTEGRATIONS
from attestry.local.readers import read
from attestry.local.resolve import Resolver, difference
from attestry.local.setters import setter_of
from attestry.local.template import Template

EVALUATED_KEYS = frozenset(
    {
        "aws:currenttime",
        "aws:epochtime",
        "aws:multifactorauthpresent",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principaltype",
        "aws:requestedregion",
        "aws:resourceaccount",
        "aws:sourceip",
        "aws:tokenissuetime",
        "aws:userid",
        "aws:username",
        "dynamodb:attributes",
        "dynamodb:enclosingoperation",
        "dynamodb:leadingkeys",
        "dynamodb:select",
        "events:source",
        "kms:macalgorithm",
        "kms:messagetype",
        "kms:signingalgorithm",
        "kms:viaservice",
        "lambda:sourcefunctionarn",
        "s3:delimiter",
        "s3:if-match",
        "s3:if-none-match",
        "s3:max-keys",
        "s3:objectcreationoperation",
        "s3:prefix",
        "s3:x-amz-acl",
        "s3:x-amz-server-side-encryption",
        "sts:externalid",
        "sts:rolesessionname",
    }
)
"""Condition keys, in lower case, that the patched emulator has a value for; beside these the ones of tags."""

_EVALUATED_PREFIXES = ("aws:principaltag/", "aws:requesttag/", "aws:resourcetag/", "aws:tagkeys", "s3:existingobjecttag/")


class Outcome(StrEnum):
    """What became of a difference."""

    SET = "set afterwards through the API"
    OFFLINE = "checked offline on the template"
    STAND_IN = "run by a stand-in on this machine"


@dataclass(frozen=True)
class Difference:
    """One thing of the template that CloudFormation of the embedded AWS did not put in force.

    Attributes:
        resource: logical ID.
        type: resource type.
        part: `resource`, a property, or the path of a statement or condition.
        outcome: what became of it.
        reason: why it is missing.
    """

    resource: str
    type: str
    part: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Parity:
    """All differences of a deployment.

    Attributes:
        differences: in order of type, part and resource.
        compared: how many properties were compared.
    """

    differences: tuple[Difference, ...]
    compared: int

    def to_json(self) -> str:
        """Return the list as JSON."""
        return json.dumps({"compared": self.compared, "differences": [asdict(entry) for entry in self.differences]}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Parity:
        """Return the list that `to_json` wrote."""
        found = json.loads(text)
        entries = (Difference(**{**entry, "outcome": Outcome(entry["outcome"])}) for entry in found["differences"])
        return cls(tuple(entries), int(found["compared"]))

    def summary(self) -> str:
        """Return one sentence with the counts."""
        counts = Counter(entry.outcome for entry in self.differences)
        return (
            f"{self.compared} properties of the template compared with the services: {counts[Outcome.SET]} {Outcome.SET}, "
            f"{counts[Outcome.OFFLINE]} {Outcome.OFFLINE}, {counts[Outcome.STAND_IN]} {Outcome.STAND_IN}"
        )

    def lines(self) -> list[str]:
        """Return a line per type and part, for people."""
        groups: dict[tuple[str, str, Outcome, str], list[str]] = {}
        for entry in self.differences:
            groups.setdefault((entry.type, entry.part, entry.outcome, entry.reason), []).append(entry.resource)
        return [f"{kind} {part} ({len(names)}): {outcome}; {reason}" for (kind, part, outcome, reason), names in groups.items()]


def match_properties(services: Services, template: Template, deployed: Deployed, previous: Parity | None = None) -> Parity:
    """Compare what is deployed with the template, set what is missing, and return what was different.

    Args:
        services: clients with the rights of the account's root.
        template: the synthesised template.
        deployed: what became of it.
        previous: what the deployment before found. What was set through the API then is still in force after an update of the
            stack, and so no longer missing, but it is still not CloudFormation that put it there.
    """
    found = [Difference(gone.resource, gone.type, gone.part, Outcome.OFFLINE, gone.reason) for gone in deployed.filtered.removals]
    found += unevaluated_conditions(template)
    found += stood_in_for(template)
    compared = 0
    resources = deployed.filtered.template["Resources"]
    resolver = Resolver(resources, deployed.resources)
    for name, resource in resources.items():
        expected = resolver.resolve(resource.get("Properties") or {})
        compared += len(expected)
        found += _match(services, name, resource["Type"], deployed.resources[name], expected)
    known = {(entry.resource, entry.part) for entry in found}
    found += [
        entry
        for entry in (previous.differences if previous else ())
        if entry.outcome is Outcome.SET
        and (entry.resource, entry.part) not in known
        and entry.part in (resources.get(entry.resource, {}).get("Properties") or {})
    ]
    return Parity(tuple(sorted(found, key=lambda entry: (entry.type, entry.part, entry.resource))), compared)


def _match(services: Services, name: str, kind: str, physical: str, expected: dict[str, Any]) -> Iterator[Difference]:
    missing = _missing(services, kind, physical, expected)
    errors = {part: _set(services, kind, physical, part, expected) for part in missing}
    still = _missing(services, kind, physical, expected) if any(error is None for error in errors.values()) else missing
    for part, where in missing.items():
        if part not in still:
            yield Difference(name, kind, part, Outcome.SET, "CloudFormation of the emulator drops it")
        else:
            yield Difference(name, kind, part, Outcome.OFFLINE, errors[part] or f"the service does not report {where}")


def _missing(services: Services, kind: str, physical: str, expected: dict[str, Any]) -> dict[str, str]:
    found = read(services, kind, physical, expected)
    compared = {part: difference(value, found.get(part), part) for part, value in expected.items()}
    return {part: where for part, where in compared.items() if where is not None}


def _set(services: Services, kind: str, physical: str, part: str, expected: dict[str, Any]) -> str | None:
    """Set a property; return why it cannot be, or None."""
    setter = setter_of(kind, part)
    if setter is None:
        return "CloudFormation of the emulator drops it, and no API of the emulator reports or sets it"
    try:
        setter(services, physical, expected[part], expected)
    except (ClientError, BotoCoreError) as error:
        return f"the emulator refuses to set it: {error}"
    return None


def unevaluated_conditions(template: Template) -> Iterator[Difference]:
    """Yield the conditions of policies whose key has no value in the emulator, so that they hold or fail for the wrong reason."""
    for name, resource in template["Resources"].items():
        for path, statement in _statements(resource.get("Properties") or {}, ""):
            for key in _condition_keys(statement):
                if key.lower() not in EVALUATED_KEYS and not key.lower().startswith(_EVALUATED_PREFIXES):
                    yield Difference(
                        name, resource["Type"], f"{path} {key}", Outcome.OFFLINE, "the emulator has no value for this condition key"
                    )


def stood_in_for(template: Template) -> Iterator[Difference]:
    """Yield the states that start a job of a service which is not here."""
    for name, resource in template["Resources"].items():
        definition = (resource.get("Properties") or {}).get("DefinitionString")
        states = json.loads(definition)["States"] if isinstance(definition, str) else {}
        for state, task in states.items():
            if integration := INTEGRATIONS.get(task.get("Resource", "")):
                reason = f"{integration.service} is not here: the job runs as a process, with the environment archive in place of the image"
                yield Difference(name, resource["Type"], f"DefinitionString.{state}", Outcome.STAND_IN, reason)


def _statements(part: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(part, Mapping):
        if "Effect" in part and ("Action" in part or "NotAction" in part):
            yield f"{path}[{part['Sid']}]" if part.get("Sid") else path, part
            return
        for key, value in part.items():
            yield from _statements(value, f"{path}.{key}" if path else str(key))
    elif isinstance(part, list):
        for value in part:
            yield from _statements(value, path)


def _condition_keys(statement: Mapping[str, Any]) -> Iterable[str]:
    keys = {key for block in (statement.get("Condition") or {}).values() if isinstance(block, Mapping) for key in block}
    return sorted(keys - {"aws:SecureTransport"})
