"""Versions of a model by the thousand: the rows that the real calls write for one version, and the same for as many others.

The first version is made by the real use cases (an import, its freezing, the opening of its approval, its labels) over a table in memory.
The others have its rows with number, digests, folder and execution of their own, index entries included; `tests/unit/test_bench_rows.py`
holds such a version against one that the use cases made. What is left out: the events, which the ledger takes out of the outbox within
seconds, and the uploads' rows, which expire. Digests and signatures within a row are those of the first version, and no files are there.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attestry.domain.version import Version
from attestry.ports import Item, Key
from attestry.usecases import catalogue
from attestry.usecases.freeze_import import freeze_import
from attestry.usecases.gate import open_import
from attestry.usecases.mlflow_reading import SOURCE_TAG
from attestry.usecases.records import load_version, model_key

# The ports in memory and the files of an import belong to the tests, which are not written for the strict checks of this package.
flow: Any = importlib.import_module("tests.flow")
imports: Any = importlib.import_module("tests.imports")

_PASSING = ("OUTBOX", "UPLOAD#")


@dataclass(frozen=True)
class FirstVersion:
    """A version as the calls left it.

    Attributes:
        version: its head.
        rows: all rows of it, its model's own row apart.
        model: its model's own row, which counts the versions.
    """

    version: Version
    rows: tuple[Item, ...]
    model: Item


def first_version(model: str) -> FirstVersion:
    """Make the first version of an open model in memory."""
    made = flow.Flow()
    catalogue.create_model(made.meta, model, mode="open", by=imports.DANA, at=made.clock.now())
    return bring(made, model, 1)


def bring(made: Any, model: str, number: int) -> FirstVersion:
    """Import another version in a flow (`tests.flow`), and return the rows that this wrote."""
    before = set(made.meta.rows)
    imports.bring(made, imports.submit(made), model=model)
    ports = (made.meta, made.attestor, made.store, made.notifier)
    freeze_import(*ports, model=model, number=number, sign_artifact=made.sign_artifact, at=made.clock.now())
    open_import(*ports, model=model, number=number, at=made.clock.now())
    tags = {SOURCE_TAG: "runs:/8f0f/model"}
    catalogue.change_labels(made.meta, model, number, description="measured", tags=tags, by=imports.DANA, at=made.clock.now())
    own = model_key(model)
    written = [row for key, row in made.meta.rows.items() if key not in before | {own} and not key.partition.startswith(_PASSING)]
    return FirstVersion(load_version(made.meta, model, number), tuple(written), dict(made.meta.rows[own]))


def rows_of_model(first: FirstVersion, versions: int) -> Iterator[Item]:
    """Yield the rows of a model with so many versions, its row in the catalogue apart."""
    yield {**first.model, "next": versions + 1, "rev": versions}
    for number in range(1, versions + 1):
        yield from rows_of_version(first, number)


def rows_of_version(first: FirstVersion, number: int) -> Iterator[Item]:
    """Yield the rows of the first version as if it had another number."""
    if number == 1:
        yield from first.rows
        return
    changes = _changes(first.version, number)
    for row in first.rows:
        changed: dict[str, Any] = {name: _changed(value, changes) for name, value in row.items()}
        if "number" in row:
            changed["number"] = number
        if row.get("gsi_sk") == f"{1:09d}":
            changed["gsi_sk"] = f"{number:09d}"
        if row["pk"] == f"VERSION#{first.version.model}#1":
            changed["pk"] = f"VERSION#{first.version.model}#{number}"
        yield changed


def key_of(row: Item) -> Key:
    """Return a row's key."""
    return Key(str(row["pk"]), str(row["sk"]))


def _changes(version: Version, number: int) -> Mapping[str, str]:
    """Return what stands in the rows of version 1, and what stands there in another one's, the longest first."""
    model = version.model
    candidate, digest = (hashlib.sha256(f"{told} {number}".encode()).hexdigest() for told in (version.candidate, version.version_digest))
    execution = version.execution_id.replace(f"{model}-1-", f"{model}-{number}-").replace(version.candidate[:12], candidate[:12])
    changes = {
        version.folder: version.folder.replace("/1-", f"/{number}-").replace(version.execution_id, execution),
        version.execution_id: execution,
        version.candidate: candidate,
        version.version_digest: digest,
        f"{model}#{1:09d}": f"{model}#{number:09d}",
        f"LABELS#{1:09d}": f"LABELS#{number:09d}",
        f"VERSION#{1:09d}": f"VERSION#{number:09d}",
        f"{model}@1": f"{model}@{number}",
    }
    return dict(sorted(changes.items(), key=lambda change: -len(change[0])))


def _changed(value: Any, changes: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for was, becomes in changes.items():
            value = value.replace(was, becomes)
        return value
    if isinstance(value, bytes):
        return _changed(value.decode(), changes).encode()
    if isinstance(value, Mapping):
        return {name: _changed(inner, changes) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_changed(inner, changes) for inner in value]
    return value
