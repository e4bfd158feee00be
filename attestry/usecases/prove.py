"""Prove: what an auditor's verifier would find about a prediction or a version, found here; a prediction's is put beside its trace.

The bundle of the prediction is made and verified by the very code that verifies it offline, under the registry's own published root. What
that proves it proves to who believes the registry; who does not takes the bundle and verifies it under a pin of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from attestry.evidence.verdict import Verdict, Verification
from attestry.evidence.verification import verify_bundle
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.bundle import BundleMaker
from attestry.usecases.root import FIRST_ROOT, root_files

_WORST_FIRST: Final = (Verdict.BROKEN, Verdict.INCOMPLETE, Verdict.SIGNED_UNANCHORED, Verdict.PROVEN)


def prove_prediction(meta: MetaStore, store: ObjectStore, prediction_id: str, at: datetime) -> Verification:
    """Return what the verifier finds about a prediction.

    Raises:
        InvalidInputError: no prediction ID.
        NotFoundError: no such prediction.
    """
    made = BundleMaker(meta, store).of_prediction(prediction_id, at)
    return verify_bundle(made.data, pin=(root_files(meta, store) or {}).get(FIRST_ROOT))


def prove_version(maker: BundleMaker, model: str, number: int, at: datetime) -> Verification:
    """Return what the verifier finds about a version.

    Args:
        maker: makes the bundle; for several versions the same one, which reads root and shared parts of the ledger once.
        model: the model's name.
        number: the version's number.
        at: the time.

    Raises:
        NotFoundError: no such version.
    """
    made = maker.of_version(model, number, at)
    return verify_bundle(made.data, pin=maker.root.get(FIRST_ROOT))


def add_proof(trace: Mapping[str, Any], verification: Verification) -> dict[str, Any]:
    """Return a trace with its proof, and the verdict over both.

    A trace alone says SIGNED-UNANCHORED at best, because it does not read the ledger; a proof that holds lifts that.
    """
    proof = verification.to_dict()
    traced, proven = Verdict(trace["verdict"]), verification.verdict
    whole = proven if traced is Verdict.SIGNED_UNANCHORED else min(traced, proven, key=_WORST_FIRST.index)
    return {**trace, "verdict": whole.value, "proof": {k: proof[k] for k in ("verdict", "reason", "steps", "ledger", "witnesses", "notes")}}
