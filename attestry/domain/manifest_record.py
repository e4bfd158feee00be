"""The manifest as a record: what remains once `attestry.domain.manifest.read_manifest` has checked it.

It is kept apart from reading and checking, so that who only looks at manifests, the offline verifier above all, needs
neither YAML nor a JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.manifest_sections import (
    Approval,
    Data,
    Deployment,
    Environment,
    Gates,
    Model,
    Processing,
    Refresh,
    Reproduction,
    Retention,
    Source,
    Training,
    Validation,
)
from attestry.domain.mapping_codec import decode_dataclass, encode_dataclass


@dataclass(frozen=True)
class Manifest:
    """Every setting of every stage of one candidate. The attributes are named as the fields of the schema."""

    model: Model
    source: Source
    environment: Environment
    data: Data
    processing: Processing
    training: Training
    validation: Validation
    gates: Gates
    approval: Approval
    deployment: Deployment
    reproduction: Reproduction
    format: int = 1
    refresh: Refresh | None = None
    retention: Retention | None = None

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Manifest:
        """Return the manifest of a mapping that has passed `read_manifest` before, for example one read back from the store.

        Raises:
            InvalidInputError: the mapping is no complete manifest.
        """
        return decode_dataclass(cls, mapping)

    def to_mapping(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready mapping, defaults included; `from_mapping` of it is equal to this."""
        return encode_dataclass(self)

    @property
    def scripts(self) -> dict[str, str]:
        """The files that the source archive must hold: field of the manifest to path."""
        named = {
            "processing.script": self.processing.script,
            "training.script": self.training.script,
            "validation.script": self.validation.script,
        }
        if self.environment.lock_file is not None:
            named["environment.lock_file"] = self.environment.lock_file
        named |= {f"data.preparation[{i}].script": step.script for i, step in enumerate(self.data.preparation)}
        return named
