"""Attest: the signed statement about a move of a version, made before the move is committed."""

from __future__ import annotations

from attestry.domain.version import Version
from attestry.evidence.attestor import AttestationRef, Attestor, attestation_key
from attestry.evidence.predicates import MoveFacts, Predicate, state_move

__all__ = ["AttestationRef", "Attestor", "attest_move", "attestation_key"]


def attest_move(attestor: Attestor, version: Version, facts: MoveFacts, predicate: Predicate | None = None) -> AttestationRef:
    """Sign and keep the statement about a move.

    Args:
        attestor: signs with the key of the function that moves the version.
        version: the version, with the folder that it has after the move.
        facts: the move.
        predicate: what its attestation says besides the move; None where there is nothing.

    Raises:
        InvalidInputError: the predicate is not one for this move.
        UnavailableError: the attestation could not be signed or kept; nothing was changed.
    """
    return attestor.attest(version, state_move(facts, predicate, candidate=version.candidate))
