"""What the registry keeps about an endpoint between two looks at it: a row for each model and environment that SageMaker serves.

A row says nothing by itself: who stands is read from the pointer, what an endpoint is to be derives from the versions' own manifests, and
what it is SageMaker says. The row names

- the versions on their way into place (`coming`), by number: who asked for it and why;
- the configuration that was asked for last (`asked`), so that an update which SageMaker took back is not asked for for ever;
- what was made (`made_configs`, `made_models`), noted before it is made, so that nothing is left behind;
- the versions that the endpoint serves (`serves`): a version that is not among them is not put in place. The list is narrowed in a
  transaction with the pointer's revision, and a swap checks the list's, so that none is put in place while its variant is taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attestry.domain.errors import ConflictError
from attestry.domain.version import Version
from attestry.ports import ABSENT, Check, Item, Key, MetaStore, When, Write

PARTITION: Final = "ENDPOINTS"


def endpoint_key(model: str, environment: str) -> Key:
    """Return the key of the row of an endpoint."""
    return Key(PARTITION, f"{model}#{environment}")


def serves(row: Mapping[str, Any] | None, number: int) -> bool:
    """Return whether an endpoint serves a version, by its row."""
    return number in {int(n) for n in (row or {}).get("serves", [])}


def served_writes(meta: MetaStore, version: Version, environment: str) -> list[Write]:
    """Return the condition under which a version is put in place: that what serves it is there; none where that is the function.

    Raises:
        ConflictError: SageMaker does not serve it in that environment.
    """
    if not version.target:
        return []
    key = endpoint_key(version.model, environment)
    row = meta.get(key)
    if not serves(row, version.number):
        told = f"{version.reference} has no variant on its endpoint in {environment}"
        raise ConflictError(f"{told}; one is made by a deployment: attestry deploy {version.reference}")
    return [Check(key, unchanged(row))]


def unchanged(row: Item | None) -> When:
    """Return the condition that a row is as it was read."""
    return ABSENT if row is None else When(exists=True, equals={"rev": row["rev"]})
