"""Reading a synthesised template: intrinsic functions become the texts that they would have in one account and region."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attestry.local.openapi import read_openapi

ACCOUNT = "123456789012"
REGION = "eu-west-1"
_PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "Attestry",
}
_KEY_ID = "11111111-2222-3333-4444-555555555555"


@dataclass(frozen=True)
class Policy:
    """A policy document of the template.

    Attributes:
        owner: logical ID of the resource.
        kind: `identity`, `resource`, `key` or `trust`.
        document: the document, its intrinsic functions resolved.
    """

    owner: str
    kind: str
    document: dict[str, Any]

    @property
    def statements(self) -> list[dict[str, Any]]:
        return list(self.document["Statement"])


class Template:
    """A template of the CDK application."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.raw: dict[str, Any] = json.loads(text)

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the resolved properties of the resources of a type, by logical ID."""
        found = {name: res for name, res in self.raw["Resources"].items() if res["Type"] == kind}
        return {name: self.resolve(res.get("Properties", {})) for name, res in found.items()}

    def raw_of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the properties of the resources of a type as they stand, by logical ID; what names a resource is its logical ID."""
        found = {name: res for name, res in self.raw["Resources"].items() if res["Type"] == kind}
        return {name: _named(res.get("Properties", {})) for name, res in found.items()}

    def forms(self) -> dict[str, set[str]]:
        """Return where resources of each type have a value, whatever it is; what an intrinsic function gives is one value."""
        found: dict[str, set[str]] = {}
        for resource in self.raw["Resources"].values():
            found.setdefault(resource["Type"], set()).update(_places(resource))
        return found

    def api_document(self) -> dict[str, Any]:
        """Return the OpenAPI document that the gateway imports, resolved."""
        (api,) = self.of_type("AWS::ApiGatewayV2::Api").values()
        return dict(api["Body"])

    def routes(self) -> dict[str, tuple[str, str]]:
        """Return for each route, method and path, how it is authorised and the function that answers it."""
        found = read_openapi(self.api_document()).in_force()
        return {key: (authorization, _invoked(uri)) for key, (authorization, _, uri) in found.items()}

    def role_policies(self, role_name: str) -> list[dict[str, Any]]:
        """Return the statements of the role with this name."""
        for role in self.of_type("AWS::IAM::Role").values():
            if role.get("RoleName") == role_name:
                return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]
        raise KeyError(role_name)

    def policies(self) -> Iterator[Policy]:
        """Yield every policy document."""
        for name, resource in self.raw["Resources"].items():
            properties = self.resolve(resource.get("Properties", {}))
            for inline in properties.get("Policies", []) if resource["Type"] == "AWS::IAM::Role" else []:
                yield Policy(name, "identity", inline["PolicyDocument"])
            kinds = {"PolicyDocument": "resource", "KeyPolicy": "key", "AssumeRolePolicyDocument": "trust"}
            for field, kind in kinds.items():
                if field in properties:
                    yield Policy(name, kind, properties[field])

    def resolve(self, value: Any) -> Any:
        """Return a value with its intrinsic functions resolved."""
        if isinstance(value, list):
            return [self.resolve(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Ref"}:
            return self._ref(str(value["Ref"]))
        if set(value) == {"Fn::GetAtt"}:
            name, attribute = value["Fn::GetAtt"]
            return self._attribute(str(name), str(attribute))
        if set(value) == {"Fn::Join"}:
            separator, parts = value["Fn::Join"]
            return str(separator).join(str(self.resolve(part)) for part in parts)
        return {key: self.resolve(entry) for key, entry in value.items()}

    def _ref(self, name: str) -> str:
        if name in _PSEUDO:
            return _PSEUDO[name]
        resource = self.raw["Resources"].get(name)
        kind = resource["Type"] if resource else ""
        if kind == "AWS::SNS::Topic":
            return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"
        if kind == "AWS::StepFunctions::StateMachine":
            return self._attribute(name, "Arn")
        if kind == "AWS::Batch::JobDefinition":
            return f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/{name}:1"
        if kind == "AWS::SSM::Parameter":
            return str(resource["Properties"]["Name"])
        return name.lower() if kind == "AWS::S3::Bucket" else name

    def _attribute(self, name: str, attribute: str) -> str:
        resource = self.raw["Resources"][name]
        if attribute == "JobQueueArn":
            return f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/{name}"
        if resource["Type"] == "AWS::EMRServerless::Application":
            return name.lower()
        properties = self.resolve({k: v for k, v in resource.get("Properties", {}).items() if k.endswith("Name")})
        places = {
            "AWS::S3::Bucket": f"arn:aws:s3:::{name.lower()}",
            "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}",
            "AWS::KMS::Key": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{_KEY_ID}",
            "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}",
            "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{properties.get('FunctionName')}",
            "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{properties.get('RoleName', name)}",
            "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{properties.get('StateMachineName')}",
            "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}",
            "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{properties.get('LogGroupName')}",
        }
        return places[resource["Type"]] if attribute == "Arn" and resource["Type"] in places else f"{name}.{attribute}"


def _invoked(uri: str) -> str:
    """Return the name of the function that a URI of the gateway invokes."""
    return uri.rpartition(":function:")[2].removesuffix("/invocations")


def _places(value: Any, at: str = "") -> Iterator[str]:
    if isinstance(value, dict) and not (len(value) == 1 and next(iter(value)).startswith(("Ref", "Fn::"))):
        for name, inner in value.items():
            yield from _places(inner, f"{at}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner, f"{at}[]")
    else:
        yield at


def _named(properties: dict[str, Any]) -> dict[str, Any]:
    """Return properties in which an ARN of a resource, standing alone, is the resource's logical ID."""

    def name_of(value: Any) -> Any:
        found = value.get("Fn::GetAtt") if isinstance(value, dict) else None
        return found[0] if found and found[1] == "Arn" else value

    return {key: name_of(value) for key, value in properties.items()}


def listed(value: Any) -> list[Any]:
    """Return a field of a statement as a list."""
    return value if isinstance(value, list) else [value]
