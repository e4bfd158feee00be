"""`attestry.PredictionSigner`: signed predictions for serving processes that are not the registry's own.

    signer = attestry.PredictionSigner("credit-risk", version_digest=digest_of_what_was_loaded)
    signed = signer.sign(request_bytes, output_bytes)   # inside the endpoint's handler
    # answer with output_bytes, signed.prediction_id and signed.receipt

The process needs `lambda:InvokeFunction` on the delegate function, and on the registry's table `dynamodb:GetItem` for the model's
pointer and `dynamodb:PutItem` for receipts; with `store` given, `s3:PutObject` below the version's `predictions/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attestry.domain.errors import InvalidInputError
from attestry.domain.names import ModelName
from attestry.evidence.digests import is_sha256
from attestry.usecases.group_signing import GroupSigner
from attestry.usecases.sign import FunctionDelegator, SignedPrediction, SigningKeys

if TYPE_CHECKING:
    import boto3

DEFAULT_ENVIRONMENT = "production"
DEFAULT_DELEGATE_FUNCTION = "attestry-delegate"


class PredictionSigner:
    """Signs the predictions of this process for the one version that it has loaded; safe to share between threads.

    The key is made in memory and delegated to by the registry for an hour at most, and only while the version stands deployed in the
    environment. `sign` reads the pointer, strongly consistent, before it signs, and again where the receipt took long: once the version
    is killed, retired or replaced, nothing is signed for it, and `sign` returns nothing later than 5 seconds after that.
    """

    def __init__(
        self,
        model: str,
        *,
        version_digest: str,
        environment: str = DEFAULT_ENVIRONMENT,
        session: boto3.Session | None = None,
        table: str | None = None,
        delegate_function: str | None = None,
        store: str | None = None,
    ) -> None:
        """Prepare; the first `sign` asks for the delegation.

        Args:
            model: the model's name.
            version_digest: SHA-256, hex, of the artifact manifest of the version that this process has loaded and checked.
            environment: where it serves.
            session: boto3 session; None for the usual AWS credential chain.
            table: the registry's table, output `MetaTable` of its stack; None for `ATTESTRY_TABLE`.
            delegate_function: name or ARN; None for `ATTESTRY_DELEGATE_FUNCTION`, else `attestry-delegate`.
            store: bucket of the model store, for captured payloads above 100 kB; None for `ATTESTRY_STORE`, else those are left out.

        Raises:
            InvalidInputError: model or version digest has not the right form, or the table is not named.
        """
        ModelName(model)
        if not is_sha256(version_digest):
            raise InvalidInputError.of("version_digest", "sha256", "a version digest is a SHA-256 in lower-case hex")
        from attestry.aws.clients import Clients
        from attestry.aws.clock import SystemClock
        from attestry.aws.functions import LambdaFunctions
        from attestry.aws.meta_store import DynamoMetaStore
        from attestry.aws.object_store import S3ObjectStore

        clients = Clients(session)
        name = delegate_function or os.environ.get("ATTESTRY_DELEGATE_FUNCTION", DEFAULT_DELEGATE_FUNCTION)
        rows = table or os.environ.get("ATTESTRY_TABLE")
        if not rows:
            raise InvalidInputError.of(
                "table", "required", "name the registry's table (output MetaTable of its stack) or set ATTESTRY_TABLE"
            )
        bucket = store or os.environ.get("ATTESTRY_STORE")
        self._signer = GroupSigner(
            meta=DynamoMetaStore(clients.dynamodb, rows),
            store=S3ObjectStore(clients.s3, bucket) if bucket else None,
            keys=SigningKeys(FunctionDelegator(LambdaFunctions(clients.functions), name), SystemClock()),
            model=model,
            environment=environment,
            version_digest=version_digest,
        )

    def sign(self, request_bytes: bytes, output_bytes: bytes, *, principal: Mapping[str, Any] | None = None) -> SignedPrediction:
        """Sign a prediction and return once its receipt is durable.

        Args:
            request_bytes: the request as it arrived.
            output_bytes: the output as it will be emitted: JSON in UTF-8, without NaN and infinities.
            principal: who asked, as far as the process knows: texts by name.

        Raises:
            InvalidInputError: the output cannot be signed.
            ConflictError: another version stands deployed there: load it, and make a new signer.
            NotFoundError: nothing is deployed there (any more), with the reason.
            UnavailableError: the receipt may not be durable; do not show the output, try again.
        """
        return self._signer.sign(request_bytes, output_bytes, principal)
