"""Policies from files: YAML or JSON, under the rules of text that manifests have, with lines in the errors."""

from __future__ import annotations

from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.manifest import Manifest, complete_manifest, read_manifest
from attestry.domain.manifest_source import parse_source
from attestry.domain.policies import Policy


def read_policy(raw: bytes) -> Policy:
    """Return the policy in the bytes.

    Raises:
        InvalidInputError: with every problem of the text, or else of the policy.
    """
    source = parse_source(raw)
    if source.problems:
        raise InvalidInputError(list(source.problems))
    if not isinstance(source.value, dict):
        raise InvalidInputError([Problem("", "mapping", "a policy is a mapping with format, name and rules", 1)])
    try:
        return Policy.from_mapping(source.value)
    except InvalidInputError as error:
        told = [Problem(p.field, p.rule, p.message, source.line_of_field(p.field)) for p in error.problems]
        raise InvalidInputError(told) from error


def read_manifest_to_check(raw: bytes) -> Manifest:
    """Return the manifest of a file as its author has it, before submitting fills in what git and the files tell.

    Raises:
        InvalidInputError: see `attestry.domain.manifest.read_manifest`.
    """
    draft = read_manifest(raw, draft=True).mapping
    stated = draft.get("source", {})
    digests = {item["uri"]: item.get("sha256", "0" * 64) for item in draft["data"]["source"]}
    filled = complete_manifest(
        draft,
        revision=stated.get("revision", "0" * 40),
        author=stated.get("author", "-"),
        repository=stated.get("repository", "-"),
        archive_sha256=stated.get("sha256", "0" * 64),
        data_sha256s=digests,
    )
    return Manifest.from_mapping(filled)
