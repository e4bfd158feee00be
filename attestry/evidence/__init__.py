"""Pure formats of evidence: digests, artifact manifests, delegations, receipts."""
