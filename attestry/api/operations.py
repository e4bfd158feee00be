"""The table of all native operations.

    OPERATIONS           in the order of the reference
    BY_ID["models.read"]
    BY_ROUTE["GET /v1/models/{model}"]

`infra/api.py` has the same routes and `infra/identity.py` the same roles: a test says so, since infra imports nothing of the package.
Somebody who adds a route describes it here, in the module of its group or in one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from attestry.api.access import ACCESS
from attestry.api.acts import DECISIONS, MOVES, PREDICTIONS, SUBMISSIONS
from attestry.api.administration import ADMINISTRATION
from attestry.api.catalogue import CATALOGUE
from attestry.api.custody import CUSTODY
from attestry.api.operation import Operation
from attestry.api.proofs import EVIDENCE
from attestry.api.reads import MODELS, VERSIONS
from attestry.api.runs import RUNS
from attestry.api.webhooks import WEBHOOKS

OPERATIONS: tuple[Operation, ...] = (
    *MODELS,
    *VERSIONS,
    *CATALOGUE,
    *SUBMISSIONS,
    *DECISIONS,
    *MOVES,
    *CUSTODY,
    *PREDICTIONS,
    *EVIDENCE,
    *ADMINISTRATION,
    *ACCESS,
    *WEBHOOKS,
    *RUNS,
)

BY_ID: Mapping[str, Operation] = {operation.id: operation for operation in OPERATIONS}
BY_ROUTE: Mapping[str, Operation] = {operation.route: operation for operation in OPERATIONS}
