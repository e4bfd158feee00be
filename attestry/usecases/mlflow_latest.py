"""The latest version of each of MLflow's stages, read in few and small rows: MLflow's client asks for it before most of what it does.

Of an open model the stage is a tag: what people say of the newest versions is read, and the head of one for each stage. Of a governed model
it follows from the standing, so that the head of each is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attestry.domain.catalogue import Labels
from attestry.mlflow.entities import ShownVersion
from attestry.mlflow.stages import STAGES, tagged_stage
from attestry.ports import Item, Key, MetaStore
from attestry.usecases.catalogue_rows import labels_key
from attestry.usecases.mlflow_outline import Outline
from attestry.usecases.mlflow_reading import ENVIRONMENT, LATEST_OF, Known, shown_version
from attestry.usecases.pointer import number_in
from attestry.usecases.records import pointer_key, version_key


def latest_of_stages(meta: MetaStore, known: Known, stages: Iterable[str] = STAGES) -> list[ShownVersion]:
    """Return the version with the highest number in each stage, as far as they are among the newest, or deployed.

    One round trip as a rule; another one for what is deployed and not among the newest, and for further stages of an open model.
    """
    newest = range(known.last, max(0, known.last - LATEST_OF), -1)
    if not newest:
        return []
    rows, pointer = _Rows(meta, known), pointer_key(known.model.model, ENVIRONMENT)
    rows.read([pointer, *rows.labels_keys(newest), *rows.head_keys(newest[:1] if known.is_open else newest)])
    deployed = number_in(rows[pointer])
    numbers = [*newest, *([deployed] if deployed is not None and deployed not in newest else [])]
    rows.read(rows.labels_keys(numbers))
    find = _by_tag if known.is_open else _by_standing
    latest = find(rows, numbers, set(stages))
    return [latest[stage] for stage in STAGES if stage in latest]


class _Rows:
    """Rows of a model, each read once."""

    def __init__(self, meta: MetaStore, known: Known) -> None:
        self._meta, self._known, self._model = meta, known, known.model.model
        self._rows: dict[Key, Item | None] = {}

    def __getitem__(self, key: Key) -> Item | None:
        return self._rows[key]

    def read(self, keys: Iterable[Key]) -> None:
        new = [key for key in keys if key not in self._rows]
        if new:
            found = self._meta.get_many(new)
            self._rows |= {key: found.get(key) for key in new}

    def head_keys(self, numbers: Iterable[int]) -> list[Key]:
        return [version_key(self._model, number) for number in numbers]

    def labels_keys(self, numbers: Iterable[int]) -> list[Key]:
        return [labels_key(self._model, number) for number in numbers]

    def labels(self, number: int) -> Labels:
        return Labels.from_item(self._model, number, self._rows[labels_key(self._model, number)])

    def shown(self, number: int) -> ShownVersion | None:
        """Return a version; None where there is none, or it was deleted."""
        head, labels = self._rows[version_key(self._model, number)], self.labels(number)
        if head is None or labels.deleted:
            return None
        return shown_version(self._known, Outline.from_item(self._model, number, head), labels)


def _by_standing(rows: _Rows, numbers: Sequence[int], stages: set[str]) -> dict[str, ShownVersion]:
    rows.read(rows.head_keys(numbers))
    latest: dict[str, ShownVersion] = {}
    for number in numbers:
        shown = rows.shown(number)
        if shown is not None and shown.stage in stages:
            latest.setdefault(shown.stage, shown)
    return latest


def _by_tag(rows: _Rows, numbers: Sequence[int], stages: set[str]) -> dict[str, ShownVersion]:
    waiting: dict[str, list[int]] = {}
    for number in numbers:
        labels = rows.labels(number)
        stage = tagged_stage(labels.tags)
        if stage in stages and not labels.deleted:
            waiting.setdefault(stage, []).append(number)
    latest: dict[str, ShownVersion] = {}
    while waiting:
        rows.read(rows.head_keys(of_stage[0] for of_stage in waiting.values()))
        for stage, of_stage in list(waiting.items()):
            # A number without a version was given to one that was never finished; then the one before it counts.
            shown = rows.shown(of_stage.pop(0))
            if shown is not None:
                latest[stage] = shown
            if shown is not None or not of_stage:
                del waiting[stage]
    return latest
