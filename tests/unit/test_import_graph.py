"""What each function imports when it starts: a fresh interpreter, an empty environment, and only the packages of the functions' lock file.

A package that is imported costs every cold start; one that is not in the lock file is not there on AWS at all, although the interpreter
that runs these tests has it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "lambdas" / "requirements.lock"
OWN_LOCKS = {"sign_artifact": ROOT / "lambdas" / "sign_artifact.requirements.lock"}
"""Lock files of functions with an archive of their own."""

AWS = frozenset({"botocore", "jmespath", "python-dateutil", "six", "urllib3"})
SIGNATURES = frozenset({"cryptography", "cffi"})
EVENTS = frozenset({"rfc8785"})
TUF = frozenset({"boto3", "s3transfer", "securesystemslib", "tuf"})
"""securesystemslib looks whether boto3 is there, for a signer that is not used here."""

OWN_SIGNATURES = frozenset({"sshsig"})
"""For functions that take decisions of people, or keep their keys."""

METRICS = frozenset({"aws-lambda-powertools"})
METRICS = frozenset({"aws-lambda-powertools"})
"""For functions whose start nobody waits for; see attestry/aws/metrics.py."""

MODEL_SIGNING = frozenset(
    {
        *(
            "annotated-types",
            "blake3",
            "certifi",
            "charset-normalizer",
            "id",
            "idna",
            "in-toto-attestation",
            "model-signing",
            "platformdirs",
        ),
        *("protobuf", "pydantic", "pydantic-core", "pyjwt", "pyopenssl", "requests", "rfc3161-client", "securesystemslib", "sigstore"),
        *("sigstore-models", "sigstore-rekor-types", "tuf", "typing-inspection"),
    }
)
"""Heavy, and in an archive of its own for that."""

POLICIES = frozenset({"cedarpy"})
"""Functions that serve routes import it with their first request; who checks policies before it publishes them has it from the start."""

MANIFESTS = frozenset({"attrs", "jsonschema", "jsonschema-specifications", "pyyaml", "referencing", "rpds-py"})

EXPECTED = {
    "authenticate": AWS | SIGNATURES | EVENTS | frozenset({"joserfc"}),
    "build_environment": AWS | SIGNATURES,
    "catalogue": AWS | SIGNATURES | EVENTS,
    "bundle": AWS | SIGNATURES | EVENTS | TUF,
    "collect": AWS | SIGNATURES | EVENTS | METRICS,
    "console_decision": AWS | SIGNATURES | EVENTS | OWN_SIGNATURES | POLICIES,
    "custody": AWS | SIGNATURES | EVENTS,
    "decide": AWS | SIGNATURES | EVENTS | OWN_SIGNATURES,
    "delegate": AWS | SIGNATURES | EVENTS,
    "deliver": AWS | SIGNATURES | EVENTS | METRICS,
    "deploy": AWS | SIGNATURES | EVENTS | METRICS,
    "describe": EVENTS,
    "evaluate": AWS | SIGNATURES,
    "gate": AWS | SIGNATURES | EVENTS | MANIFESTS | OWN_SIGNATURES,
    "inference": frozenset[str](),
    "mlflow": AWS | SIGNATURES | EVENTS,
    "operate": AWS | SIGNATURES | EVENTS | POLICIES,
    "people": AWS | SIGNATURES | EVENTS | OWN_SIGNATURES | POLICIES,
    "predict": AWS | SIGNATURES | EVENTS,
    "prepare_stage": AWS | SIGNATURES | EVENTS | MANIFESTS,
    "reconcile": AWS | SIGNATURES | EVENTS | MANIFESTS | METRICS | OWN_SIGNATURES | TUF,
    "record_stage": AWS | SIGNATURES | EVENTS | MANIFESTS | METRICS | METRICS,
    "register": AWS | SIGNATURES | EVENTS | MANIFESTS | POLICIES,
    "registry": AWS | SIGNATURES | EVENTS | MANIFESTS,
    "root": AWS | SIGNATURES | EVENTS | TUF,
    "runs": AWS | SIGNATURES | EVENTS,
    "sandbox": frozenset[str](),
    "sequence": AWS | SIGNATURES | EVENTS | METRICS,
    "sign_artifact": AWS | SIGNATURES | EVENTS | TUF | MODEL_SIGNING,
    "sweep": AWS | SIGNATURES | EVENTS | METRICS,
    "tell": AWS | SIGNATURES | EVENTS | METRICS,
    "uploads": AWS | SIGNATURES | EVENTS,
    "webhooks": AWS | SIGNATURES | EVENTS,
    "witness": AWS | SIGNATURES | EVENTS,
}
"""Function to the distributions that its module imports, those that they import themselves included."""

BACKPORTS = frozenset({"typing-extensions"})
"""Imported on older Pythons only."""

PROGRAM = """
import importlib, json, sys

class Refuse:
    "Refuses what is neither the standard library's, nor ours, nor in the lock file."
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"no module {top} on AWS", name=name)

allowed = {"attestry", "lambdas", *json.loads(sys.argv[2])}
before = set(sys.modules)
sys.meta_path.insert(0, Refuse())
importlib.import_module(f"lambdas.{sys.argv[1]}")
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def distributions(lock: Path) -> dict[str, str]:
    """Import name to distribution, of what the lock file names."""
    locked = {normalised(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(), re.MULTILINE)}
    found = {module: {normalised(name) for name in names} for module, names in packages_distributions().items()}
    return {module: next(iter(names & locked)) for module, names in found.items() if names & locked}


def lock_of(function: str) -> Path:
    return OWN_LOCKS.get(function, LOCK)


@cache
def modules_of(function: str) -> frozenset[str]:
    """Return what a fresh interpreter without any environment imports with the function's module."""
    # Bytecode lies where the Makefile has it, or beside the sources: compiling all of botocore takes longer than importing it.
    bytecode = ["-X", f"pycache_prefix={sys.pycache_prefix}"] if sys.pycache_prefix else ["-B"]
    command = [sys.executable, *bytecode, "-c", PROGRAM, function, json.dumps(sorted(distributions(lock_of(function))))]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


def packages_of(function: str) -> set[str]:
    tops, locked = {name.partition(".")[0] for name in modules_of(function)}, distributions(lock_of(function))
    return {locked[top] for top in tops if top in locked} - BACKPORTS


def test_every_function_is_in_the_table() -> None:
    assert {path.stem for path in (ROOT / "lambdas").glob("*.py")} - {"__init__"} == EXPECTED.keys()


@pytest.mark.parametrize("function", EXPECTED)
def test_a_function_imports_exactly_the_packages_of_the_table_and_needs_no_environment_for_it(function: str) -> None:
    assert packages_of(function) == EXPECTED[function]


@pytest.mark.parametrize("function", EXPECTED)
def test_a_function_imports_nothing_of_the_command_line_the_client_or_the_embedded_aws(function: str) -> None:
    foreign = ("attestry.cli", "attestry.client", "attestry.local", "infra", "tests", "benchmarks")
    assert not {name for name in modules_of(function) if name.startswith(foreign)}


@pytest.mark.parametrize("function", ["predict", "delegate"])
def test_the_signing_path_starts_without_what_only_manifests_or_operators_need(function: str) -> None:
    heavy = ("aws_lambda_powertools", "jsonschema", "yaml", "joserfc", "attestry.domain.manifest", "attestry.domain.archive")
    assert not {name for name in modules_of(function) if name.startswith(heavy)}


@pytest.mark.parametrize("function", ["sandbox", "inference"])
def test_what_runs_beside_registered_code_imports_our_sandbox_and_the_standard_library_alone(function: str) -> None:
    ours = {name for name in modules_of(function) if name.startswith(("attestry", "lambdas"))}
    rest = modules_of(function) - ours
    assert {name.partition(".")[0] for name in rest} <= set(sys.stdlib_module_names)
    assert all(name in ("attestry", "lambdas", f"lambdas.{function}") or name.startswith("attestry.sandbox") for name in ours)


def test_a_function_imports_no_other_function() -> None:
    for function in EXPECTED:
        assert {name for name in modules_of(function) if name.startswith("lambdas.")} == {f"lambdas.{function}"}
