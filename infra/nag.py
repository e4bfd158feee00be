"""cdk-nag: running the packs, and comparing what they find with `infra/findings.py`.

A finding is acknowledged by an entry that names the resources and says why; an entry that matches nothing is an error as well, so that
the list cannot outlive what it excuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks, PCIDSS321Checks, ServerlessChecks

PACKS = (AwsSolutionsChecks, NIST80053R5Checks, HIPAASecurityChecks, PCIDSS321Checks, ServerlessChecks)
REPORT = "validation-report.json"


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that a rule of a pack found.

    Attributes:
        pack: name of the pack.
        rule: ID of the rule, without the pack's prefix and without detail.
        detail: what the rule adds for rules that find several things per resource, or empty.
        resource: path of the construct below the stack, without the trailing `/Resource`.
    """

    pack: str
    rule: str
    detail: str
    resource: str


@dataclass(frozen=True)
class Acknowledgement:
    """Why findings stand.

    Attributes:
        rules: rule IDs, without packs' prefixes.
        resources: construct paths, each in full.
        reason: why the rule does not hold there, or what is done instead.
        detail: pattern of the findings' detail, for rules that give one; shell style, so that `[*]` is a star and `*` is anything.
    """

    rules: tuple[str, ...]
    resources: tuple[str, ...]
    reason: str
    detail: str = ""

    def covers(self, finding: Finding) -> bool:
        """Return whether this is about the finding."""
        fits = not finding.detail or fnmatchcase(finding.detail, self.detail)
        return finding.rule in self.rules and finding.resource in self.resources and fits


def synthesise_with_packs(app: App) -> None:
    """Synthesise and run all packs; template and report are in the output folder, whatever was found.

    Raises:
        RuntimeError: the synthesis failed for another reason than findings.
    """
    for pack in PACKS:
        Validations.of(app).add_plugins(pack(app))
    try:
        app.synth()
    except RuntimeError as error:
        if "ValidationFailed" not in str(error):
            raise


def read_report(outdir: Path, stack: str) -> list[Finding]:
    """Return the findings of a synthesis, each once, sorted."""
    report: dict[str, Any] = json.loads((outdir / REPORT).read_text(encoding="utf-8"))
    found = set()
    for plugin in report["pluginReports"]:
        for violation in plugin["violations"]:
            name, _, detail = str(violation["ruleName"]).partition("[")
            rule = name.removeprefix(f"{plugin['pluginName']}-")
            for construct in violation["violatingConstructs"]:
                path = str(construct["constructPath"]).removeprefix(f"{stack}/").removesuffix("/Resource")
                found.add(Finding(str(plugin["pluginName"]), rule, detail.removesuffix("]"), path))
    return sorted(found)


def unacknowledged(findings: Iterable[Finding], entries: Iterable[Acknowledgement]) -> list[Finding]:
    """Return the findings that no entry covers."""
    known = list(entries)
    return [finding for finding in findings if not any(entry.covers(finding) for entry in known)]


def unused(findings: Iterable[Finding], entries: Iterable[Acknowledgement]) -> list[tuple[str, str, str]]:
    """Return (rule, resource, detail) of everything that entries excuse and nothing is found of."""
    found = list(findings)
    excused = [(entry, rule, resource) for entry in entries for rule in entry.rules for resource in entry.resources]
    return [
        (rule, resource, entry.detail)
        for entry, rule, resource in excused
        if not any(finding.rule == rule and finding.resource == resource and entry.covers(finding) for finding in found)
    ]
