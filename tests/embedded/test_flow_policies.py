"""A registry policy on the embedded AWS: published, kept by the version that was held against it, and proven from the version's bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attestry.domain.policies import Policy
from attestry.evidence.bundle import policy_file, read_bundle
from tests.embedded.flows import POLICY, ROOT, Registry, until
from tests.evidence_world import rewrite

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

FILE = policy_file("examples", 1)
KEPT = "in force when it was registered: the manifest asks for no less; 2 approvals and placings have what they ask for"


@pytest.fixture(scope="module")
def bundle(registry: Registry, deployed: tuple[str, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version's bundle, as an auditor takes it once the ledger has everything that happened to the version."""
    model, number = deployed
    file = tmp_path_factory.mktemp("bundles") / "bundle.zip"

    def whole() -> bool:
        registry.invoke("sequence", {})
        fetched = registry.attestry("grace", "bundle", f"{model}@{number}", "--output", str(file), "--json")
        return json.loads(fetched.stdout)["pending"] == 0

    until(whole, "the ledger had every event of the version", 60)
    return file


def verified(registry: Registry, bundle: Path) -> dict[str, Any]:
    """What `attestry-verify` says of a bundle, given that and the pinned root: no AWS, no credentials."""
    command = [sys.executable, "-m", "attestry.verifier", str(bundle), "--root", str(registry.stack.root_pin), "--json"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def step(verification: dict[str, Any]) -> tuple[str, str]:
    """Outcome and detail of what the verifier says of policies."""
    found = next(step for step in verification["steps"] if step["step"] == "policies")
    return found["outcome"], found["detail"]


def test_a_version_that_kept_the_registry_s_policy_is_proven_from_its_bundle(
    registry: Registry, policy: dict[str, Any], bundle: Path
) -> None:
    verification = verified(registry, bundle)
    assert verification["verdict"] == "PROVEN", verification["reason"]
    assert step(verification) == ("passed", f"examples edition 1 ({policy['sha256'][:16]}), {KEPT}")
    assert read_bundle(bundle.read_bytes()).files[FILE] == Policy.from_mapping(POLICY).to_bytes()


def test_a_bundle_whose_policy_asks_for_less_than_the_registry_s_is_broken(registry: Registry, bundle: Path, tmp_path: Path) -> None:
    laxer = tmp_path / "laxer.zip"
    laxer.write_bytes(rewrite(bundle.read_bytes(), {FILE: Policy.from_mapping({**POLICY, "rules": []}).to_bytes()}))
    verification = verified(registry, laxer)
    assert verification["verdict"] == "BROKEN"
    assert step(verification)[0] == "failed"
    assert "another document than the one that the registration names" in step(verification)[1]
