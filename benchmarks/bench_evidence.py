"""Evidence without AWS: sealing receipts, verifying a bundle, hashing a version's files.

What is compared is measured in turns in the same run. Targets: sealing at most 8 times the two SHA-256 per receipt that it cannot avoid
(of its leaf, and of one inner node); a bundle verified in at most 100 ms in a process that has verified before; a version's files checked
in at most 1.2 times what hashlib takes for the same files, in at most 64 MiB, whatever their size.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestry.evidence.digests import sha256_hex
from attestry.evidence.receipt import ReceiptWriter
from attestry.evidence.seal import MAX_RECEIPTS, Seal, batch_line, parse_batch, prove_receipt, seal_root, verify_batch
from attestry.evidence.verdict import Verdict
from attestry.evidence.verification import verify_bundle
from attestry.evidence.version_urn import VersionUrn
from benchmarks.result import Result, Spread, Table, Target

ROOT = Path(__file__).resolve().parents[1]
SEALING, VERIFY_MS, HASHING, MEMORY_MIB = 8.0, 100.0, 1.2, 64.0
SEALS, VERIFICATIONS, PROCESSES, HASHES = 9, 25, 3, 7
PREDICTIONS = 60
SMALL_MIB, LARGE_MIB = 64, 512
KID = "a" * 52
AT = "2026-11-21T10:00:00.000000Z"
CLAIM = b"[0.9712345678901234]"

Act = Callable[[], Any]


def run() -> Result:
    """Measure sealing, verification and hashing."""
    parts = (_sealing(), _verification(), _hashing())
    return Result("evidence", tuple(table for table, _ in parts), tuple(target for _, targets in parts for target in targets))


def interleaved(acts: dict[str, Act], rounds: int) -> dict[str, Spread]:
    """Return milliseconds of processor time of each, measured in turns after a first round that does not count."""
    values: dict[str, list[float]] = {name: [] for name in acts}
    gc.collect()
    gc.disable()
    try:
        for index in range(rounds + 1):
            for name, act in acts.items():
                began = time.thread_time()
                act()
                if index:
                    values[name].append((time.thread_time() - began) * 1000)
    finally:
        gc.enable()
    return {name: Spread.of(found) for name, found in values.items()}


# Sealing


def _sealing() -> tuple[Table, tuple[Target, ...]]:
    """Seal as many receipts as a batch holds."""
    receipts = _receipts(MAX_RECEIPTS)
    leaves = [b"\0" + receipt for receipt in receipts]
    nodes = [b"\1" + bytes(64)] * len(leaves)
    texts = [receipt.decode() for receipt in receipts]
    whole = "".join([batch_line(n, AT, text) for n, text in enumerate(texts, start=1)]).encode()
    seal = _seal(receipts, whole)
    floor = "two SHA-256 for each"
    spreads = interleaved(
        {
            floor: lambda: [(hashlib.sha256(a).digest(), hashlib.sha256(b).digest()) for a, b in zip(leaves, nodes, strict=True)],
            "root over the receipts": lambda: seal_root(receipts),
            "write the batch, digest it, seal it": lambda: _write_and_seal(texts),
            "read a batch, check it against its seal": lambda: verify_batch(whole, seal),
            "prove one receipt": lambda: prove_receipt([receipt for _, receipt in parse_batch(whole)], 7),
        },
        SEALS,
    )
    base = spreads[floor].median
    rows = tuple((name, *spread.cells, round(spread.median / base, 2)) for name, spread in spreads.items())
    columns = ("what", "ms", "least", "greatest", "n", "x two SHA-256")
    notes = (f"{len(receipts)} receipts of {len(receipts[0])} bytes, the most that a batch holds.",)
    ratio = round(spreads["write the batch, digest it, seal it"].median / base, 2)
    target = Target("sealing a batch, x two SHA-256 for each receipt", ratio, SEALING)
    return Table("Sealing", columns, rows, notes), (target,)


def _receipts(count: int) -> list[bytes]:
    private_key = Ed25519PrivateKey.generate()
    writer = ReceiptWriter(private_key.sign, kid=KID, version=VersionUrn("tumour-diagnosis", 1, "0" * 64))
    return [writer.emit(sequence=n, time_ms=1_700_000_000_000 + n, request=b"{}", output=CLAIM).token.encode() for n in range(1, count + 1)]


def _write_and_seal(texts: list[str]) -> dict[str, Any]:
    """Do with receipts what the collector does with the rows that it has read: the object's lines, its digest, the root, the seal."""
    body = "".join([batch_line(n, AT, text) for n, text in enumerate(texts, start=1)]).encode()
    return _seal([text.encode() for text in texts], body).to_data()


def _seal(receipts: list[bytes], body: bytes) -> Seal:
    return Seal(
        KID,
        "tumour-diagnosis",
        1,
        1,
        len(receipts),
        seal_root(receipts),
        f"models/m/1/predictions/{KID}/{1:012d}-{len(receipts):012d}.jsonl",
        sha256_hex(body),
        0,
    )


# Verification


def _verification() -> tuple[Table, tuple[Target, ...]]:
    """Verify bundles that the real use cases made, in this process and in processes of their own."""
    # The registry in memory belongs to the tests, which are not written for the strict checks of this package.
    world = importlib.import_module("tests.evidence_world").EvidenceWorld()
    world.deploy()
    predictions = [world.predict() for _ in range(PREDICTIONS)]
    world.seal()
    bundles = {"a prediction": world.bundle(predictions[7], payload=True), "a version": world.version_bundle()}
    pin: bytes = world.pin
    for name, data in bundles.items():
        told = verify_bundle(data, pin=pin)
        if told.verdict is not Verdict.PROVEN:
            raise RuntimeError(f"the bundle of {name} is {told.verdict}: {told.reason}")
    acts: dict[str, Act] = {f"bundle of {name}": partial(verify_bundle, data, pin=pin) for name, data in bundles.items()}
    spreads = interleaved(acts, VERIFICATIONS)
    with tempfile.TemporaryDirectory(prefix="attestry-bench-") as folder:
        Path(folder, "root.json").write_bytes(pin)
        Path(folder, "bundle.zip").write_bytes(bundles["a prediction"])
        spreads |= {f"{name} (a process)": spread for name, spread in _processes(Path(folder)).items()}
    rows = tuple((name, *spread.cells) for name, spread in spreads.items())
    sizes = ", ".join(f"that of {name} has {len(data) // 1024} KiB" for name, data in bundles.items())
    notes = (
        f"Milliseconds of processor time; {sizes}.",
        "The process is `attestry-verify BUNDLE.zip --root ROOT.json`; bytecode is there.",
    )
    targets = tuple(
        Target(f"verifying the bundle of {name}, ms", round(spreads[f"bundle of {name}"].median, 1), VERIFY_MS) for name in bundles
    )
    return Table("Verifying offline", ("what", "ms", "least", "greatest", "n"), rows, notes), targets


def _processes(folder: Path) -> dict[str, Spread]:
    """Return milliseconds of whole processes: an empty interpreter, and the verifier's command."""
    bundle, root = str(folder / "bundle.zip"), str(folder / "root.json")
    commands = {"an empty interpreter": ["-c", "pass"], "attestry-verify": ["-m", "attestry.verifier", bundle, "--root", root]}
    variables = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    values: dict[str, list[float]] = {name: [] for name in commands}
    for index in range(PROCESSES + 1):
        for name, command in commands.items():
            milliseconds = process_milliseconds([sys.executable, *command], variables)
            if index:
                values[name].append(milliseconds)
    return {name: Spread.of(found) for name, found in values.items()}


def process_milliseconds(command: list[str], variables: dict[str, str]) -> float:
    """Run a process in no other environment, its output to nowhere, and return its processor time.

    Raises:
        RuntimeError: it fails.
    """
    quiet = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    process = os.posix_spawn(command[0], command, variables, file_actions=[quiet])
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)[:200]} ended with {os.waitstatus_to_exitcode(status)}")
    return (usage.ru_utime + usage.ru_stime) * 1000


# Hashing a version's files

CHILD = """
import hashlib, json, re, sys, time
from pathlib import Path
from attestry.evidence.artifact_manifest import ArtifactManifest, FrozenFile, ManifestEnvironment
from attestry.verifier.folder import check_folder

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
zero = "0" * 64
paths = sorted(p for p in folder.iterdir())

def by_hashlib():
    found = {}
    for path in paths:
        with path.open("rb") as stream:
            found[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found

def seconds(act):
    began = time.process_time()
    act()
    return time.process_time() - began

files = [FrozenFile(p.name, p.stat().st_size, sys.argv[3 + n]) for n, p in enumerate(paths)]
environment = ManifestEnvironment("e", zero, zero, "3.13")
artifact = ArtifactManifest("m", 1, "x", zero, (), zero, zero, environment, tuple(files))
check_folder(artifact, folder)
# Not getrusage, which remembers the process that this one was forked from.
memory = int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
turns = [(seconds(by_hashlib), seconds(lambda: check_folder(artifact, folder))) for _ in range(rounds)]
print(json.dumps({"memory_kib": memory, "hashlib": [a for a, _ in turns], "ours": [b for _, b in turns]}))
"""


def _hashing() -> tuple[Table, tuple[Target, ...]]:
    """Check folders of two sizes in processes of their own, whose greatest memory is measured."""
    measured = {mebibytes: _hash_in_process(mebibytes, HASHES if mebibytes == SMALL_MIB else 3) for mebibytes in (SMALL_MIB, LARGE_MIB)}
    rows, targets = [], []
    for mebibytes, told in measured.items():
        ours, base = (Spread.of([s * 1000 for s in told[name]]) for name in ("ours", "hashlib"))
        ratio = round(Spread.of([b / a for a, b in zip(told["hashlib"], told["ours"], strict=True)]).median, 2)
        memory = round(told["memory_kib"] / 1024, 1)
        rows.append((f"{mebibytes} MiB in 2 files", *ours.cells, round(base.median, 2), ratio, memory))
        targets.append(Target(f"checking {mebibytes} MiB of files, x hashlib", ratio, HASHING))
        targets.append(Target(f"memory for checking {mebibytes} MiB of files, MiB", memory, MEMORY_MIB))
    columns = ("a version's files", "ms", "least", "greatest", "n", "hashlib ms", "x hashlib", "memory MiB")
    notes = ("`attestry-verify --files`, beside `hashlib.file_digest`. Memory: the whole process's greatest resident set.",)
    return Table("Checking a version's files", columns, tuple(rows), notes), tuple(targets)


def _hash_in_process(mebibytes: int, rounds: int) -> Any:
    with tempfile.TemporaryDirectory(prefix="attestry-bench-") as folder:
        # Files with holes: as many bytes to hash as any, and no disk to wait for.
        for name in ("a", "b"):
            with Path(folder, name).open("wb") as stream:
                stream.truncate(mebibytes << 19)
        digest = hashlib.sha256()
        for _ in range(mebibytes // 2):
            digest.update(bytes(1 << 20))
        command = [sys.executable, "-c", CHILD, folder, str(rounds), digest.hexdigest(), digest.hexdigest()]
        done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)
