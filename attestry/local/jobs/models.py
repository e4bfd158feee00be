"""The services' own models, as botocore ships them: what a request may be, and what members are called where.

botocore's `ParamValidator` checks members, types, required ones and minimal lengths. Patterns, maximal lengths, ranges and enumerations it
leaves to the service, so they are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.validate import ParamValidator

_JAVA = (("\\p{L}", "a-zA-Z\u00c0-\u024f"), ("\\p{Z}", " "), ("\\p{N}", "0-9"), ("\\p{Alnum}", "A-Za-z0-9"), ("\\p{Graph}", "!-~"))
"""Character classes that Java's patterns know and Python's do not, near enough."""


class UnknownMemberError(ValueError):
    """A request has a member that the service's API has not."""


@cache
def operation(service: str, name: str) -> OperationModel:
    """Return the model of an operation, for example of `CreateTrainingJob` of `sagemaker`."""
    return ServiceModel(Loader().load_service_model(service, "service-2")).operation_model(name)


def problems(shape: Any, value: Any) -> list[str]:
    """Return everything that a model has against a value, each with its path.

    Args:
        shape: botocore's shape.
        value: named as the API names it.
    """
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        return [str(report.generate_report())]
    return list(_broken(shape, value, str(shape.name)))


def named_for_api(shape: Any, value: Any, path: str = "") -> Any:
    """Return a request of Step Functions, whose members all begin with a capital, with the names of the API.

    Raises:
        UnknownMemberError: a member that the API has not.
    """
    if shape.type_name == "structure" and isinstance(value, Mapping):
        known = {name[:1].upper() + name[1:]: name for name in shape.members}
        if unknown := sorted(set(value) - set(known)):
            raise UnknownMemberError(f"the field {path}{unknown[0]!r} is not supported")
        return {known[name]: named_for_api(shape.members[known[name]], member, f"{path}{name}.") for name, member in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [named_for_api(shape.member, item, path) for item in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {key: named_for_api(shape.value, item, path) for key, item in value.items()}
    return value


def named_for_states(shape: Any, value: Any) -> Any:
    """Return an answer of the API as Step Functions passes it on: members begin with a capital, keys of maps stay."""
    if shape.type_name == "structure":
        return {name[:1].upper() + name[1:]: named_for_states(shape.members[name], member) for name, member in value.items()}
    if shape.type_name == "list":
        return [named_for_states(shape.member, item) for item in value]
    if shape.type_name == "map":
        return {key: named_for_states(shape.value, item) for key, item in value.items()}
    if shape.type_name == "timestamp":
        return round(value * 1000)
    return value


def _broken(shape: Any, value: Any, path: str) -> Iterator[str]:
    rules = shape.metadata
    if shape.type_name == "structure":
        for name, member in value.items():
            yield from _broken(shape.members[name], member, f"{path}.{name}")
    elif shape.type_name == "list":
        yield from _outside(rules, len(value), f"{path}: its number of items")
        for index, item in enumerate(value):
            yield from _broken(shape.member, item, f"{path}[{index}]")
    elif shape.type_name == "map":
        yield from _outside(rules, len(value), f"{path}: its number of entries")
        for key, item in value.items():
            yield from _broken(shape.key, key, f"{path} key {key!r}")
            yield from _broken(shape.value, item, f"{path}.{key}")
    elif shape.type_name == "string":
        yield from _outside(rules, len(value), f"{path}: its length")
        if rules.get("enum") and value not in rules["enum"]:
            yield f"{path}: {value!r} is none of the values that the service knows"
        if rules.get("pattern") and not re.fullmatch(_for_python(rules["pattern"]), value, re.DOTALL):
            yield f"{path}: {value!r} does not satisfy the pattern {rules['pattern']}"
    elif shape.type_name in ("integer", "long"):
        yield from _outside(rules, value, path)


def _outside(rules: Mapping[str, Any], number: int, path: str) -> Iterator[str]:
    if not rules.get("min", number) <= number <= rules.get("max", number):
        yield f"{path} {number} is not from {rules.get('min', 'any')} to {rules.get('max', 'any')}"


@cache
def _for_python(pattern: str) -> str:
    for java, python in _JAVA:
        pattern = pattern.replace(java, python)
    return pattern
