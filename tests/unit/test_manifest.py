"""The manifest: content, canonical form, drafts and round trips."""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.domain.manifest import Manifest, complete_manifest, read_manifest
from attestry.domain.manifest_schema import describe_field, load_schema
from attestry.domain.manifest_source import MAX_SAFE_INTEGER, normalise_number
from attestry.domain.metrics import METRIC_FUNCTIONS
from tests.unit.manifest_samples import COMPLETE, as_json, as_yaml, changed, problems_of, read, rules_of

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "manifests").glob("*/manifest.yaml"))


def test_the_candidate_id_is_the_digest_of_the_canonical_form() -> None:
    document = read(COMPLETE)
    assert document.canonical_bytes == rfc8785.dumps(COMPLETE)
    assert document.candidate_id == hashlib.sha256(document.canonical_bytes).hexdigest()


def test_a_registered_manifest_read_back_is_equal() -> None:
    document = read(COMPLETE)
    again = read_manifest(document.canonical_bytes)
    assert again == document
    assert again.manifest == document.manifest
    assert Manifest.from_mapping(json.loads(document.canonical_bytes)) == document.manifest


def test_the_typed_manifest_goes_to_a_mapping_and_back_with_defaults_filled_in() -> None:
    manifest = read(COMPLETE).manifest
    mapping = manifest.to_mapping()
    assert mapping["training"]["resources"] == {"memory_mib": 2048, "timeout_seconds": 600}
    assert Manifest.from_mapping(mapping) == manifest
    assert read(mapping).manifest == manifest


def test_the_typed_manifest_has_the_settings_of_each_stage() -> None:
    manifest = read(COMPLETE).manifest
    assert manifest.training.hyperparameters == {"C": 0.1, "max_iter": 200, "scale": True, "solver": "lbfgs"}
    assert [metric.key for metric in manifest.validation.metrics] == ["roc_auc_score", "recall"]
    assert manifest.data.preparation[0].parameters["by"] == ("a", "b")
    assert manifest.data.source[0].file_name == "loans.csv"
    assert manifest.data.source[0].is_uploaded
    assert manifest.scripts == {
        "processing.script": "process.py",
        "training.script": "train.py",
        "validation.script": "inference.py",
        "environment.lock_file": "requirements.lock",
        "data.preparation[0].script": "process.py",
    }


def test_whole_numbers_are_the_same_with_and_without_a_fraction() -> None:
    one, other = changed("training.hyperparameters.max_iter", 200), changed("training.hyperparameters.max_iter", 200.0)
    assert read(one).candidate_id == read(other).candidate_id


SCALARS = (
    st.booleans()
    | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
    | st.floats(-1e12, 1e12).map(lambda number: normalise_number(number)[0])
    | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)
)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,10}", fullmatch=True)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES, SCALARS, max_size=8), st.randoms(use_true_random=False))
def test_the_canonical_form_knows_no_format_and_no_order_of_keys(parameters: dict[str, Any], shuffler: random.Random) -> None:
    mapping = changed("training.hyperparameters", parameters)
    document = read(mapping)
    assert document.manifest.training.hyperparameters == parameters
    assert {k: type(v) for k, v in document.manifest.training.hyperparameters.items()} == {k: type(v) for k, v in parameters.items()}
    for raw in (as_yaml(mapping), as_json(shuffled(mapping, shuffler)), as_yaml(shuffled(mapping, shuffler)), document.canonical_bytes):
        again = read_manifest(raw)
        assert again.candidate_id == document.candidate_id
        assert again.manifest == document.manifest


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=40), st.sampled_from(["model.name", "source.revision", "source.repository", "processing.script", "data.source.0.uri"])
)
def test_whatever_stands_in_a_named_field_is_safe_once_it_is_accepted(text: str, field: str) -> None:
    if problems_of(changed(field, text)):
        return
    assert not re.search(r"[\x00-\x1f\\]|(^|/)\.\.(/|$)", text)
    assert field == "source.repository" or not text.startswith("/")


def shuffled(value: Any, shuffler: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        shuffler.shuffle(keys)
        return {key: shuffled(value[key], shuffler) for key in keys}
    return [shuffled(item, shuffler) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.name", "Credit", ("model.name", "pattern")),
        ("model.name", "../credit", ("model.name", "pattern")),
        ("model.name", "credit\n", ("model.name", "pattern")),
        ("model.name", "a" * 64, ("model.name", "length")),
        ("model.name", "-credit", ("model.name", "pattern")),
        ("model.risk_tier", "huge", ("model.risk_tier", "one_of")),
        ("model.owner", "", ("model.owner", "length")),
        ("model.purpose", None, ("model.purpose", "type")),
        ("model.size", 3, ("model.size", "unknown_field")),
        ("environments", {}, ("environments", "unknown_field")),
        ("format", 2, ("format", "one_of")),
        ("source.revision", "9fceb02", ("source.revision", "pattern")),
        ("source.revision", "main", ("source.revision", "pattern")),
        ("source.repository", "https://dana:secret@git.example.com/x", ("source.repository", "no_credentials")),
        ("source.repository", "https://token@git.example.com/x", ("source.repository", "no_credentials")),
        ("source.repository", "not a url", ("source.repository", "pattern")),
        ("source.archive", "../source.tar.gz", ("source.archive", "pattern")),
        ("environment.framework.version", 1.9, ("environment.framework.version", "type")),
        ("environment.framework.version", ">=1.9", ("environment.framework.version", "pattern")),
        ("environment.framework.version", "1.*", ("environment.framework.version", "pattern")),
        ("environment.framework.version", "latest", ("environment.framework.version", "pattern")),
        ("environment.container", "registry/image:latest", ("environment.container", "pattern")),
        ("environment.lock_file", "/etc/requirements.lock", ("environment.lock_file", "path_relative")),
        ("data.source.0.uri", "data/../loans.csv", ("data.source[0].uri", "pattern")),
        ("data.source.0.uri", "/data/loans.csv", ("data.source[0].uri", "pattern")),
        ("data.source.0.uri", "data/..", ("data.source[0].uri", "path_no_parent")),
        ("data.source.0.uri", "https://example.com/loans.csv", ("data.source[0].uri", "pattern")),
        ("data.source.0.version_id", "abc", ("data.source[0].version_id", "s3_only")),
        ("data.source", [], ("data.source", "length")),
        ("data.holdout.channel", "train", ("data.holdout.channel", "unique")),
        ("data.training.channel", "source", ("data.training.channel", "reserved")),
        ("data.preparation.0.kind", "magic", ("data.preparation[0].kind", "one_of")),
        ("data.preparation.0.script", "a\\b.py", ("data.preparation[0].script", "path_no_backslash")),
        ("processing.script", "../process.py", ("processing.script", "path_no_parent")),
        ("processing.script", "pro\0cess.py", ("processing.script", "text")),
        ("processing.script", "process.sh", ("processing.script", "pattern")),
        ("processing.parameters", {"bad name": 1}, ("processing.parameters.bad name", "name")),
        ("processing.parameters", {"--x": 1}, ("processing.parameters.--x", "name")),
        ("training.executor", "kubernetes", ("training.executor", "one_of")),
        ("training.hyperparameters.grid", [1, 2], ("training.hyperparameters.grid", "type")),
        ("training.hyperparameters.deep", {"a": 1}, ("training.hyperparameters.deep", "type")),
        ("training.hyperparameters.nothing", None, ("training.hyperparameters.nothing", "type")),
        ("training.resources", {"timeout_seconds": 900}, ("training.resources.timeout_seconds", "executor")),
        ("training.resources", {"memory_mib": 20000}, ("training.resources.memory_mib", "executor")),
        ("training.resources", {"gpu": 1}, ("training.resources.gpu", "executor")),
        ("training.container", "r.example.com/i@sha256:" + "a" * 64, ("training.container", "executor")),
        ("training.executor", "batch", ("environment.container", "required")),
        ("training.resources", {"spot": True}, ("training.resources.spot", "executor")),
        ("training.resources", {"volume_gib": 0}, ("training.resources.volume_gib", "minimum")),
        ("training.script", "train.R", ("training.script", "executor")),
        ("training.script", "train.sh", ("training.script", "pattern")),
        ("validation.metrics.0.name", "roc_auc", ("validation.metrics[0].name", "one_of")),
        ("validation.metrics.0.name", "r2_score", ("validation.metrics[0].name", "task")),
        ("validation.metrics.1.alias", "roc_auc_score", ("validation.metrics[1].alias", "unique")),
        ("validation.columns", {"prediction": "label"}, ("validation.columns.score", "required")),
        ("gates.metrics.0.metric", "auc", ("gates.metrics[0].metric", "declared")),
        ("gates.metrics.0", {"metric": "recall"}, ("gates.metrics[0].minimum", "required")),
        ("gates.metrics.0", {"metric": "recall", "minimum": 2, "maximum": 1}, ("gates.metrics[0].maximum", "order")),
        ("gates.no_worse_than_deployed.0.by_more_than", -1, ("gates.no_worse_than_deployed[0].by_more_than", "minimum")),
        ("gates.required.0", "model.lables", ("gates.required[0]", "known_field")),
        ("gates.required.0", "data.source.licence", ("gates.required[0]", "known_field")),
        ("gates.required.0", "data.source[].licence", ("gates.required[0]", "filled_in")),
        ("model.labels", {}, ("gates.required[0]", "filled_in")),
        ("validation.metrics.1.parameters", {"averag": "macro"}, ("validation.metrics[1].parameters.averag", "known_parameter")),
        ("validation.metrics.1.parameters", {"average": "marco"}, ("validation.metrics[1].parameters.average", "parameter_value")),
        ("validation.metrics.1.parameters", {"average": True}, ("validation.metrics[1].parameters.average", "parameter_value")),
        ("validation.metrics.1.name", "fbeta_score", ("validation.metrics[1].parameters.beta", "required")),
        ("approval", {}, ("approval", "one_of")),
        ("approval", {"automatic": True, "people": {"roles": ["approver"]}}, ("approval", "one_of")),
        ("approval.people.roles", ["aprover"], ("approval.people.roles[0]", "one_of")),
        ("approval.people.count", 0, ("approval.people.count", "minimum")),
        ("deployment.capture_rate", 1.5, ("deployment.capture_rate", "maximum")),
        ("deployment.memory_mib", 64, ("deployment.memory_mib", "minimum")),
        ("reproduction", {"bit_equal": False}, ("reproduction.tolerance", "required")),
        ("reproduction", {"bit_equal": True, "tolerance": 1}, ("reproduction.tolerance", "not_with")),
        ("approval", {"automatic": True, "signed": True}, ("approval.signed", "not_with")),
        ("approval", {"people": {"count": 1}}, ("approval.people", "one_of")),
        ("approval", {"people": {"roles": ["approver"], "require": [{"role": "approver"}]}}, ("approval.people", "one_of")),
        ("approval", {"people": {"count": 2, "require": [{"role": "approver"}]}}, ("approval.people.count", "not_with")),
        ("approval.people.in_order", True, ("approval.people.in_order", "not_with")),
        (
            "approval.people",
            {"require": [{"role": "approver"}, {"role": "approver", "count": 2}]},
            ("approval.people.require[1].role", "unique"),
        ),
        (
            "approval.people",
            {"require": [{"role": "approver", "count": 10}, {"role": "validator"}]},
            ("approval.people.require", "maximum"),
        ),
        ("approval.people", {"require": [{"role": "scientist"}]}, ("approval.people.require[0].role", "one_of")),
        ("approval.valid_days", 0, ("approval.valid_days", "minimum")),
        ("approval.until", "2027-02-30", ("approval.until", "date")),
        ("approval.until", "soon", ("approval.until", "pattern")),
        ("approval.on_lapse", "explode", ("approval.on_lapse", "one_of")),
        ("deployment.expires", "2027-13-01", ("deployment.expires", "date")),
        ("deployment.expires", 0, ("deployment.expires", "minimum")),
        ("refresh", {"schedule": "hourly"}, ("refresh.schedule", "schedule")),
        ("refresh", {"quiet_seconds": 5}, ("refresh.quiet_seconds", "not_with")),
        ("refresh", {"deploy": "automatic"}, ("refresh.deploy", "automatic_approval")),
        ("refresh", {"cooldown": "soon"}, ("refresh.cooldown", "pattern")),
        ("refresh", {"alarm": ["drift"]}, ("refresh.alarm", "unknown_field")),
        ("reproduction.bit_equal", "yes", ("reproduction.bit_equal", "type")),
    ],
)
def test_a_field_that_breaks_a_rule_is_named_with_the_rule(path: str, value: object, expected: tuple[str, str]) -> None:
    assert expected in rules_of(changed(path, value))


@pytest.mark.parametrize(
    "path",
    [
        "source.revision",
        "source",
        "model.owner",
        "environment.framework.version",
        "environment.lock_file",
        "data.label.version",
        "approval",
    ],
)
def test_a_required_field_that_is_missing_is_named(path: str) -> None:
    assert (path, "required") in rules_of(changed(path, remove=True))


def test_two_data_files_whose_names_fall_together_are_refused() -> None:
    sources = [dict(COMPLETE["data"]["source"][0], name=n, uri=u) for n, u in (("a", "data/Loans.csv"), ("b", "s3://bucket/x/loans.csv"))]
    assert rules_of(changed("data.source", sources)) == [("data.source[1].uri", "unique")]


def test_automatic_approval_needs_a_metric_gate() -> None:
    mapping = changed("approval", {"automatic": True})
    assert rules_of(mapping) == []
    mapping["gates"] = {}
    assert rules_of(mapping) == [("gates.metrics", "automatic_needs_gate")]


def test_all_problems_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = as_yaml(COMPLETE).decode()
    text = text.replace("risk_tier: high", "risk_tear: high").replace('revision: "9f', 'revision: "xx').replace("C: 0.1", "C: .inf")
    text = text.replace("bit_equal: true", "bit_equal: yes").replace("memory_mib: 1024", "memory_mib: 1").replace("train.py", "../train.py")
    problems = problems_of(text.encode())
    assert [(p.field, p.rule) for p in problems] == [
        ("model.risk_tier", "required"),
        ("model.risk_tear", "unknown_field"),
        ("source.revision", "pattern"),
        ("training.script", "path_no_parent"),
        ("training.hyperparameters.C", "finite"),
        ("deployment.memory_mib", "minimum"),
        ("reproduction.bit_equal", "type"),
    ]
    lines = text.splitlines()
    for problem in problems:
        assert problem.line is not None
        assert problem.rule == "required" or f"{problem.field.rsplit('.', 1)[-1]}:" in lines[problem.line - 1]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.risk_tear", "high", "did you mean 'risk_tier'?"),
        ("validation.metrics.0.name", "roc_auc", "did you mean 'roc_auc_score'?"),
        ("gates.required.0", "model.lables", "did you mean 'model.labels'?"),
        ("gates.required.0", "data.source.licence", "did you mean 'data.source[].licence'?"),
        ("gates.metrics.0.metric", "roc_auc", "did you mean 'roc_auc_score'?"),
        ("validation.metrics.1.parameters", {"averag": "macro"}, "did you mean 'average'?"),
        ("validation.metrics.1.parameters", {"average": "marco"}, "did you mean 'macro'?"),
        ("environment.framework.version", 1.9, 'put 1.9 in quotes: "1.9"'),
        ("reproduction.bit_equal", "yes", "text in YAML 1.2"),
        ("deployment.capture_rate", 7, "is 7; must be at most 1"),
        ("source.revision", "main", "No branch, tag or short ID"),
        ("model.purpose", None, "has no value"),
    ],
)
def test_a_message_says_what_is_allowed(path: str, value: object, said: str) -> None:
    assert any(said in problem.message for problem in problems_of(as_yaml(changed(path, value))))


def test_of_very_many_problems_the_first_hundred_are_told() -> None:
    assert len(problems_of(b"x: 1\n" * 5000)) == 100
    many = problems_of({f"x{i}": 1 for i in range(500)})
    assert len(many) == 101
    assert many[-1].rule == "more"


def test_a_password_in_a_url_is_never_repeated() -> None:
    for url in ("https://dana:hunter2@git.example.com/x y", "https://dana:hunter2@git.example.com/x"):
        problems = problems_of(changed("source.repository", url))
        assert problems
        assert all("hunter2" not in problem.message for problem in problems)


@pytest.mark.parametrize("raw", [b"[]", b"just text", b"3", b"- a\n- b"])
def test_a_text_that_is_no_mapping_is_refused(raw: bytes) -> None:
    assert rules_of(raw) == [("", "mapping")]


class TestDrafts:
    DRAFT = changed("source", remove=True)

    def test_a_draft_may_leave_out_what_submitting_fills_in(self) -> None:
        del (draft := json.loads(as_json(self.DRAFT)))["data"]["source"][0]["sha256"]
        assert rules_of(draft, draft=True) == []
        assert rules_of(draft) == [("source", "required"), ("data.source[0].sha256", "required")]

    def test_a_draft_may_leave_out_nothing_else(self) -> None:
        assert rules_of(changed("model.owner", remove=True), draft=True) == [("model.owner", "required")]

    def test_the_digest_of_data_in_s3_is_needed_in_a_draft_too(self) -> None:
        mapping = changed("data.source.0", {"name": "loans", "uri": "s3://bucket/loans.csv", "origin": "Loan book"})
        assert rules_of(mapping, draft=True) == [("data.source[0].sha256", "required")]

    def fill(self, mapping: dict[str, Any], **changes: Any) -> dict[str, Any]:
        found = {
            "revision": "ab" * 20,
            "author": "dana",
            "repository": "https://git.example.com/x",
            "archive_sha256": "cd" * 32,
            "data_sha256s": {"data/loans.csv": "5c" * 32},
        }
        return complete_manifest(mapping, **{**found, **changes})

    def test_a_completed_draft_is_a_manifest(self) -> None:
        mapping = self.fill(self.DRAFT, diff_sha256="ef" * 32)
        manifest = read(mapping).manifest
        assert manifest.source.revision == "ab" * 20
        assert manifest.source.dirty is not None
        assert manifest.source.dirty.diff_sha256 == "ef" * 32

    def test_what_a_draft_states_of_author_and_repository_is_kept(self) -> None:
        mapping = self.fill({**self.DRAFT, "source": {"author": "erin"}})
        assert mapping["source"]["author"] == "erin"
        assert mapping["source"]["repository"] == "https://git.example.com/x"

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"data_sha256s": {"data/loans.csv": "00" * 32}}, "data.source[0].sha256"),
            ({"archive_sha256": "11" * 32}, "source.sha256"),
            ({"revision": "ab" * 20}, "source.revision"),
        ],
    )
    def test_what_a_draft_states_of_revision_and_digests_must_be_so(self, changes: dict[str, Any], field: str) -> None:
        stated = {"revision": COMPLETE["source"]["revision"], "archive_sha256": COMPLETE["source"]["sha256"]}
        with pytest.raises(InvalidInputError) as error:
            self.fill(COMPLETE, **{**stated, **changes})
        assert [(p.field, p.rule) for p in error.value.problems] == [(field, "as_found")]

    def test_an_uploaded_file_that_was_not_found_is_named(self) -> None:
        mapping = changed("data.source.0.sha256", remove=True)
        with pytest.raises(InvalidInputError) as error:
            self.fill({**mapping, "source": {}}, data_sha256s={})
        assert error.value.problems[0].field == "data.source[0].sha256"

    def test_an_incomplete_draft_gives_no_typed_manifest(self) -> None:
        with pytest.raises(InvalidInputError):
            _ = read(self.DRAFT, draft=True).manifest


class TestSchema:
    def test_the_published_schema_is_the_one_in_the_package(self) -> None:
        published = ROOT / "manifests" / "manifest.schema.json"
        assert published.read_bytes() == (ROOT / "attestry" / "schemas" / "manifest.schema.json").read_bytes()

    def test_every_field_has_title_description_and_examples(self) -> None:
        for name, node in fields_of(load_schema()):
            assert node.get("title"), name
            assert str(node.get("description", "")).endswith("."), name
            assert node.get("examples") or node.get("properties"), name

    def test_every_mapping_refuses_unknown_fields_or_says_what_they_are(self) -> None:
        for name, node in fields_of(load_schema()):
            if "properties" in (resolved := {**describe_field(path_of(name)), **node} if name else node):
                assert resolved["additionalProperties"] is False, name

    def test_examples_of_fields_keep_the_rules_of_their_field(self) -> None:
        for name, node in fields_of(load_schema()):
            if not name or "[]" in name or "properties" in (describe_field(path_of(name)) or {}):
                continue
            for example in node["examples"]:
                mine = [p for p in problems_of(changed_or_added(name, example)) if p.field.startswith(name) and p.rule in SCHEMA_RULES]
                assert mine == [], name

    def test_the_schema_names_exactly_the_metrics_that_can_be_computed(self) -> None:
        node = describe_field(("validation", "metrics", 0, "name"))
        assert node is not None
        assert node["enum"] == list(METRIC_FUNCTIONS)


SCHEMA_RULES = {"pattern", "type", "one_of", "length", "minimum", "maximum", "name"}


def fields_of(node: dict[str, Any], name: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(name, node)]
    for key, child in node.get("properties", {}).items():
        found += fields_of(child, f"{name}.{key}" if name else key)
    if "properties" in node.get("items", {}):
        found += fields_of(node["items"], f"{name}[]")
    return found


def path_of(name: str) -> list[str | int]:
    return [0 if part == "[]" else part for part in re.findall(r"\[\]|[^.\[\]]+", name)]


def changed_or_added(name: str, value: object) -> dict[str, Any]:
    mapping = json.loads(as_json(COMPLETE))
    *parents, last = name.split(".")
    node = mapping
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return mapping


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
class TestExamples:
    def test_the_example_is_a_draft_that_can_be_completed(self, path: Path) -> None:
        document = read_manifest(path.read_bytes(), draft=True)
        uris = {item["uri"]: "ab" * 32 for item in document.mapping["data"]["source"]}
        mapping = complete_manifest(
            document.mapping, revision="a" * 40, author="dana", repository="https://x.example/y", archive_sha256="0" * 64, data_sha256s=uris
        )
        manifest = read(mapping).manifest
        assert manifest.model.name == path.parent.name

    def test_every_script_that_it_names_is_there_and_short_enough_to_read(self, path: Path) -> None:
        document = read_manifest(path.read_bytes(), draft=True)
        for stage in ("processing", "training", "validation"):
            lines = (path.parent / document.mapping[stage]["script"]).read_text().splitlines()
            assert 10 <= len(lines) <= 60

    def test_the_lock_file_pins_the_framework_that_it_names_with_hashes(self, path: Path) -> None:
        environment = read_manifest(path.read_bytes(), draft=True).mapping["environment"]
        lock = (path.parent / environment["lock_file"]).read_text()
        framework = environment["framework"]
        assert f"{framework['name']}=={framework['version']} \\\n    --hash=sha256:" in lock

    def test_a_preparation_step_has_the_parameters_that_the_stage_runs_with(self, path: Path) -> None:
        mapping = read_manifest(path.read_bytes(), draft=True).mapping
        split = next(step for step in mapping["data"]["preparation"] if step["kind"] == "split")
        for name in ("holdout_share", "seed"):
            assert split["parameters"][name] == mapping["processing"]["parameters"][name]
