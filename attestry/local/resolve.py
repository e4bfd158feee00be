"""Resolving a template's intrinsic functions with what the stack consists of. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from attestry.local.settings import ACCOUNT, REGION


class _Anything:
    def __repr__(self) -> str:
        return "<not known before deployment>"


ANYTHING: Final = _Anything()
"""Stands for a value that cannot be computed here; any value that is there equals it."""

PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
}
_PLACEHOLDER = re.compile(r"\$\{([^!}][^}]*)\}")
_ARNS = {
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/",
    "AWS::KMS::Key": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:",
    "AWS::S3::Bucket": "arn:aws:s3:::",
    "AWS::StepFunctions::StateMachine": "",
    "AWS::SNS::Topic": "",
    "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/",
}


class Resolver:
    """Values of Ref, Fn::GetAtt, Fn::Join and Fn::Sub in one deployed stack."""

    def __init__(self, resources: Mapping[str, Mapping[str, Any]], physical: Mapping[str, str]) -> None:
        """Take the resources of the template and their physical IDs, both by logical ID."""
        self._resources = resources
        self._physical = physical

    def resolve(self, part: Any) -> Any:
        """Return a part of a template with its intrinsic functions resolved, `ANYTHING` where that is not possible."""
        if isinstance(part, list):
            return [self.resolve(value) for value in part]
        if not isinstance(part, Mapping):
            return part
        if len(part) == 1:
            ((name, value),) = part.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._call(name, value)
        return {key: self.resolve(value) for key, value in part.items()}

    def _call(self, name: str, value: Any) -> Any:
        if name == "Ref":
            return PSEUDO.get(value) or self._physical.get(value, ANYTHING)
        if name == "Fn::GetAtt":
            logical, attribute = value if isinstance(value, list) else str(value).split(".", 1)
            return self._attribute(logical, attribute)
        if name == "Fn::Join":
            parts = [self.resolve(entry) for entry in value[1]]
            return value[0].join(map(str, parts)) if all(isinstance(entry, str) for entry in parts) else ANYTHING
        if name == "Fn::Sub" and isinstance(value, str):
            found = {match: self._named(match) for match in _PLACEHOLDER.findall(value)}
            if ANYTHING in found.values():
                return ANYTHING
            return _PLACEHOLDER.sub(lambda match: str(found[match.group(1)]), value)
        return ANYTHING

    def _named(self, name: str) -> Any:
        return self._attribute(*name.split(".", 1)) if "." in name else self._call("Ref", name)

    def _attribute(self, logical: str, attribute: str) -> Any:
        physical = self._physical.get(logical)
        if physical is None:
            return ANYTHING
        kind = str(self._resources[logical]["Type"])
        if attribute == "Arn":
            if kind == "AWS::SQS::Queue":
                return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{physical.rsplit('/', 1)[-1]}"
            if kind == "AWS::Logs::LogGroup":
                return f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{physical}:*"
            return _ARNS[kind] + physical if kind in _ARNS else ANYTHING
        if attribute in ("TopicArn", "Name", "GroupId", "VpcId", "SubnetId") and kind != "AWS::StepFunctions::StateMachine":
            return physical
        return ANYTHING


def difference(expected: Any, found: Any, path: str = "") -> str | None:
    """Return where a resource lacks something that its template states, or None.

    What the resource has beyond the template does not count. Lists are compared without their order, a single value and a list of
    one are the same, and so are a number or truth value and its text: CloudFormation and the services' APIs differ in these.

    Args:
        expected: resolved value from the template.
        found: value from the service.
        path: path so far.
    """
    if expected is ANYTHING:
        return path or "value" if found is None else None
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return path or "value"
        inner = (difference(value, found.get(key), f"{path}.{key}" if path else str(key)) for key, value in expected.items())
        return next((where for where in inner if where is not None), None)
    if isinstance(expected, list):
        there = found if isinstance(found, list) else [found]
        for index, value in enumerate(expected):
            if all(difference(value, other) is not None for other in there):
                return f"{path}[{index}]"
        return None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return None if _text(expected) == _text(found) else path or "value"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
