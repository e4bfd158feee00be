"""What MLflow is shown of a version, read out of few attributes of its two rows.

A head has 60 attributes and names every file of the version; a search shows eleven of them, of a thousand versions at a time. So they are
read without the others, and a version is not made whole to be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from attestry.domain.catalogue import Labels
from attestry.domain.stages import Stage, Standing, Status
from attestry.domain.version import Version, tell_end
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.catalogue_rows import labels_key
from attestry.usecases.records import version_key

OF_HEADS: Final = (
    "created",
    "updated",
    "submitter",
    "submitter_person",
    "stage",
    "status",
    "standing",
    "version_digest",
    "error",
    "retirement",
)
OF_LABELS: Final = ("description", "tags", "rev", "updated", "deleted")
"""The attributes that are read of a version's two rows."""

TOGETHER: Final = 50
"""Versions whose two rows one round trip reads."""

AT_ONCE: Final = 100
"""Versions whose heads one round trip reads."""

READS: Final = 4
"""Round trips that are made at the same time."""

Subject = tuple[str, int]
Read = Callable[[], Mapping[Key, Item]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outline:
    """A version as far as MLflow is shown it.

    Attributes:
        model: the model's identity.
        number: the version's number.
        created, updated: RFC 3339.
        user: who registered it.
        stage, status, standing: as of its latest move.
        frozen: whether its files are.
        error: why its latest stage failed or was rejected.
        out_of_use: how it came to be retired; empty where it is not.
    """

    model: str
    number: int
    created: str
    updated: str
    user: str
    stage: Stage
    status: Status
    standing: Standing
    frozen: bool
    error: str
    out_of_use: str

    @classmethod
    def of(cls, version: Version) -> Outline:
        """Return the outline of a version that was read whole."""
        return cls(
            version.model,
            version.number,
            version.created,
            version.updated,
            version.submitter_person or version.submitter.login,
            version.stage,
            version.status,
            version.standing,
            bool(version.version_digest),
            version.error,
            version.out_of_use,
        )

    @classmethod
    def from_item(cls, model: str, number: int, row: Item) -> Outline:
        """Return the outline of the version that a head row tells of, which may have the attributes `OF_HEADS` alone."""
        standing = _STANDINGS[row.get("standing") or Standing.CANDIDATE]
        return cls(
            model,
            number,
            row["created"],
            row["updated"],
            row.get("submitter_person") or row["submitter"]["login"],
            _STAGES[row.get("stage") or Stage.REGISTERED],
            _STATUSES[row.get("status") or Status.SUCCEEDED],
            standing,
            bool(row.get("version_digest")),
            row.get("error") or "",
            tell_end(row.get("retirement") or {}) if standing is Standing.RETIRED else "",
        )

    @property
    def reference(self) -> str:
        """Return `MODEL@N`."""
        return f"{self.model}@{self.number}"


Outlined = tuple[Outline, Labels]
"""A version as far as MLflow is shown it, and what people say about it."""

# Looking a member up is ten times as fast as having its class find it.
_STAGES = {stage.value: stage for stage in Stage}
_STATUSES = {status.value: status for status in Status}
_STANDINGS = {standing.value: standing for standing in Standing}


def load_outlines(meta: MetaStore, subjects: Iterable[Subject]) -> dict[Subject, Outlined]:
    """Return those versions, by model and number, that exist and were not deleted.

    Both rows of up to `TOGETHER` versions come in one round trip. Of more versions of one model their heads do, and what people say of
    them, which lies in one partition, in another one; round trips that do not wait for each other are made `READS` at a time.
    """
    wanted: dict[str, list[int]] = {}
    for model, number in dict.fromkeys(subjects):
        wanted.setdefault(model, []).append(number)
    few = [(model, number) for model, numbers in wanted.items() if len(numbers) <= TOGETHER for number in numbers]
    reads: list[Read] = [partial(_both_rows, meta, some) for some in _batches(few, TOGETHER)]
    for model, numbers in wanted.items():
        if len(numbers) > TOGETHER:
            reads.append(partial(_labels, meta, model, min(numbers), max(numbers)))
            reads += [partial(_heads, meta, model, some) for some in _batches(numbers, AT_ONCE)]
    rows: dict[Key, Item] = {}
    for found in _at_once(reads):
        rows |= found
    outlines: dict[Subject, Outlined] = {}
    for model, numbers in wanted.items():
        for number in numbers:
            head = rows.get(version_key(model, number))
            if head is not None:
                labels = Labels.from_item(model, number, rows.get(labels_key(model, number)))
                if not labels.deleted:
                    outlines[model, number] = Outline.from_item(model, number, head), labels
    return outlines


def _both_rows(meta: MetaStore, subjects: Sequence[Subject]) -> Mapping[Key, Item]:
    keys = [key for subject in subjects for key in (version_key(*subject), labels_key(*subject))]
    return meta.get_many(keys, only=list(dict.fromkeys((*OF_HEADS, *OF_LABELS))))


def _heads(meta: MetaStore, model: str, numbers: Sequence[int]) -> Mapping[Key, Item]:
    return meta.get_many([version_key(model, number) for number in numbers], only=OF_HEADS)


def _labels(meta: MetaStore, model: str, first: int, last: int) -> Mapping[Key, Item]:
    partition = labels_key(model, first).partition
    ends = (labels_key(model, number).sort for number in (first - 1, last + 1))
    return {Key(partition, row["sk"]): row for row in meta.query(partition, after=next(ends), before=next(ends), only=OF_LABELS)}


def _at_once(reads: Sequence[Read]) -> Iterator[Mapping[Key, Item]]:
    if len(reads) < 2:
        yield from (read() for read in reads)
        return
    with ThreadPoolExecutor(min(READS, len(reads))) as pool:
        yield from pool.map(lambda read: read(), reads)


def _batches(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    yield from (things[start : start + size] for start in range(0, len(things), size))
