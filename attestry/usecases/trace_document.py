"""The trace document: what is known about a prediction, every field graded.

Grades:
- `verified`: recomputed from bytes in this trace, in an unbroken chain from the receipt's signature: the receipt names the version
  digest, that is the digest of the artifact manifest, which names the manifest, the data sets, the environment and every file.
- `attested`: recorded by a role of the registry, in a record whose digest its transition rests on.
- `claimed`: said by the submitter or a script; the registry could not know. The revision is such a claim: the source archive's bytes are
  verified, but that they are what the repository has at that revision is only said, since the registry does not reach the repository.

Where a step of the chain failed, nothing that hangs on it is graded `verified`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attestry.domain.manifest import Manifest
from attestry.domain.replay import PLACINGS
from attestry.domain.validations import RECORDED
from attestry.domain.version import DataSet, FileRef
from attestry.usecases.import_facts import record_among

if TYPE_CHECKING:
    from attestry.usecases.trace import Evidence

FORMAT = 1
CHAIN = ("delegation", "receipt", "version", "artifact manifest", "manifest")
_STAGES = ("PROCESSING", "TRAINING", "VALIDATION")

Fact = dict[str, Any]


def describe(evidence: Evidence, steps: Sequence[Mapping[str, str]], verdict: str, *, deep: bool) -> dict[str, Any]:
    """Return the document."""
    passed = {s["step"] for s in steps if s["outcome"] == "passed"}
    return _Description(evidence, passed).document(steps, verdict, deep=deep)


class _Description:
    """Builds the document's sections."""

    def __init__(self, evidence: Evidence, passed: set[str]) -> None:
        self._evidence = evidence
        self._passed = passed
        self._records = {stage: self._record(stage) for stage in _STAGES}

    def document(self, steps: Sequence[Mapping[str, str]], verdict: str, *, deep: bool) -> dict[str, Any]:
        manifest = self._evidence.manifest
        sections = self._manifest_sections(manifest) if manifest else self._import_sections()
        return {
            "format": FORMAT,
            "verdict": verdict,
            "deep": deep,
            "steps": [dict(s) for s in steps],
            "prediction": self._prediction(),
            "version": self._version(),
            **sections,
            "runs": [self._run(stage) for stage in _STAGES if self._records[stage]],
            "validation": self._validation(),
            "approvals": self._approvals(),
            "transitions": self._transitions(),
            "reproductions": self._reproductions(),
            "validations": self._validations(),
            "people": self._people(manifest),
        }

    def _record(self, stage: str) -> dict[str, Any]:
        rows = [r for r in self._evidence.of_kind(f"STAGE#{stage}#") if r["status"] == "SUCCEEDED"]
        return dict(json.loads(rows[-1]["record"])) if rows else {}

    def _chained(self, value: Any, *steps: str) -> Fact:
        """Return a fact that is verified when the whole chain and these steps hold."""
        return {"value": value, "grade": "verified" if self._passed >= {*CHAIN, *steps} else "attested"}

    def _recorded(self, value: Any, stage: str) -> Fact:
        return {"value": value, "grade": "attested" if f"record of {stage}" in self._passed else "claimed"}

    def _prediction(self) -> dict[str, Any]:
        evidence = self._evidence
        row, receipt = evidence.row, evidence.receipt
        signed = {"delegation", "receipt"} <= self._passed and receipt is not None
        grade = "verified" if signed else "claimed"
        fields: dict[str, Any] = {
            "prediction_id": {"value": str(evidence.prediction), "grade": grade},
            "key_id": {"value": evidence.prediction.kid, "grade": grade},
            "sequence": {"value": evidence.prediction.sequence, "grade": grade},
            "receipt": {"value": row.get("receipt", ""), "grade": grade},
            "received_at": {"value": row.get("at", ""), "grade": "attested"},
            "captured": {"value": bool(row.get("captured")), "grade": "attested"},
            "caller": {"value": _who(row.get("principal")), "grade": "attested"},
        }
        if receipt is not None:
            fields |= {
                "time_ms": {"value": receipt.time_ms, "grade": grade},
                "request_sha256": {"value": receipt.request_sha256, "grade": grade},
                "output_sha256": {"value": receipt.output_sha256, "grade": grade},
                "output": {"value": receipt.output, "grade": grade},
            }
        delegation = evidence.delegation
        if delegation is not None:
            grant = delegation.grant
            fields["environment"] = {"value": grant.environment, "grade": grade}
            fields["standing"] = {"value": grant.standing, "grade": grade}
            fields["delegated_by"] = {"value": grant.issuer, "grade": grade}
        return fields

    def _version(self) -> dict[str, Any]:
        version = self._evidence.version
        return {
            "model": self._chained(version.model),
            "number": self._chained(version.number),
            "digest": self._chained(version.version_digest),
            "candidate": self._chained(version.candidate),
            "execution_id": self._chained(version.execution_id),
            "cause": {"value": dict(version.cause), "grade": "attested" if "transitions" in self._passed else "claimed"},
            "folder": {"value": version.folder, "grade": "attested"},
            "standing": {"value": version.standing.value, "grade": "attested" if "transitions" in self._passed else "claimed"},
            "artifact": [self._file(f) for f in version.frozen if f.path.startswith("model/")],
            "manifest": self._file(version.manifest),
        }

    def _file(self, file: FileRef) -> Fact:
        value = {"path": file.path, "key": file.key, "version_id": file.version_id, "sha256": file.sha256, "size": file.size}
        return self._chained(value, "frozen files")

    def _manifest_sections(self, manifest: Manifest) -> dict[str, Any]:
        return {
            "model": {k: {"value": v, "grade": "claimed"} for k, v in manifest.to_mapping()["model"].items()},
            "code": self._code(manifest),
            "environment": self._environment(manifest),
            "data": self._data(manifest),
            "settings": self._settings(manifest),
        }

    def _import_sections(self) -> dict[str, Any]:
        """Return what is known of a version that was made elsewhere: its files are verified, everything else is claimed."""
        document = self._evidence.imported
        if document is None:
            return {}
        record = record_among(self._evidence.of_kind("STAGE#IMPORTED#"))
        mlmodel = dict(record.get("claimed", {}).get("mlmodel", {}))
        said = mlmodel.get("reading") or {"problem": mlmodel.get("problem")} if mlmodel else None
        claimed = {name: {"value": value, "grade": "claimed"} for name, value in document.request.claimed.items()}
        return {
            "import": {
                **claimed,
                "submission": self._chained(document.request.submission),
                "files": self._chained(len(document.files), "frozen files"),
                "bytes": self._chained(document.total_bytes, "frozen files"),
                "mlmodel_sha256": self._chained(mlmodel.get("sha256"), "frozen files"),
                # Whoever writes the files writes this one too.
                "mlmodel": {"value": said, "grade": "claimed"},
            }
        }

    def _code(self, manifest: Manifest) -> dict[str, Any]:
        source = manifest.source
        return {
            "repository": {"value": source.repository, "grade": "claimed"},
            "revision": {"value": source.revision, "grade": "claimed"},
            "author": {"value": source.author, "grade": "claimed"},
            "archive_sha256": self._chained(source.sha256, "frozen files"),
            "dirty": {"value": source.dirty is not None, "grade": "claimed"},
            "dirty_diff_sha256": self._chained(source.dirty.diff_sha256 if source.dirty else None),
            "scripts": [
                self._chained({"stage": field.split(".")[0], "path": path})
                for field, path in manifest.scripts.items()
                if field.endswith(".script")
            ],
        }

    def _environment(self, manifest: Manifest) -> dict[str, Any]:
        version = self._evidence.version
        built = version.environment
        packages = list(built.packages) if built else []
        holds = {_requirement(*p.split("==", 1)) for p in packages}
        framework, algorithm = manifest.environment.framework, manifest.environment.algorithm
        has_framework = _requirement(framework.name, framework.version) in holds
        # Which algorithm of a framework a script uses is only said; one that is a package of its own is looked up.
        has_algorithm = _requirement(algorithm.name, algorithm.version) in holds
        return {
            "framework": {
                "value": {"name": framework.name, "version": framework.version},
                "grade": "attested" if has_framework else "claimed",
            },
            "algorithm": {
                "value": {"name": algorithm.name, "version": algorithm.version},
                "grade": "attested" if has_algorithm else "claimed",
            },
            "dependencies": {"value": packages, "grade": "attested"},
            "lock_sha256": self._chained(built.lock_sha256 if built else ""),
            "archive_sha256": self._chained(built.archive.sha256 if built and built.archive else ""),
            "python": self._chained(built.python if built else ""),
            "platform": {"value": built.platform if built else "", "grade": "attested"},
            "container": self._chained(manifest.environment.container),
        }

    def _data(self, manifest: Manifest) -> dict[str, Any]:
        mapping = manifest.to_mapping()["data"]
        label = manifest.data.label
        return {
            "source": [self._source(s, mapping["source"][i]) for i, s in enumerate(manifest.data.source)],
            "training": self._dataset("training"),
            "holdout": self._dataset("holdout"),
            "holdout_labels": self._dataset("holdout-labels"),
            "label": {
                "column": self._chained(label.column),
                "version": {"value": label.version, "grade": "claimed"},
                "source": {"value": label.source, "grade": "claimed"},
                "labeller": {"value": label.labeller, "grade": "claimed"},
            },
            "preparation": [self._claimed_step(step, manifest) for step in mapping["preparation"]],
            "schema": self._recorded([dict(c) for c in self._evidence.version.schema], "PROCESSING"),
        }

    def _claimed_step(self, step: Mapping[str, Any], manifest: Manifest) -> Fact:
        """Return a preparation step: that the script does what the step says is the submitter's word; which script it is, is not."""
        value = {**step, "revision": manifest.source.revision, "archive_sha256": manifest.source.sha256}
        return {"value": value, "grade": "claimed"}

    def _source(self, source: Any, mapping: Mapping[str, Any]) -> dict[str, Any]:
        dataset = next((d for d in self._evidence.version.datasets if d.name == f"source/{source.name}"), None)
        return {
            "name": self._chained(source.name),
            "sha256": self._chained(source.sha256, "data sets"),
            "origin": {"value": source.origin, "grade": "claimed"},
            "uri": {"value": mapping["uri"], "grade": "claimed"},
            "kept_as": {"value": dataset.files[0].to_item() if dataset else None, "grade": "attested"},
        }

    def _dataset(self, name: str) -> dict[str, Any]:
        dataset = next((d for d in self._evidence.version.datasets if d.name == name), DataSet(name, "", ()))
        files = [{"path": f.path, "key": f.key, "version_id": f.version_id, "sha256": f.sha256, "size": f.size} for f in dataset.files]
        if name == "holdout-labels":
            return {"digest": self._recorded(dataset.digest, "PROCESSING"), "files": self._recorded(files, "PROCESSING")}
        return {"digest": self._chained(dataset.digest, "data sets"), "files": self._chained(files, "data sets")}

    def _settings(self, manifest: Manifest) -> dict[str, Any]:
        mapping = manifest.to_mapping()
        chosen = {
            "processing": mapping["processing"],
            "training": mapping["training"],
            "validation": mapping["validation"],
            "gates": mapping["gates"],
            "approval": mapping["approval"],
            "deployment": mapping["deployment"],
            "reproduction": mapping["reproduction"],
        }
        return {
            **{k: self._chained(v) for k, v in chosen.items()},
            "hyperparameters": self._chained(mapping["training"]["hyperparameters"]),
        }

    def _run(self, stage: str) -> dict[str, Any]:
        record = self._records[stage]
        claimed, ran = record["claimed"], record.get("ran")
        job = {} if ran is None else {"job": self._recorded(ran, stage)}
        taken = {"reused_from": self._recorded(record["reused_from"], stage)} if "reused_from" in record else {}
        return {
            **job,
            **taken,
            "stage": self._recorded(stage, stage),
            "attempt": self._recorded(record["attempt"], stage),
            "execution": self._recorded(record["execution"], stage),
            "executor": self._recorded(record["executor"], stage),
            "code": self._recorded(record["code"], stage),
            "environment": self._recorded(record["environment"], stage),
            "container": self._recorded(record["container"], stage),
            "parameters": self._recorded(record["parameters"], stage),
            "inputs": self._recorded(record["inputs"], stage),
            "outputs": self._recorded(record["outputs"], stage),
            "resources": self._recorded(record["resources"], stage),
            "observed_machine": {"value": claimed.get("machine"), "grade": "claimed"},
            "exit_code": self._recorded(ran["exit_code"], stage) if ran else {"value": claimed.get("exit_code"), "grade": "claimed"},
            "outcome": self._recorded(record["outcome"], stage),
            "started": self._recorded(record["started"], stage),
            "ended": self._recorded(record["ended"], stage),
            "ran_by": self._recorded(_who(record["ran_by"]), stage),
            "written_by": self._recorded(_who(record["written_by"]), stage),
            "log": self._recorded(record["log"], stage),
        }

    def _validation(self) -> dict[str, Any]:
        record = self._records["VALIDATION"]
        return {
            "metrics": self._recorded(record.get("metrics", {}), "VALIDATION"),
            "gates": self._recorded(record.get("gates", []), "VALIDATION"),
            "rows": self._recorded(record.get("rows"), "VALIDATION"),
            "compared_with": self._recorded(record.get("compared_with", ""), "VALIDATION"),
            "evaluated_with": self._recorded(record.get("evaluated_with", {}), "VALIDATION"),
        }

    def _approvals(self) -> list[dict[str, Any]]:
        grade = "attested" if "approval" in self._passed else "claimed"
        rows = self._evidence.of_kind("APPROVAL#")
        fields = ("person", "decision", "reason", "at", "version_digest", "policy", "policy_digest", "transition")
        return [
            {**{f: {"value": r[f], "grade": grade} for f in fields}, "principal": {"value": _who(r["principal"]), "grade": grade}}
            for r in rows
        ]

    def _transitions(self) -> list[dict[str, Any]]:
        grade = "attested" if "transitions" in self._passed else "claimed"
        fields = ("number", "from", "to", "kind", "reason", "at", "evidence")
        return [
            {**{f: {"value": t[f], "grade": grade} for f in fields}, "principal": {"value": _who(t["principal"]), "grade": grade}}
            for t in self._evidence.of_kind("TRANSITION#")
        ]

    def _reproductions(self) -> list[dict[str, Any]]:
        """Return how the recipe was run again and what came out, as the moves of the version tell it."""
        grade = "attested" if "transitions" in self._passed else "claimed"
        told = [t for t in self._evidence.of_kind("TRANSITION#") if t["kind"] == "version.reproduced"]
        return [
            {name: {"value": value, "grade": grade} for name, value in {"at": t["at"], **t["data"], "evidence": t["evidence"]}.items()}
            for t in told
        ]

    def _validations(self) -> list[dict[str, Any]]:
        """Return what validators recorded of the version, as its moves tell it."""
        grade = "attested" if "transitions" in self._passed else "claimed"
        told = [t for t in self._evidence.of_kind("TRANSITION#") if t["kind"] == RECORDED]
        return [
            {
                name: {"value": value, "grade": grade}
                for name, value in {"person": t["principal"].get("person"), "at": t["at"], **t["data"]}.items()
            }
            for t in told
        ]

    def _people(self, manifest: Manifest | None) -> dict[str, Any]:
        """Return who ran the job, who wrote the code, who deployed the model, who owns it: four separate answers."""
        version = self._evidence.version
        deployments = [t for t in self._evidence.of_kind("TRANSITION#") if t["kind"] in PLACINGS]
        return {
            "ran_by": {"value": _who(version.submitter.to_item()), "grade": "attested"},
            "code_author": {"value": manifest.source.author if manifest else None, "grade": "claimed"},
            "deployed_by": {"value": _deployer(deployments[-1]) if deployments else None, "grade": "attested"},
            "approved_by": {
                "value": [r["person"] for r in self._evidence.of_kind("APPROVAL#") if r["decision"] == "approve"],
                "grade": "attested",
            },
            "owner": {"value": manifest.model.owner if manifest else None, "grade": "claimed"},
        }


def _deployer(transition: Mapping[str, Any]) -> dict[str, Any]:
    """Return who deployed, on whose approval where the pipeline did it by itself, and who approved the promotion where people did."""
    data = transition.get("data") or {}
    promotion = {"promotion": data["promotion"]} if "promotion" in data else {}
    return {**(_who(transition["principal"]) or {}), "on_approval_of": data.get("approved_by", []), **promotion}


def _requirement(name: str, version: str) -> str:
    """Return `name==version` with the name normalised as PEP 503 has it."""
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def _who(principal: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not principal:
        return None
    return {k: principal.get(k) for k in ("person", "login", "subject", "user_id", "method", "address", "roles")}
