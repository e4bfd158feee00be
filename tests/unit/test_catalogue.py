"""The catalogue: models, tags, labels and aliases, under many writers, crashes and bad input."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.catalogue import ModelSubject, VersionSubject, identity_of
from attestry.domain.errors import (
    ConflictError,
    InvalidInputError,
    ModelExistsError,
    ModelModeError,
    NotFoundError,
    RevisionError,
    UnavailableError,
)
from attestry.domain.names import ModelName
from attestry.domain.stages import Stage, Standing, Status
from attestry.ports import Key, Update
from attestry.usecases.catalogue import (
    change_labels,
    change_model,
    create_model,
    delete_alias,
    delete_model,
    delete_tag,
    delete_version,
    list_aliases,
    read_alias,
    read_labels,
    read_model,
    rename_model,
    set_alias,
    set_tag,
)
from attestry.usecases.records import OUTBOX, model_key
from tests.fakes import MemoryMetaStore
from tests.versions import AT, DANA, ERIN, make_version

MODEL = "credit-risk"


def events(meta: MemoryMetaStore, *kinds: str) -> list[dict[str, Any]]:
    """The waiting events of these kinds."""
    return [e for row in meta.query(OUTBOX) if (e := json.loads(row["event"]))["kind"] in kinds]


def test_a_model_is_created_once_with_its_event_in_the_same_transaction() -> None:
    meta = MemoryMetaStore()
    made = create_model(meta, MODEL, description="who pays back", tags={"tier": "low"}, by=DANA, at=AT)
    assert meta.faults.calls.count("MemoryMetaStore.transact") == 1
    assert read_model(meta, MODEL) == made
    assert (made.rev, made.mode, made.created_by, made.model) == (1, "governed", "dana", MODEL)
    (event,) = events(meta, "model.created")
    assert (event["subject"], event["sequence"], event["principal"]["person"]) == (f"model/{MODEL}", 1, "dana")
    with pytest.raises(ModelExistsError) as refused:
        create_model(meta, MODEL, by=DANA, at=AT)
    assert refused.value.code == "model_exists"
    assert len(meta.query(OUTBOX)) == 1


def test_creating_again_with_the_same_key_returns_the_model_to_the_same_login_alone() -> None:
    meta = MemoryMetaStore()
    made = create_model(meta, MODEL, description="x", by=DANA, at=AT, key="k1")
    assert create_model(meta, MODEL, description="x", by=DANA, at=AT, key="k1") == made
    for by, description, key in ((ERIN, "x", "k1"), (DANA, "y", "k1"), (DANA, "x", "k2"), (DANA, "x", None)):
        with pytest.raises(ModelExistsError):
            create_model(meta, MODEL, description=description, by=by, at=AT, key=key)


def test_a_model_that_came_by_a_manifest_is_the_same_model_and_gets_its_row_with_its_first_change() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    assert (read_model(meta, MODEL).rev, read_model(meta, MODEL).mode) == (0, "governed")
    with pytest.raises(ModelExistsError):
        create_model(meta, MODEL, by=DANA, at=AT)
    changed = change_model(meta, MODEL, description="who pays back", by=DANA, at=AT)
    assert (changed.rev, read_model(meta, MODEL)) == (1, changed)
    assert meta.get(Key(f"MODEL#{MODEL}")) is not None


def test_a_change_states_the_whole_rows_digest_so_that_the_latest_event_binds_the_row() -> None:
    meta = MemoryMetaStore()
    create_model(meta, MODEL, by=DANA, at=AT)
    set_tag(meta, ModelSubject(MODEL), "tier", "low", by=DANA, at=AT)
    delete_tag(meta, ModelSubject(MODEL), "tier", by=DANA, at=AT)
    created, (gone,) = events(meta, "model.created")[0], events(meta, "tag.deleted")
    assert gone["sequence"] == 3
    assert gone["data"]["state"] == created["data"]["state"]


def test_the_same_change_again_writes_nothing() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    set_tag(meta, VersionSubject(MODEL, 1), "dataset", "spring", by=DANA, at=AT)
    set_alias(meta, MODEL, "champion", 1, by=DANA, at=AT)
    change_labels(meta, MODEL, 1, description="d", tags={"dataset": "spring"}, by=DANA, at=AT)
    before = dict(meta.rows)
    set_tag(meta, VersionSubject(MODEL, 1), "dataset", "spring", by=ERIN, at=AT)
    set_alias(meta, MODEL, "champion", 1, by=ERIN, at=AT)
    change_labels(meta, MODEL, 1, description="d", by=ERIN, at=AT)
    delete_tag(meta, VersionSubject(MODEL, 1), "other", by=ERIN, at=AT)
    delete_alias(meta, MODEL, "other", by=ERIN, at=AT)
    assert meta.rows == before


@pytest.mark.parametrize("after", [False, True])
def test_a_change_whose_answer_was_lost_is_done_once_by_the_retry(after: bool) -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    plan = meta.faults.fail_after if after else meta.faults.fail_before
    for act in (
        lambda: set_tag(meta, ModelSubject(MODEL), "a", "b", by=DANA, at=AT),
        lambda: set_alias(meta, MODEL, "champion", 1, by=DANA, at=AT),
        lambda: change_labels(meta, MODEL, 1, description="d", by=DANA, at=AT),
    ):
        plan(method="transact")
        with pytest.raises(UnavailableError):
            act()
        act()
    assert [e["sequence"] for e in events(meta, "tag.set", "alias.set", "version.labelled")] == [1, 1, 1]


def test_parallel_writers_lose_no_tag_and_no_event() -> None:
    meta = MemoryMetaStore()
    create_model(meta, MODEL, by=DANA, at=AT)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: set_tag(meta, ModelSubject(MODEL), f"k{n}", "v", by=DANA, at=AT), range(40)))
    assert sorted(read_model(meta, MODEL).tags) == sorted(f"k{n}" for n in range(40))
    assert sorted(e["sequence"] for e in events(meta, "tag.set")) == list(range(2, 42))


def test_an_alias_moves_tells_where_it_was_and_can_be_taken_away_and_set_anew() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    make_version(meta, number=2)
    first = set_alias(meta, MODEL, "champion", 1, by=DANA, at=AT)
    second = set_alias(meta, MODEL, "champion", 2, by=DANA, at=AT, if_rev=first.rev)
    with pytest.raises(RevisionError):
        set_alias(meta, MODEL, "champion", 1, by=DANA, at=AT, if_rev=first.rev)
    assert read_alias(meta, MODEL, "champion") == second
    assert [(e["data"]["previous"], e["data"]["number"]) for e in events(meta, "alias.set")] == [(None, 1), (1, 2)]
    delete_alias(meta, MODEL, "champion", by=DANA, at=AT)
    with pytest.raises(NotFoundError):
        read_alias(meta, MODEL, "champion")
    set_alias(meta, MODEL, "champion", 1, by=DANA, at=AT, if_rev=0)
    assert [a.number for a in list_aliases(meta, MODEL)] == [1]
    assert len({e["id"] for e in events(meta, "alias.set", "alias.deleted")}) == 4


@pytest.mark.parametrize("alias", ["", "latest", "Latest", "v3", "V12", "a b", "a/b", "a@b", "-a", "x" * 256, "ä"])
def test_an_alias_that_could_mean_something_else_is_refused(alias: str) -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    with pytest.raises(InvalidInputError):
        set_alias(meta, MODEL, alias, 1, by=DANA, at=AT)


def test_an_alias_names_only_versions_that_are_there() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    for model, number in ((MODEL, 2), ("other", 1)):
        with pytest.raises(NotFoundError):
            set_alias(meta, model, "champion", number, by=DANA, at=AT)


@pytest.mark.parametrize(
    ("key", "value"), [("", "v"), ("k" * 251, "v"), ("k\n", "v"), (" k", "v"), ("k", "v" * 5001), ("k", "\ud800"), ("k", 3)]
)
def test_a_tag_out_of_form_is_refused_and_changes_nothing(key: str, value: Any) -> None:
    meta = MemoryMetaStore()
    create_model(meta, MODEL, by=DANA, at=AT)
    before = dict(meta.rows)
    with pytest.raises(InvalidInputError):
        set_tag(meta, ModelSubject(MODEL), key, value, by=DANA, at=AT)
    assert meta.rows == before


def test_a_long_value_is_kept_whole_and_told_by_its_digest() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    set_tag(meta, VersionSubject(MODEL, 1), "notes", "ß" * 5000, by=DANA, at=AT)
    assert read_labels(meta, MODEL, 1).tags["notes"] == "ß" * 5000
    (event,) = events(meta, "tag.set")
    assert len(event["data"]["value_sha256"]) == 64


def test_a_subject_has_at_most_fifty_tags() -> None:
    meta = MemoryMetaStore()
    create_model(meta, MODEL, tags={f"k{n}": "" for n in range(50)}, by=DANA, at=AT)
    set_tag(meta, ModelSubject(MODEL), "k0", "changed", by=DANA, at=AT)
    with pytest.raises(InvalidInputError) as refused:
        set_tag(meta, ModelSubject(MODEL), "one-more", "", by=DANA, at=AT)
    assert refused.value.problems[0].rule == "max_tags"


def test_a_stale_revision_is_refused_and_nothing_is_lost() -> None:
    meta = MemoryMetaStore()
    rev = create_model(meta, MODEL, by=DANA, at=AT).rev
    change_model(meta, MODEL, description="one", by=DANA, at=AT, if_rev=rev)
    with pytest.raises(RevisionError) as refused:
        change_model(meta, MODEL, description="two", by=ERIN, at=AT, if_rev=rev)
    assert refused.value.details == {"rev": 2}
    assert read_model(meta, MODEL).description == "one"


def test_a_governed_model_is_neither_renamed_nor_deleted() -> None:
    meta = MemoryMetaStore()
    make_version(meta)
    for act in (
        lambda: rename_model(meta, MODEL, "other", by=DANA, at=AT),
        lambda: delete_model(meta, MODEL, by=DANA, at=AT),
        lambda: delete_version(meta, MODEL, 1, by=DANA, at=AT),
    ):
        with pytest.raises(ModelModeError):
            act()


def open_model(meta: MemoryMetaStore, *numbers: int, **changes: Any) -> None:
    """An open model with versions."""
    create_model(meta, MODEL, mode="open", by=DANA, at=AT)
    for number in numbers:
        make_version(meta, number=number, **changes)
    if numbers:
        meta.transact([Update(model_key(MODEL), {"next": max(numbers) + 1})])


def test_a_renamed_model_keeps_its_identity_and_is_found_by_its_new_name_alone() -> None:
    meta = MemoryMetaStore()
    open_model(meta, 1)
    rename_model(meta, MODEL, "Default risk", by=DANA, at=AT)
    found = read_model(meta, "Default risk")
    assert (found.model, found.name) == (MODEL, "Default risk")
    assert read_model(meta, MODEL).name == "Default risk", "the identity leads to it, as references and folders do"
    with pytest.raises(ModelExistsError):
        create_model(meta, "Default risk", by=DANA, at=AT)
    with pytest.raises(ModelExistsError):
        create_model(meta, MODEL, by=DANA, at=AT)
    rename_model(meta, "Default risk", "Default", by=DANA, at=AT)
    with pytest.raises(NotFoundError):
        read_model(meta, "Default risk")
    assert create_model(meta, "Default risk", by=DANA, at=AT).model != MODEL
    assert rename_model(meta, "Default", MODEL, by=DANA, at=AT).name == MODEL


def test_deleting_takes_aliases_and_labels_along_and_leaves_moves_and_events() -> None:
    meta = MemoryMetaStore()
    open_model(meta, 1, 2)
    set_alias(meta, MODEL, "champion", 1, by=DANA, at=AT)
    set_alias(meta, MODEL, "challenger", 2, by=DANA, at=AT)
    change_labels(meta, MODEL, 1, tags={"a": "b"}, by=DANA, at=AT)
    delete_version(meta, MODEL, 1, by=DANA, at=AT)
    delete_version(meta, MODEL, 1, by=DANA, at=AT)
    assert [a.alias for a in list_aliases(meta, MODEL)] == ["challenger"]
    for act in (
        lambda: read_labels(meta, MODEL, 1),
        lambda: set_alias(meta, MODEL, "champion", 1, by=DANA, at=AT),
        lambda: set_tag(meta, VersionSubject(MODEL, 1), "a", "b", by=DANA, at=AT),
    ):
        with pytest.raises(NotFoundError):
            act()
    delete_model(meta, MODEL, by=DANA, at=AT)
    delete_model(meta, MODEL, by=DANA, at=AT)
    with pytest.raises(NotFoundError):
        read_model(meta, MODEL)
    assert meta.get(Key(f"VERSION#{MODEL}#1", "TRANSITION#000002")) is not None
    assert [e["subject"] for e in events(meta, "version.deleted")] == [f"model/{MODEL}/version/1", f"model/{MODEL}/version/2"]
    again = create_model(meta, MODEL, by=DANA, at=AT)
    assert again.rev == 3, "revisions number events, so they never come twice"
    assert list_aliases(meta, MODEL) == []


@pytest.mark.parametrize("standing", [Standing.DEPLOYED, Standing.ROLLBACK, Standing.CANARY, Standing.SHADOW])
def test_a_version_in_use_is_not_deleted_and_neither_is_its_model(standing: Standing) -> None:
    meta = MemoryMetaStore()
    open_model(meta, 1, stage=Stage.DEPLOYMENT, status=Status.SUCCEEDED, standing=standing)
    for act in (lambda: delete_version(meta, MODEL, 1, by=DANA, at=AT), lambda: delete_model(meta, MODEL, by=DANA, at=AT)):
        with pytest.raises(ConflictError, match="in use"):
            act()
    assert read_model(meta, MODEL).name == MODEL


@given(st.text(min_size=1, max_size=60))
def test_whatever_name_is_accepted_has_an_identity_that_is_a_model_name(name: str) -> None:
    try:
        identity = identity_of(name)
    except InvalidInputError:
        return
    assert ModelName(identity).text == identity == identity_of(identity)
    assert identity == identity_of(name)


@pytest.mark.parametrize("name", ["", " a", "a/b", "a:b", "a@b", "a#b", "a\nb", "x" * 251, "../etc"])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        create_model(MemoryMetaStore(), name, by=DANA, at=AT)


def test_two_names_that_only_look_alike_are_two_models() -> None:
    meta = MemoryMetaStore()
    identities = {create_model(meta, name, by=DANA, at=AT).model for name in ("iris model", "iris_model", "Iris model", "iris-model")}
    assert len(identities) == 4
