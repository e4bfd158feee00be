"""The index of the catalogue: which entries a model or a version has, as a pure function of what is recorded of it.

An entry lies in a *lane*, at a *place*. A lane is one condition in one order: all versions that stand DEPLOYED, by when they were made.
Reading a lane from a place on costs what is read, whatever the registry holds, so a search reads one lane and never the table.

INDEX#<lane>[#<shard>] / <place>

Rules:
- Who changes something writes the difference between its entries before and after in the same transaction.
- A place ends in model and number (and a mark), so no two are equal, and a place is a cursor.
- Lanes that everything new is put at the end of are split by the model's name into `SHARDS` partitions, which are read together; those of
  one model, tag, data set or metric are not. So no partition takes the writes of the whole registry.
- An entry holds nothing but where it leads. What a search shows and judges by are the rows themselves.
- By its last change a version has two entries: that of its head, and that of what people say about it. Two rows tell of it, which two
  functions write, neither of which waits for the other; who reads takes the later entry (`current_places`).
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from attestry.domain.catalogue import Labels, RegisteredModel
from attestry.domain.version import Version

SHARDS: Final = 4
MAX_WORDS: Final = 24
MAX_LABELS: Final = 10
MAX_METRICS: Final = 12
MAX_SOURCES: Final = 20
"""What is indexed of one subject at most: its entries change in one transaction, which has 100 writes."""

MODELS: Final = "M"
VERSIONS: Final = "V"
NAME: Final = "name"
CREATED: Final = "created"
UPDATED: Final = "updated"
METRIC: Final = "metric"
"""The orders; versions by `name` are by model and number."""

_WORD = re.compile(r"[^\W_]+")
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WIDE = frozenset({"all", "standing", "stage", "risk_tier", "framework"})
_MIN_WORD = 2
_MAX_WORD = 40


@dataclass(frozen=True, order=True)
class Lane:
    """A condition in an order.

    Attributes:
        kind: `M` for models, `V` for versions.
        field: what the condition is on: `all`, `model`, `standing`, `tag`, ...
        value: the value that it must have; empty for `all`.
        order: see the module.
    """

    kind: str
    field: str
    value: str
    order: str

    @property
    def is_sharded(self) -> bool:
        """Return whether it lies in several partitions."""
        return self.kind == VERSIONS and self.field in _WIDE and self.order != NAME

    def partitions(self) -> tuple[str, ...]:
        """Return the partitions that together hold it."""
        base = (
            f"INDEX#{self.kind}#{self.field}#{plain(self.value)}#{self.order}"
            if self.value
            else f"INDEX#{self.kind}#{self.field}#{self.order}"
        )
        return tuple(f"{base}#{shard}" for shard in range(SHARDS)) if self.is_sharded else (base,)

    def partition_of(self, model: str) -> str:
        """Return the partition that a model's entries lie in."""
        partitions = self.partitions()
        return partitions[hashlib.sha256(model.encode()).digest()[0] % len(partitions)]


@dataclass(frozen=True, order=True)
class Entry:
    """An entry.

    Attributes:
        lane: where it lies.
        place: its sort key.
        model: the identity of the model that it leads to.
        number: of the version that it leads to; 0 where it leads to the model.
    """

    lane: Lane
    place: str
    model: str
    number: int = 0

    @property
    def partition(self) -> str:
        """Return the partition that it lies in."""
        return self.lane.partition_of(self.model)


def plain(value: str) -> str:
    """Return a value as a lane's name has it: itself where it cannot be mistaken for anything else, or its digest."""
    return value if _PLAIN.fullmatch(value) else "~" + hashlib.sha256(value.encode()).hexdigest()[:32]


def pair(key: str, value: str) -> str:
    """Return key and value of a tag or label as one value, which no other pair gives."""
    return hashlib.sha256(f"{len(key)}:{key}={value}".encode()).hexdigest()[:32]


def words(*texts: str) -> list[str]:
    """Return the words of texts, in lower case, each once, in the order of their first occurrence: letters and digits of any script."""
    found: dict[str, None] = {}
    for text in texts:
        for match in _WORD.finditer(text.casefold()):
            if len(match[0]) >= _MIN_WORD:
                found[match[0][:_MAX_WORD]] = None
    return list(found)


def number_place(value: float) -> str:
    """Return a number as 16 hex digits that sort as the numbers do (IEEE 754 binary64, sign bit turned, negatives complemented)."""
    bits = struct.unpack(">Q", struct.pack(">d", value + 0.0))[0]
    return f"{bits ^ (0xFFFFFFFFFFFFFFFF if bits >> 63 else 0x8000000000000000):016x}"


def version_place(model: str, number: int) -> str:
    """Return the end of every version's places, which sorts by model and number: `#` comes before whatever a longer name goes on with."""
    return f"{model}#{number:09d}"


def entries_of_model(model: RegisteredModel | None) -> frozenset[Entry]:
    """Return the entries of a model; none of one that is deleted."""
    if model is None or model.deleted:
        return frozenset()
    end, places = model.model, model_places(model)
    entries = [Entry(Lane(MODELS, "all", "", order), place, end) for order, place in places.items()]
    facts = {name: getattr(model, name) for name in ("owner", "team", "risk_tier", "mode")}
    lanes = [(field, value) for field, value in facts.items() if value]
    lanes += [("label", value) for value in _pairs(searchable_labels(model.labels))]
    lanes += [("tag", value) for value in _pairs(model.tags)]
    lanes += [("text", word) for word in model_words(model)]
    entries += [Entry(Lane(MODELS, field, value, NAME), places[NAME], end) for field, value in lanes]
    return frozenset(entries)


def model_places(model: RegisteredModel) -> dict[str, str]:
    """Return order to place of a model."""
    end = model.model
    # A tab sorts before every character of a name, so that a name comes before whatever goes on from it.
    return {NAME: f"{model.name}\t{end}", CREATED: f"{model.created_at}#{end}", UPDATED: f"{model.updated_at}#{end}"}


def entries_of_version(version: Version) -> frozenset[Entry]:
    """Return the entries of a version that follow from its head; those of its tags see `entries_of_labels`."""
    places = version_places(version.model, version.number, version.created, version.updated)
    lanes = [("all", "", order) for order in places] + [("model", version.model, order) for order in places]
    lanes += [(field, value, CREATED) for field, value in version_lanes(version)]
    entries = [Entry(Lane(VERSIONS, field, value, order), places[order], version.model, version.number) for field, value, order in lanes]
    return frozenset([*entries, *_metric_entries(version)])


def entries_of_labels(labels: Labels, created: str) -> frozenset[Entry]:
    """Return the entries that tags and description of a version add, and those at the time of their last change.

    Args:
        labels: the labels.
        created: when the version was made, RFC 3339.
    """
    if labels.deleted:
        return frozenset()
    place = version_places(labels.model, labels.number, created, "")[CREATED]
    lanes = [("tag", value) for value in _pairs(labels.tags)] + [("text", word) for word in labels_words(labels)]
    entries = [Entry(Lane(VERSIONS, field, value, CREATED), place, labels.model, labels.number) for field, value in lanes]
    if labels.updated_at:
        changed = [Lane(VERSIONS, "all", "", UPDATED), Lane(VERSIONS, "model", labels.model, UPDATED)]
        entries += [Entry(lane, _labelled_place(labels), labels.model, labels.number) for lane in changed]
    return frozenset(entries)


def version_lanes(version: Version) -> Iterator[tuple[str, str]]:
    """Yield field and value of each condition that a version's head meets and that has a lane."""
    traits = version.traits
    yield "standing", version.standing.value
    yield "stage", version.stage.value
    for name in ("owner", "risk_tier", "framework", "experiment", "run"):
        if traits.get(name):
            yield name, str(traits[name])
    for value in _pairs(searchable_labels(traits.get("labels") or {})):
        yield "label", value
    for digest in data_of(version):
        yield "data", digest


def data_of(version: Version) -> tuple[str, ...]:
    """Return the digests of the data that a version was made of, as far as they are known: source files, then prepared sets."""
    sources = [str(digest) for digest in version.traits.get("sources") or ()][:MAX_SOURCES]
    prepared = [dataset.digest for dataset in version.datasets if dataset.name in ("training", "holdout")]
    return tuple(dict.fromkeys([*sources, *prepared]))


def version_places(model: str, number: int, created: str, updated: str) -> dict[str, str]:
    """Return order to place of a version."""
    end = version_place(model, number)
    return {NAME: end, CREATED: f"{created}#{end}", UPDATED: f"{updated}#{end}"}


class Placed(Protocol):
    """What places a version: the version itself, or as much of it as was read."""

    @property
    def model(self) -> str:
        """Return the model's identity."""

    @property
    def number(self) -> int:
        """Return the version's number."""

    @property
    def created(self) -> str:
        """Return when it was made, RFC 3339."""

    @property
    def updated(self) -> str:
        """Return when its head changed last, RFC 3339."""


def current_places(version: Placed, labels: Labels) -> dict[str, str]:
    """Return order to place of a version with its labels: of its two entries by the last change, the later one counts."""
    places = version_places(version.model, version.number, version.created, version.updated)
    return {**places, UPDATED: _labelled_place(labels)} if labels.updated_at > version.updated else places


def model_words(model: RegisteredModel) -> list[str]:
    """Return the words by which a model is found: of name, purpose, description and tags, the first 24."""
    return words(model.name, model.model, model.purpose, model.description, *_texts(model.tags))[:MAX_WORDS]


def labels_words(labels: Labels) -> list[str]:
    """Return the words by which a version is found: of its description and tags, the first 24."""
    return words(labels.description, *_texts(labels.tags))[:MAX_WORDS]


def searchable_labels(labels: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a manifest by which a subject is found: the first 10 by key."""
    return {key: str(labels[key]) for key in sorted(labels)[:MAX_LABELS]}


def metrics_of(version: Version) -> dict[str, float]:
    """Return the metrics of a version that are indexed: the first 12 by name, of those that are numbers."""
    numbers: dict[str, float] = {}
    for name in sorted(version.metrics):
        try:
            value = float(version.metrics[name])
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            numbers[name] = value
    return dict(list(numbers.items())[:MAX_METRICS])


def _labelled_place(labels: Labels) -> str:
    """Return the place by the last change of the labels; its end keeps it apart from one of the head at the same time."""
    return f"{labels.updated_at}#{version_place(labels.model, labels.number)}~"


def _metric_entries(version: Version) -> Iterable[Entry]:
    end = version_place(version.model, version.number)
    for name, value in metrics_of(version).items():
        place = f"{number_place(value)}#{end}"
        yield Entry(Lane(VERSIONS, "metric", name, METRIC), place, version.model, version.number)
        yield Entry(Lane(VERSIONS, "metric", f"{version.model}/{name}", METRIC), place, version.model, version.number)


def _pairs(pairs: Mapping[str, str]) -> list[str]:
    return [pair(key, pairs[key]) for key in sorted(pairs)]


def _texts(tags: Mapping[str, str]) -> Iterator[str]:
    for key in sorted(tags):
        yield key
        yield tags[key]
