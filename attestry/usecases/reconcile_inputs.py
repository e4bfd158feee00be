"""Reconcile what a version was made of: the objects of its data and environment, and the lineage rows by which it is found from them.

An edge that was planted leads from a data set, commit or environment that the version does not name, so nothing of the version leads back
to it: such a row is not found here. It shows in a walk, whose backward half is made of the version's own rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from attestry.domain.errors import AttestryError
from attestry.domain.version import FileRef, Version
from attestry.ports import MetaStore, ObjectStore
from attestry.usecases.findings import Observed
from attestry.usecases.lineage import edge_puts
from attestry.usecases.manifests import load_manifest
from attestry.usecases.reconcile_objects import compare_objects


def examine_inputs(meta: MetaStore, store: ObjectStore, version: Version, *, gone: Collection[tuple[str, str]] = ()) -> Iterable[Observed]:
    """Yield which objects of data sets and environment are not on top as recorded, and which lineage rows are not as they were written.

    Args:
        meta: the table.
        store: the model store.
        version: a version whose PROCESSING has succeeded, and whose rows hold.
        gone: keys and S3 versions of what may be missing, because it was disposed.
    """
    files = [f for dataset in version.datasets for f in dataset.files]
    if version.environment is not None and version.environment.archive is not None:
        files.append(version.environment.archive)
    yield from _objects(store, files, gone)
    try:
        revision = load_manifest(store, version).source.revision
    except AttestryError:
        return  # found where the version's own files are compared
    puts = {put.key: put.item for put in edge_puts(version, revision)}
    there = meta.get_many(list(puts)[:100])
    for key, item in list(puts.items())[:100]:
        row = there.get(key)
        given = None if row is None else {name: row.get(name) for name in item}
        if given != item:
            what = "lineage.deleted" if row is None else "lineage.changed"
            yield Observed(what, f"{key.partition}/{key.sort}", f"{item['role']} of {item['target']}", str(given or "nothing"))


def _objects(store: ObjectStore, files: Iterable[FileRef], gone: Collection[tuple[str, str]]) -> Iterable[Observed]:
    """Compare files folder by folder: a listing each."""
    folders: dict[str, dict[str, str]] = {}
    for file in files:
        folders.setdefault(file.key.rpartition("/")[0], {})[file.key] = file.version_id
    for folder, recorded in sorted(folders.items()):
        yield from compare_objects(store, f"{folder}/", recorded, gone=gone)
