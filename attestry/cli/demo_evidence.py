"""The demo's evidence: a bundle that is verified offline, and the same bundle with one byte changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from attestry.cli.demo_parts import expect
from attestry.client.api import RegistryClient
from attestry.client.download import download_files
from attestry.evidence.bundle import read_bundle, write_bundle
from attestry.evidence.verdict import Verdict, Verification
from attestry.evidence.verification import verify_bundle

SEAL_SECONDS = 180
"""Receipts are sealed once a minute, and the seal is in the ledger some seconds later."""

PAUSE_SECONDS = 3.0
PLACES = {
    "the receipt": "prediction/receipt.jws",
    "the version's files": "version/artifact-manifest.json",
    "what the approver saw": "version/packet.json",
    "an attestation": "attestations/",
    "the ledger's checkpoint": "ledger/checkpoint",
}


def prove(client: RegistryClient, prediction_id: str, file: Path, pin: Path, *, say: Callable[[str], None]) -> Verification:
    """Fetch the bundle of a prediction once its receipt is sealed, and verify it with nothing but the file and the pin.

    Raises:
        DemoError: the prediction is not proven within three minutes.
    """
    deadline = time.monotonic() + SEAL_SECONDS
    while True:
        answer = client.prediction_bundle(prediction_id)
        file.unlink(missing_ok=True)
        named = {"path": file.name, "sha256": answer["sha256"], "size": answer["size"], "url": answer["url"]}
        download_files([named], file.parent, http=client.http)
        verification = verify_bundle(file.read_bytes(), pin=pin.read_bytes())
        if verification.verdict is not Verdict.SIGNED_UNANCHORED:
            expect(verification.verdict is Verdict.PROVEN, f"{verification.verdict}: {verification.reason}")
            return verification
        expect(time.monotonic() < deadline, f"not proven within {SEAL_SECONDS} s: {verification.reason}")
        say("the receipt waits for its seal; receipts are sealed once a minute")
        time.sleep(PAUSE_SECONDS)


def flip_bytes(file: Path, pin: Path) -> list[tuple[str, Verification]]:
    """Change one byte in each of five files of a bundle, pack it again as a forger would, and return what the verifier finds.

    Raises:
        DemoError: a forged bundle was not found out.
    """
    bundle = read_bundle(file.read_bytes())
    found: list[tuple[str, Verification]] = []
    for place, start in PLACES.items():
        name = next(n for n in sorted(bundle.files) if n.startswith(start))
        content = bytearray(bundle.files[name])
        content[len(content) // 2] ^= 1
        forged = write_bundle(bundle.index, {**bundle.files, name: bytes(content)})
        verification = verify_bundle(forged, pin=pin.read_bytes())
        expect(verification.verdict is Verdict.BROKEN, f"a byte changed in {name}, and the verdict is {verification.verdict}")
        found.append((place, verification))
    return found
