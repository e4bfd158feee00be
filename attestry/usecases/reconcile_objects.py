"""Compare objects in the store with the S3 versions that were recorded of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from attestry.ports import ObjectStore
from attestry.usecases.findings import Observed


def compare_objects(
    store: ObjectStore, prefix: str, recorded: Mapping[str, str], *, closed: bool = False, gone: Collection[tuple[str, str]] = ()
) -> Iterable[Observed]:
    """Yield which objects do not lie on top in their recorded S3 version.

    Args:
        store: the model store.
        prefix: what they lie below.
        recorded: object key to version ID.
        closed: whether there may be nothing else.
        gone: keys and S3 versions of what may be missing, because it was disposed.
    """
    latest: dict[str, tuple[str, bool]] = {}
    there: set[tuple[str, str]] = set()
    for entry in store.list_versions(prefix):
        if entry.is_latest:
            latest[entry.key] = (entry.version_id, entry.is_delete_marker)
        there.add((entry.key, entry.version_id))
    for key, version_id in sorted(recorded.items()):
        on_top, marker = latest.get(key, ("", False))
        if (key, version_id) in gone and key not in latest:
            continue
        if (key, version_id) not in there or marker:
            yield Observed("object.deleted", key, f"version {version_id}", "a delete marker" if marker else f"version {on_top or 'none'}")
        elif on_top != version_id:
            yield Observed("object.overwritten", key, f"version {version_id}", f"version {on_top}")
    if closed:
        for key in sorted(latest.keys() - recorded.keys()):
            yield Observed("object.added", key, "nothing", f"version {latest[key][0]}")
