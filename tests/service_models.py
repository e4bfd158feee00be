"""Validates requests and answers against botocore's own service models, patterns, lengths and enumerations included.

botocore's `ParamValidator` checks members, types, required ones and minimal lengths; what it leaves to the service is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

OPERATIONS = {
    "sagemaker-processing": ("sagemaker", "CreateProcessingJob"),
    "sagemaker-training": ("sagemaker", "CreateTrainingJob"),
    "sagemaker-transform": ("sagemaker", "CreateTransformJob"),
    "batch": ("batch", "SubmitJob"),
    "emr-serverless": ("emr-serverless", "StartJobRun"),
}

_JAVA = (
    ("\\p{L}", "a-zA-Z\u00c0-\u024f"),
    ("\\p{Z}", " "),
    ("\\p{N}", "0-9"),
    ("\\p{Alnum}", "A-Za-z0-9"),
    ("\\p{ASCII}", "[\\x00-\\x7f]"),
)
"""What Java's patterns say that Python's do not; near enough for what is sent here."""


@cache
def service_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"))


def problems_of_request(service: str, request: Mapping[str, Any]) -> list[str]:
    """Everything that the service's model has against a request, each with its path."""
    name, operation = OPERATIONS[service]
    return problems(service_model(name).operation_model(operation).input_shape, request)


def problems_of_answer(service: str, operation: str, answer: Mapping[str, Any]) -> list[str]:
    """Everything that the model has against an answer."""
    return problems(service_model(service).operation_model(operation).output_shape, answer)


def problems(shape: Shape, value: Any) -> list[str]:
    """What ParamValidator has against a value, and what it leaves out."""
    report = ParamValidator().validate(value, shape)
    told = [report.generate_report()] if report.has_errors() else []
    return told + list(_unlike(shape, value, shape.name))


def _unlike(shape: Any, value: Any, path: str) -> Iterator[str]:
    rules = shape.metadata
    if shape.type_name == "structure":
        for name, member in value.items():
            if name in shape.members:
                yield from _unlike(shape.members[name], member, f"{path}.{name}")
    elif shape.type_name == "list":
        yield from _outside(rules, len(value), f"{path}: number of items")
        for index, item in enumerate(value):
            yield from _unlike(shape.member, item, f"{path}[{index}]")
    elif shape.type_name == "map":
        yield from _outside(rules, len(value), f"{path}: number of entries")
        for key, item in value.items():
            yield from _unlike(shape.key, key, f"{path} key {key!r}")
            yield from _unlike(shape.value, item, f"{path}.{key}")
    elif shape.type_name == "string":
        yield from _outside(rules, len(value), f"{path}: length")
        if rules.get("enum") and value not in rules["enum"]:
            yield f"{path}: {value!r} is none of {rules['enum'][:5]}..."
        if rules.get("pattern") and not re.fullmatch(_python_pattern(rules["pattern"]), value, re.DOTALL):
            yield f"{path}: {value!r} does not fit {rules['pattern']}"
    elif shape.type_name in ("integer", "long"):
        yield from _outside(rules, value, path)


def _outside(rules: Mapping[str, Any], number: int, path: str) -> Iterator[str]:
    if not rules.get("min", number) <= number <= rules.get("max", number):
        yield f"{path}: {number} is not within {rules.get('min')} and {rules.get('max')}"


@cache
def _python_pattern(pattern: str) -> str:
    for java, python in _JAVA:
        pattern = pattern.replace(java, python)
    return pattern
