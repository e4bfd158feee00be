"""Hand in a validation record: make it of a file, sign it with a key of one's own, send it.

    kind: champion-challenger
    metric: conversion
    champion: {size: 5000, successes: 400}
    challenger: {size: 5000, successes: 460}

The file has the kind and what the record says (`attestry.domain.validations`); model, number, version digest and time are added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attestry.domain.errors import ConflictError, InvalidInputError
from attestry.domain.events import timestamp
from attestry.evidence.ssh_signature import RECORD_NAMESPACE
from attestry.evidence.validation_record import ValidationRecord

if TYPE_CHECKING:
    from attestry.client.api import RegistryClient


def read_record_file(raw: bytes) -> tuple[str, dict[str, Any]]:
    """Return kind and content of a record's file, YAML or JSON, under the rules of text that manifests have.

    Raises:
        InvalidInputError: with every problem of the text, or no mapping with a kind.
    """
    from attestry.domain.manifest_source import parse_source

    source = parse_source(raw)
    if source.problems:
        raise InvalidInputError(list(source.problems))
    if not isinstance(source.value, Mapping) or not isinstance(source.value.get("kind"), str):
        raise InvalidInputError.of("kind", "required", "a record's file is a mapping with a kind and what the record says")
    return source.value["kind"], {name: value for name, value in source.value.items() if name != "kind"}


def make_record(api: RegistryClient, model: str, number: int, raw: bytes, at: datetime) -> ValidationRecord:
    """Return the record of a file about a version as it stands in the registry.

    Raises:
        InvalidInputError: naming the field of the file and the rule.
        ConflictError: the version has no digest yet.
        NotFoundError: no such version.
    """
    kind, content = read_record_file(raw)
    digest = str(api.version(model, number).get("version_digest") or "")
    if not digest:
        raise ConflictError(f"{model}@{number} has no version digest yet that a record could name")
    return ValidationRecord.make(kind, model, number, digest, timestamp(at), content)


def validate_version(api: RegistryClient, model: str, number: int, file: Path, key: Path, at: datetime) -> Any:
    """Make, sign and send the record of a file, and return what the registry answers.

    Args:
        api: the registry.
        model: the model's name.
        number: the version's number.
        file: the record's file.
        key: SSH key of the caller, see `attestry.client.ssh_sign.sign_packet`.
        at: the time.

    Raises:
        SigningError: the key made no signature.
        InvalidInputError, ConflictError, NotFoundError: see `make_record`; or what the registry refuses.
    """
    from attestry.client.ssh_sign import sign_packet

    record = make_record(api, model, number, file.read_bytes(), at)
    return api.validate(model, number, record.raw.decode(), sign_packet(record.sha256, key, namespace=RECORD_NAMESPACE))
