"""Patch: condition keys of conditional writes, and Object Lock that survives a restart.

What AWS does (S3 User Guide, "Enforce conditional writes on Amazon S3 buckets" and "Locking objects with Object Lock") and the
emulator does not:
- `s3:if-none-match` and `s3:if-match` are in the request context of a write that carries the header, and
  `s3:ObjectCreationOperation` is true for every write but the start and the parts of a multipart upload. So the bucket policy
  that demands a conditional write is in force here as it is on AWS.
- Retention and legal hold of an object outlive the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attestry.local.patching import PatchError, load, replace


def apply() -> None:
    """Patch the object store.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    replace(load("ministack.core.iam_actions"), "s3_service_context", "83e53d14d02c3a91", _context_of_write)
    s3 = load("ministack.services.s3")
    kept = getattr(s3, "_PERSISTED_BUCKET_DICTS", None)
    stores = {"object_retention": getattr(s3, "_object_retention", None), "object_legal_hold": getattr(s3, "_object_legal_hold", None)}
    if not isinstance(kept, dict) or any(store is None for store in stores.values()) or kept.keys() & stores.keys():
        raise PatchError("ministack.services.s3 does not keep its Object Lock state where the patch expects it")
    kept.update(stores)


def _context_of_write(original: Callable[..., Any]) -> Callable[..., Any]:
    def context(
        iam_action: str, query_params: dict[str, Any] | None, path: str = "", headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = original(iam_action, query_params, path, headers)
        if iam_action == "s3:PutObject":
            query = query_params or {}
            found["s3:ObjectCreationOperation"] = "false" if "uploads" in query or "partNumber" in query else "true"
            for name in ("if-none-match", "if-match"):
                if (headers or {}).get(name):
                    found[f"s3:{name}"] = (headers or {})[name]
        return found

    return context
