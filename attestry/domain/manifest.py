"""The manifest: every setting of every stage of one candidate.

`read_manifest` is the only way from bytes to a manifest. Its rules, in the order in which they are applied:

1. The text is UTF-8, at most 256 KiB, one YAML 1.2 or JSON document without anchors, aliases, tags or duplicate keys,
   at most 20 levels deep, without NaN and infinities (`attestry.domain.manifest_source`).
2. The content matches the JSON Schema and the rules between fields (`attestry.domain.manifest_rules`).
3. Every field that `gates.required` names is filled in. A draft is not held to it, since submitting fills in more.
4. Its canonical form is RFC 8785 (JCS) of the parsed mapping; the SHA-256 of that is the candidate ID. YAML or JSON,
   order of keys, comments and `1` or `1.0` make no difference.

    document = read_manifest(raw)
    document.candidate_id, document.manifest.training.hyperparameters

All problems are reported at once, each with field, rule and line. `docs/manifest.md` describes each field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import rfc8785

from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.gates import unfilled_fields
from attestry.domain.manifest_record import Manifest
from attestry.domain.manifest_rules import find_problems
from attestry.domain.manifest_sections import (
    Approval,
    Columns,
    ComparisonGate,
    Component,
    Data,
    DataSet,
    DataSource,
    Deployment,
    Dirty,
    Environment,
    Executor,
    Gates,
    Label,
    Metric,
    MetricGate,
    Model,
    ParameterValue,
    People,
    PreparationStep,
    Processing,
    Refresh,
    Reproduction,
    Resources,
    Retention,
    Scalar,
    Source,
    Training,
    Validation,
)
from attestry.domain.manifest_source import MAX_PROBLEMS, SourceText, parse_source

__all__ = [
    "Approval",
    "Columns",
    "ComparisonGate",
    "Component",
    "Data",
    "DataSet",
    "DataSource",
    "Deployment",
    "Dirty",
    "Environment",
    "Executor",
    "Gates",
    "Label",
    "Manifest",
    "ManifestDocument",
    "Metric",
    "MetricGate",
    "Model",
    "ParameterValue",
    "People",
    "PreparationStep",
    "Processing",
    "Refresh",
    "Reproduction",
    "Resources",
    "Retention",
    "Scalar",
    "Source",
    "Training",
    "Validation",
    "complete_manifest",
    "read_manifest",
]


@dataclass(frozen=True)
class ManifestDocument:
    """A manifest as it was read.

    Attributes:
        mapping: the content, numbers normalised (`1.0` is `1`), nothing added.
        source: the text with its lines.
        draft: whether the fields that `attestry submit` fills in may be missing.
    """

    mapping: dict[str, Any]
    source: SourceText = field(repr=False, compare=False)
    draft: bool = False

    @cached_property
    def canonical_bytes(self) -> bytes:
        """The canonical form (RFC 8785)."""
        return rfc8785.dumps(self.mapping)

    @cached_property
    def candidate_id(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()

    @cached_property
    def manifest(self) -> Manifest:
        """The typed manifest.

        Raises:
            InvalidInputError: this is a draft in which something is still missing.
        """
        return Manifest.from_mapping(self.mapping)

    def problem(self, field_path: str, rule: str, message: str) -> Problem:
        """Return a problem with the line of the field, for checks made later (a script that the archive does not hold)."""
        return Problem(field_path, rule, message, self.source.line_of_field(field_path))


def read_manifest(raw: bytes, *, draft: bool = False) -> ManifestDocument:
    """Return the manifest in the bytes, fully checked.

    Args:
        raw: YAML or JSON, UTF-8, at most 256 KiB.
        draft: allow that the fields are missing which `complete_manifest` fills in: `source` and its fields, and the
            digests of uploaded data files.

    Raises:
        InvalidInputError: with every problem that was found (reading stops at the hundredth), in the order of the lines.
    """
    source = parse_source(raw)
    problems = list(source.problems)
    if isinstance(source.value, dict) and source.complete:
        problems += find_problems(source, draft=draft)
    elif not problems:
        problems.append(Problem("", "mapping", "the manifest must be a mapping of sections (model, source, ...)", 1))
    if problems or not isinstance(source.value, dict):
        raise InvalidInputError(_shorten(sorted(problems, key=lambda p: p.line or 0)))
    document = ManifestDocument(source.value, source, draft)
    unfilled = {} if draft else unfilled_fields(document.manifest)
    if unfilled:
        raise InvalidInputError([_unfilled(document, index, name) for index, name in unfilled.items()])
    return document


def _unfilled(document: ManifestDocument, index: int, name: str) -> Problem:
    message = f"asks for '{name}', which this manifest leaves out or empty; fill it in, or do not ask for it"
    return document.problem(f"gates.required[{index}]", "filled_in", message)


def _shorten(problems: list[Problem]) -> list[Problem]:
    """Return the first problems, and how many more there are."""
    more = len(problems) - MAX_PROBLEMS
    return problems if more <= 0 else [*problems[:MAX_PROBLEMS], Problem("", "more", f"and {more} more problems")]


def complete_manifest(
    mapping: Mapping[str, Any],
    *,
    revision: str,
    author: str,
    repository: str,
    archive_sha256: str,
    data_sha256s: Mapping[str, str],
    diff_sha256: str | None = None,
) -> dict[str, Any]:
    """Return a draft's mapping with everything filled in that git and the files tell; nothing else changes.

    What the draft states itself is kept: repository and author as they are; revision and digests must be the actual
    ones.

    Args:
        mapping: content of a draft that `read_manifest(..., draft=True)` has accepted.
        revision: full commit ID.
        author: author of the commit.
        repository: URL of the repository.
        archive_sha256: digest of the source archive, hex.
        data_sha256s: `uri` of each uploaded data file to its digest, hex.
        diff_sha256: digest of the difference to the revision, where the archive holds uncommitted changes.

    Raises:
        InvalidInputError: the draft states another revision or digest, or an uploaded file has no digest.
    """
    problems: list[Problem] = []
    stated = dict(mapping.get("source", {}))
    source: dict[str, Any] = {"repository": repository, "author": author} | stated | {"revision": revision, "sha256": archive_sha256}
    source.pop("dirty", None)
    if diff_sha256 is not None:
        source["dirty"] = {"diff_sha256": diff_sha256}
    problems += [
        Problem(f"source.{name}", "as_found", f"the manifest says {stated[name]}, but it is {source[name]}")
        for name in ("revision", "sha256")
        if name in stated and stated[name] != source[name]
    ]
    files = []
    for index, item in enumerate(mapping["data"]["source"]):
        field_path, found = f"data.source[{index}].sha256", data_sha256s.get(item["uri"])
        digest = item.get("sha256", found)
        if digest is None:
            problems.append(Problem(field_path, "required", f"is missing, and {item['uri']} was not found"))
        elif found is not None and digest != found:
            problems.append(Problem(field_path, "as_found", f"the manifest says {digest}, but {item['uri']} has {found}"))
        files.append({**item, "sha256": digest})
    if problems:
        raise InvalidInputError(problems)
    return {**mapping, "source": source, "data": {**mapping["data"], "source": files}}
