"""Data that come in: a file that is put under `datasets-in/<model>/<source name>/<user id>/` takes the place of a source file.

Rules:
- Who may put a file under a prefix is who the prefix names: the bucket's policy lets a caller write below its own `aws:userid` alone.
- A file is noted before it is taken. Notes are taken together, once no further file has come for `refresh.quiet_seconds`, or at once when
  an object named `_COMPLETE` is put beside one of them. Of two files for one source the one that came later counts.
- A note stays while a version is on its way or the cool-down runs, and is taken afterwards; it goes once a version was made of it, or
  nothing had to be.

REFRESH#<model>/DROP#<source>      key, version_id, came, user_id; in the collection DROPS
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from attestry.domain.cause import CauseKind
from attestry.domain.errors import AttestryError, ConditionFailedError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.events import timestamp
from attestry.domain.names import ModelName, check_relative_path
from attestry.domain.principal import registry_principal
from attestry.ports import ABSENT, Delete, Item, Key, MetaStore, ObjectStore, Put, When
from attestry.usecases.manifests import load_registered_manifest
from attestry.usecases.records import login_key
from attestry.usecases.refresh import Refreshed, Refresher, Trigger, refresh_key, version_in_force
from attestry.usecases.source_data import NewData, read_data

PREFIX: Final = "datasets-in/"
MARKER: Final = "_COMPLETE"
DROPS: Final = "DROPS"
TRIES: Final = 8
_PARTS: Final = 5
_DONE: Final = ("MADE", "MADE_BEFORE", "NOTHING", "SKIPPED")


@dataclass(frozen=True)
class Drop:
    """A file that was put where data come in.

    Attributes:
        key: its object key.
        model: the model that the key names.
        source: name of the source file in the manifest.
        user_id: `aws:userid` of who put it there, as the key says and the bucket's policy enforces.
        is_marker: whether it only says that what was put there is complete.
    """

    key: str
    model: str
    source: str
    user_id: str
    is_marker: bool

    @classmethod
    def parse(cls, key: str) -> Drop | None:
        """Return the drop that an object key is, or None for any other object.

        Raises:
            InvalidInputError: it lies below the prefix, and not where a file is expected.
        """
        if not key.startswith(PREFIX):
            return None
        parts = key.split("/", _PARTS - 1)
        if len(parts) != _PARTS or not all(parts) or key.endswith("/"):
            raise InvalidInputError.of(
                "key", "drop", f"a file comes in under {PREFIX}<model>/<source name>/<user id>/<file>, not {key!r:.200}"
            )
        _, model, source, user_id, name = parts
        check_relative_path(name, field="key")
        return cls(key, str(ModelName(model)), source, user_id, name.rpartition("/")[2] == MARKER)


class DataWatcher:
    """Takes files that come in.

    Args:
        meta: the table.
        store: the model store.
        refresher: makes versions.
    """

    def __init__(self, meta: MetaStore, store: ObjectStore, refresher: Refresher) -> None:
        self._meta = meta
        self._store = store
        self._refresher = refresher

    def arrived(self, drop: Drop, version_id: str | None, came: datetime, at: datetime) -> Refreshed:
        """Note a file, and make a version of what is noted if its time has come.

        Args:
            drop: the file.
            version_id: its S3 version; None for the latest.
            came: when it was put there.
            at: the time.

        Raises:
            UnavailableError: a service failed; the event is delivered again.
        """
        try:
            self._check_watched(drop)
            if not drop.is_marker:
                self._note(drop, version_id, came)
        except (InvalidInputError, NotFoundError) as error:
            return self._refresher.skip(drop.model, CauseKind.DATA, error.message, at, {"key": drop.key[:500]})
        return self.take(drop.model, at, complete=drop.is_marker)

    def take_all(self, at: datetime) -> list[Refreshed]:
        """Take what has waited long enough, of every model; one model's trouble does not hold up the others."""
        taken: list[Refreshed] = []
        for model in sorted({str(row["model"]) for row in self._meta.list_collection(DROPS)}):
            try:
                taken.append(self.take(model, at))
            except UnavailableError as error:
                taken.append(Refreshed("WAITS", model, None, error.message))
        return taken

    def take(self, model: str, at: datetime, *, complete: bool = False) -> Refreshed:
        """Make a version of the files that are noted for a model.

        Args:
            model: the model.
            at: the time.
            complete: whether somebody has said that no more will come.

        Raises:
            UnavailableError: a service failed; the notes stay.
        """
        rows = self._meta.query(refresh_key(model).partition, prefix="DROP#")
        if not rows:
            return Refreshed("NOTHING", model, None, "nothing waits to be taken")
        try:
            until = self._quiet_until(model, rows)
            if not complete and at < until:
                return Refreshed("WAITS", model, None, f"more files may come until {timestamp(until)}")
            done = self._refresher.refresh(model, self._trigger(rows), at)
        except UnavailableError:
            raise
        except AttestryError as error:
            done = self._refresher.skip(model, CauseKind.DATA, error.message, at, {"files": sorted(str(r["key"])[:300] for r in rows)[:3]})
        if done.state in _DONE:
            for row in rows:
                self._forget(model, row)
        return done

    def _check_watched(self, drop: Drop) -> None:
        version = version_in_force(self._meta, drop.model)
        manifest = load_registered_manifest(self._store, version)
        if manifest.refresh is None or not manifest.refresh.data:
            raise InvalidInputError.of("refresh.data", "watched", f"the manifest of {version.reference} does not ask for new data")
        names = [s.name for s in manifest.data.source]
        if drop.source not in names and not drop.is_marker:
            message = f"{drop.source!r:.80} is no source of {version.reference}; it has {', '.join(names)}"
            raise InvalidInputError.of("data", "known_source", message)

    def _quiet_until(self, model: str, rows: list[Item]) -> datetime:
        manifest = load_registered_manifest(self._store, version_in_force(self._meta, model))
        quiet = timedelta(seconds=manifest.refresh.quiet_seconds if manifest.refresh else 0)
        return max(datetime.fromisoformat(str(row["came"])) for row in rows) + quiet

    def _note(self, drop: Drop, version_id: str | None, came: datetime) -> None:
        key = _drop_key(drop.model, drop.source)
        for _ in range(TRIES):
            there = self._meta.get(key)
            noted = (there["came"], there["key"]) if there else ("", "")
            if (timestamp(came), drop.key) < noted:
                return
            row = {
                "model": drop.model,
                "source": drop.source,
                "key": drop.key,
                "version_id": version_id or "",
                "user_id": drop.user_id,
                "came": timestamp(came),
                "gsi_pk": DROPS,
                "gsi_sk": f"{timestamp(came)}#{drop.model}",
            }
            try:
                self._meta.transact([Put(key, row, _as_read(there))])
            except ConditionFailedError:
                continue
            return
        raise UnavailableError(f"{drop.key} could not be noted: others kept putting files there")

    def _trigger(self, rows: list[Item]) -> Trigger:
        data = {str(row["source"]): self._read(row) for row in rows}
        brought = sorted({str(row["user_id"]) for row in rows})
        return Trigger(
            CauseKind.DATA,
            registry_principal("refresh-data"),
            f"new data have come for {', '.join(sorted(data))}",
            facts={"brought_by": brought},
            data=data,
        )

    def _read(self, row: Mapping[str, Any]) -> NewData:
        return read_data(self._store, str(row["key"]), str(row["version_id"]) or None, by=person_behind(self._meta, str(row["user_id"])))

    def _forget(self, model: str, row: Item) -> None:
        try:
            self._meta.transact([Delete(_drop_key(model, str(row["source"])), _as_read(row))])
        except ConditionFailedError:
            return  # A later file has come, or somebody else has taken this one.


def person_behind(meta: MetaStore, user_id: str) -> str:
    """Return the person that the session of a user ID (`<role id>:<session name>`) stands for, or an empty text.

    It serves to bar persons, never to let them: a session name that nobody vouches for bars one person too many at the most.
    """
    session = user_id.partition(":")[2]
    row = meta.get(login_key(session)) if session else None
    return str(row["person"]) if row else ""


def _drop_key(model: str, source: str) -> Key:
    return Key(refresh_key(model).partition, f"DROP#{source}")


def _as_read(row: Item | None) -> When:
    return When(exists=True, equals={name: row[name] for name in ("key", "version_id", "came")}) if row else ABSENT
