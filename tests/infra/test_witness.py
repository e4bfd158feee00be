"""The witness for other accounts: its own stack, and the settings on both sides."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attestry.evidence.note import Algorithm, vkey
from infra.config import Config, ConfigError, StackKind
from infra.findings import ACKNOWLEDGED
from infra.nag import read_report, synthesise_with_packs, unacknowledged
from infra.stack import build_app
from infra.witness import STACK_NAME
from infra.witness_config import COSIGNATURE, ED25519, vkey_name
from tests.infra.conftest import SOURCE_ONLY, WITNESS_FUNCTION, WITNESS_KEY, WITNESS_NAME, WITNESSES, Synthesis
from tests.infra.template import ACCOUNT, REGION, Template, listed

ORIGIN = "attestry/210987654321/eu-west-1/registry-two"
LOG, SUCCESSOR = vkey(ORIGIN, bytes(range(32))), vkey(ORIGIN, bytes(range(1, 33)))
pytestmark = pytest.mark.xdist_group("synthesis")


@pytest.fixture(scope="module")
def outdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("witness")
    synthesise_with_packs(build_app({**SOURCE_ONLY, "attestry:stack": "witness", "attestry:witnessLogs": [LOG, SUCCESSOR]}, str(made)))
    return made


@pytest.fixture(scope="module")
def witness(outdir: Path) -> Template:
    return Template((outdir / f"{STACK_NAME}.template.json").read_text())


def test_it_is_a_function_with_table_and_key_and_nothing_else(witness: Template) -> None:
    kinds = {resource["Type"] for resource in witness.raw["Resources"].values()}
    own = {"AWS::DynamoDB::Table", "AWS::IAM::Role", "AWS::KMS::Alias", "AWS::KMS::Key", "AWS::Lambda::Function", "AWS::Logs::LogGroup"}
    assert kinds == {*own, "AWS::Lambda::Permission"}
    (table,) = witness.of_type("AWS::DynamoDB::Table").values()
    assert (table["BillingMode"], table["DeletionProtectionEnabled"]) == ("PAY_PER_REQUEST", True)
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"]["SSEType"] == "KMS"


def test_the_sequencer_of_the_ledger_s_account_may_invoke_it_and_nobody_else(witness: Template) -> None:
    (permission,) = witness.of_type("AWS::Lambda::Permission").values()
    assert permission["Principal"] == "arn:aws:iam::210987654321:role/registry-two-sequence-function"
    assert permission["Action"] == "lambda:InvokeFunction"


def test_it_knows_the_ledger_by_its_key_and_signs_under_its_own_name(witness: Template) -> None:
    (function,) = witness.of_type("AWS::Lambda::Function").values()
    told = function["Environment"]["Variables"]
    assert json.loads(told["ATTESTRY_WITNESS_LOGS"]) == {ORIGIN: [LOG, SUCCESSOR]}
    assert told["ATTESTRY_WITNESS_NAME"] == f"attestry/{ACCOUNT}/{REGION}/attestry/witness"
    assert set(witness.raw["Outputs"]) == {"WitnessFunctionArn", "WitnessKeyArn", "WitnessName"}


def test_its_key_signs_for_its_own_role_alone(witness: Template) -> None:
    (policy,) = [p for p in witness.policies() if p.kind == "key" and any("kms:Sign" in listed(s["Action"]) for s in p.statements)]
    signing = [s for s in policy.statements if "kms:Sign" in listed(s["Action"])]
    assert [s["Principal"] for s in signing] == [{"AWS": f"arn:aws:iam::{ACCOUNT}:role/attestry-witness-function"}]


def test_nag_packs_find_nothing_that_the_built_in_one_has_no_reason_for(outdir: Path) -> None:
    entries = [
        replace(entry, resources=tuple(resource.removeprefix("Functions/") for resource in entry.resources)) for entry in ACKNOWLEDGED
    ]
    assert unacknowledged(read_report(outdir, STACK_NAME), entries) == []


def test_cfn_lint_finds_nothing_in_it(outdir: Path) -> None:
    linter = Path(sys.executable).parent / "cfn-lint"
    command = [str(linter), "--include-checks", "W", "--", str(outdir / f"{STACK_NAME}.template.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_registry_asks_its_own_witness_and_those_that_are_configured(all_options: Synthesis) -> None:
    watched = all_options.template
    (function,) = [f for f in watched.of_type("AWS::Lambda::Function").values() if f["FunctionName"] == "attestry-sequence"]
    own = {"name": f"attestry/{ACCOUNT}/{REGION}/attestry/witness", "function": "attestry-witness", "vkey": "", "outside": False}
    assert json.loads(function["Environment"]["Variables"]["ATTESTRY_WITNESSES"]) == [own, {**WITNESSES[0], "outside": True}]
    statements = watched.role_policies("attestry-sequence-function")
    invoked = [r for s in statements if "lambda:InvokeFunction" in listed(s["Action"]) for r in listed(s["Resource"])]
    own_functions = [f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:attestry-{name}" for name in ("tell", "witness")]
    assert sorted(invoked) == sorted([WITNESS_FUNCTION, *own_functions])


def test_both_sides_understand_the_same_settings() -> None:
    text = Config.from_context({"attestry:witnesses": json.dumps(WITNESSES), "attestry:witnessLogs": LOG, "attestry:stack": "witness"})
    values = Config.from_context({"attestry:witnesses": WITNESSES, "attestry:witnessLogs": [LOG], "attestry:stack": "witness"})
    assert text == values
    assert text.stack is StackKind.WITNESS
    (log,) = text.witness_logs
    assert (log.name, log.account, log.prefix) == (ORIGIN, "210987654321", "registry-two")


def test_a_vkey_is_read_as_the_registry_reads_it() -> None:
    assert vkey_name(LOG, ED25519) == ORIGIN
    assert vkey_name(WITNESS_KEY, COSIGNATURE) == WITNESS_NAME


def _with_byte(text: str) -> str:
    """Return a vkey whose key has another last byte, and whose digits are those of before."""
    name, digits, key = text.split("+", 2)
    raw = bytearray(base64.b64decode(key))
    raw[-1] ^= 1
    return f"{name}+{digits}+{base64.b64encode(raw).decode()}"


def _short(name: str) -> str:
    key = bytes([1]) + bytes(31)
    return f"{name}+{hashlib.sha256(name.encode() + bytes([10]) + key).hexdigest()[:8]}+{base64.b64encode(key).decode()}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stack", "witnesses"),
        ("stack", "witness"),
        ("witnessLogs", "no vkey"),
        ("witnessLogs", [_with_byte(LOG)]),
        ("witnessLogs", [_short(ORIGIN)]),
        ("witnessLogs", [LOG, LOG]),
        ("witnessLogs", [vkey("example.org/log", bytes(32))]),
        ("witnessLogs", [vkey(ORIGIN, bytes(32), Algorithm.COSIGNATURE)]),
        ("witnesses", [{**WITNESSES[0], "vkey": LOG}]),
        ("witnesses", [{**WITNESSES[0], "vkey": vkey(WITNESS_NAME, bytes(32))}]),
        ("witnesses", [{**WITNESSES[0], "name": "somebody"}]),
        ("witnesses", [{**WITNESSES[0], "function": "attestry-witness"}]),
        ("witnesses", [{**WITNESSES[0], "more": "x"}]),
        ("witnesses", [{**WITNESSES[0], "function": 5}]),
        ("witnesses", [*WITNESSES, *WITNESSES]),
        ("witnesses", "{"),
        ("witnesses", "x"),
        ("ledgerFormerKeys", [WITNESS_KEY]),
        ("signedApprovalTiers", "high,extreme"),
    ],
)
def test_a_setting_about_witnesses_and_evidence_that_cannot_be_used_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"attestry:{'witnessLogs' if (key, value) == ('stack', 'witness') else key}"):
        Config.from_context({f"attestry:{key}": value})
