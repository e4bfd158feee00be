"""After a rotation a root of trust names two keys for one thing: the commands of README.md take the one that was valid."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from attestry.evidence.bundle import read_bundle
from attestry.evidence.readme import render_readme
from attestry.evidence.readme_keys import NO_KEY, name_keys
from attestry.evidence.verdict import Verdict
from tests.evidence_world import EvidenceWorld
from tests.independent.test_openssl import _is_openssl

needs_openssl = pytest.mark.skipif(not _is_openssl(), reason="openssl is not installed")


@dataclass
class Rotated:
    """A registry with one prediction before, and one a day after all its keys were rotated."""

    world: EvidenceWorld
    before: bytes
    between: bytes
    after: bytes


@pytest.fixture(scope="module")
def rotated() -> Rotated:
    world = EvidenceWorld()
    world.deploy()
    first = world.predict()
    world.seal()
    before = world.bundle(first)
    world.rotate_keys()
    world.clock.at += timedelta(days=1)
    second = world.predict()
    world.seal()
    return Rotated(world, before, world.bundle(first), world.bundle(second))


def unpack(bundle: bytes, folder: Path) -> Path:
    for name, body in read_bundle(bundle).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def run(folder: Path, *marks: str) -> list[subprocess.CompletedProcess[str]]:
    """Run the blocks of README.md that hold these marks: a script, and the lines behind it."""
    text = (folder / "README.md").read_text()
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    done = []
    for mark in marks:
        block = next(b for b in blocks if mark in b)
        script = "\n".join(line[4:] for line in block.splitlines()).replace("python -", f"{sys.executable} -")
        done.append(subprocess.run(["/bin/sh", "-ec", script], cwd=folder, capture_output=True, text=True, check=False))
    return done


@needs_openssl
@pytest.mark.parametrize("which", ["before", "between", "after"])
def test_the_commands_of_a_bundle_verify_with_the_keys_of_their_time(rotated: Rotated, which: str, tmp_path: Path) -> None:
    bundle: bytes = getattr(rotated, which)
    assert rotated.world.verify(bundle).verdict is Verdict.PROVEN
    keys, checkpoint, prediction = run(unpack(bundle, tmp_path), "mkdir(exist_ok", "checkpoint.txt", "receipt.txt")
    assert keys.returncode == 0, keys.stderr
    assert "Verified Successfully" in checkpoint.stdout, checkpoint.stderr
    assert prediction.stdout.count("Verified") == 2, prediction.stdout + prediction.stderr


@needs_openssl
def test_with_the_other_key_the_same_commands_fail(rotated: Rotated, tmp_path: Path) -> None:
    folder = unpack(rotated.after, tmp_path)
    readme = (folder / "README.md").read_text()
    old, new = name_keys(read_bundle(rotated.before).files), name_keys(read_bundle(rotated.after).files)
    for wrong, right in ((old.ledger, new.ledger), (old.delegator, new.delegator)):
        readme = readme.replace(right.fingerprint, wrong.fingerprint)
    (folder / "README.md").write_text(readme)
    _, checkpoint, prediction = run(folder, "mkdir(exist_ok", "checkpoint.txt", "receipt.txt")
    assert checkpoint.returncode != 0
    assert prediction.returncode != 0


def test_each_bundle_names_the_keys_that_were_valid_for_it(rotated: Rotated) -> None:
    trusted = rotated.world.trusted_root
    before, between, after = (name_keys(read_bundle(b).files) for b in (rotated.before, rotated.between, rotated.after))
    logs, delegators = ([k.fingerprint for k in keys] for keys in (trusted.tlogs, trusted.delegators))
    assert [n.ledger.fingerprint for n in (before, between, after)] == [logs[0], logs[1], logs[1]]
    assert [n.delegator.fingerprint for n in (before, between, after)] == [delegators[0], delegators[0], delegators[1]]
    assert [n.artifact.fingerprint for n in (before, between, after)] == [trusted.artifact_signers[0].fingerprint] * 3
    for bundle, named in ((rotated.between, between), (rotated.after, after)):
        readme = read_bundle(bundle).files["README.md"].decode()
        assert f"--public_key keys/{trusted.artifact_signers[0].fingerprint}.pem" in readme
        assert f'readFileSync("keys/{named.delegator.fingerprint}.pem"' in readme
        assert f"-inkey keys/{trusted.tlogs[1].fingerprint}.pem" in readme


def test_a_delegation_by_a_key_that_had_ended_names_no_key(rotated: Rotated) -> None:
    files = dict(read_bundle(rotated.after).files)
    files["prediction/delegation.jwt"] = read_bundle(rotated.before).files["prediction/delegation.jwt"]
    assert name_keys(files).delegator.fingerprint == NO_KEY


@pytest.mark.parametrize("name", ["root/trusted_root.json", "ledger/checkpoint", "version/model.sig", "prediction/delegation.jwt"])
@pytest.mark.parametrize("forged", [None, b"", b"{}", b"\xff\x00", b"[1]"])
def test_what_is_missing_or_forged_names_no_key_and_stops_nothing(rotated: Rotated, name: str, forged: bytes | None) -> None:
    read = read_bundle(rotated.after)
    files = {n: b for n, b in {**read.files, name: forged}.items() if b is not None}
    readme = render_readme(read.index, files)
    assert f"keys/{NO_KEY}.pem" in readme or (forged is None and name == "version/model.sig")
    assert hashlib.sha256(readme.encode()).hexdigest() == hashlib.sha256(render_readme(read.index, files).encode()).hexdigest()


def test_nothing_in_the_readme_reads_as_if_the_verifier_were_on_an_index(rotated: Rotated) -> None:
    readme = read_bundle(rotated.after).files["README.md"].decode()
    assert "pip install attestry-verifier\n" not in readme
    assert "make verifier" in readme
