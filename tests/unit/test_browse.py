"""The read side: what is shown, to whom, and what never is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from attestry.domain.errors import ForbiddenError, InvalidInputError, NotFoundError
from attestry.domain.paging import Page
from attestry.usecases import browse
from attestry.usecases.findings import Observed, Scope, settle
from tests.fakes import MemoryMetaStore
from tests.flow import Serving
from tests.versions import DANA, ERIN, session

MODEL = "tumour-diagnosis"


@pytest.fixture(scope="module")
def serving() -> Serving:
    return Serving()


def test_a_version_is_shown_with_its_manifest_moves_stages_and_decisions(serving):
    shown = browse.show_version(serving.flow.meta, serving.flow.store, MODEL, 1)
    assert shown["manifest_content"]["training"]["hyperparameters"]["C"] == 0.1
    assert [s["stage"] for s in shown["stages"]] == ["PROCESSING", "TRAINING", "VALIDATION"]
    assert [a["person"] for a in shown["approvals"]] == ["erin"]
    assert shown["transitions"][-1]["to"]["standing"] == "DEPLOYED"


def test_a_task_token_is_never_shown():
    serving = Serving()
    version = serving.flow.register_example(edit=lambda d: d["training"]["hyperparameters"].update(C=0.3))
    token = serving.flow.to_approval(version)
    shown = browse.show_version(serving.flow.meta, serving.flow.store, MODEL, 2)
    assert token not in json.dumps(shown)


def test_versions_are_listed_in_order_with_their_standing(serving):
    assert [(v["number"], v["standing"]) for v in browse.list_versions(serving.flow.meta, MODEL)] == [(1, "DEPLOYED")]


def test_what_does_not_exist_is_not_found(serving):
    meta, store = serving.flow.meta, serving.flow.store
    for ask in (
        lambda: browse.show_model(meta, "none"),
        lambda: browse.list_versions(meta, "none"),
        lambda: browse.show_version(meta, store, MODEL, 99),
        lambda: browse.read_log(meta, store, MODEL, 1, "DEPLOYMENT"),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_a_version_has_no_differences_to_itself_and_one_row_for_one_changed_setting(serving):
    flow = serving.flow
    assert browse.diff_versions(flow.meta, flow.store, MODEL, 1, 1) == []
    number = flow.register_example(edit=lambda d: d["training"]["hyperparameters"].update(C=0.7)).number
    rows = browse.diff_versions(flow.meta, flow.store, MODEL, 1, number)
    assert [(r["field"], r["before"], r["after"]) for r in rows if r["section"] == "hyperparameters"] == [("C", 0.1, 0.7)]


def test_a_data_set_is_listed_with_digests_and_urls_of_exactly_its_bytes(serving):
    listed = browse.list_data(serving.flow.meta, serving.flow.store, MODEL, 1, "training", by=DANA)
    file = listed["files"][0]
    assert serving.flow.store.fetch(file["url"]) == b"PAR1 train/part-0.parquet"
    assert listed["digests"] == {"training": serving.version.dataset("training").digest}


def test_asking_for_the_hold_out_gives_features_and_no_labels(serving):
    listed = browse.list_data(serving.flow.meta, serving.flow.store, MODEL, 1, "holdout", by=DANA)
    assert list(listed["digests"]) == ["holdout"]


@pytest.mark.parametrize("role", ["scientist", "consumer", "deployer"])
def test_the_labels_that_candidates_are_judged_by_are_not_shown_to_who_makes_candidates(serving, role):
    with pytest.raises(ForbiddenError, match="judged by them"):
        browse.list_data(serving.flow.meta, serving.flow.store, MODEL, 1, "holdout-labels", by=session(role, "dana"))


def test_the_labels_are_shown_to_who_reviews(serving):
    assert browse.list_data(serving.flow.meta, serving.flow.store, MODEL, 1, "holdout-labels", by=ERIN)["files"]


def test_a_kind_of_data_set_that_does_not_exist_is_refused_by_field(serving):
    with pytest.raises(InvalidInputError) as refused:
        browse.list_data(serving.flow.meta, serving.flow.store, MODEL, 1, "test", by=ERIN)
    assert refused.value.problems[0].field == "set"


def test_the_log_of_a_stage_is_what_the_script_wrote(serving):
    assert browse.read_log(serving.flow.meta, serving.flow.store, MODEL, 1, "TRAINING")["text"] == "the script's log\n"


def test_show_tells_open_findings_of_model_and_version(serving):
    version, meta = serving.version, serving.flow.meta
    for number in (0, version.number):
        scope = Scope("test", version.model, number)
        settle(meta, scope, [Observed("head.metrics", f"row of {number}", "0.9", "0.99")], serving.flow.clock.now())
    shown = browse.show_version(meta, serving.flow.store, version.model, version.number)["findings"]
    assert [(f["what"], f["where"]) for f in shown] == [("head.metrics", f"row of {version.number}")]
    assert [f["where"] for f in browse.show_model(meta, version.model)["findings"]] == ["row of 0"]
    for number in (0, version.number):
        settle(meta, Scope("test", version.model, number), [], serving.flow.clock.now())
    assert browse.show_version(meta, serving.flow.store, version.model, version.number)["findings"] == []


@pytest.fixture(scope="module")
def thousand() -> MemoryMetaStore:
    meta = MemoryMetaStore()
    for n in range(1_000):
        name = f"model-{n:04d}"
        key = browse.model_key(name)
        meta.rows[key] = {"pk": key.partition, "sk": key.sort, "model": name, "gsi_pk": browse.MODELS, "gsi_sk": name}
    return meta


class TestModels:
    """A registry of a thousand models, of which a caller may read every hundredth."""

    MINE = frozenset(f"model-{n:04d}" for n in range(50, 1_000, 100))

    @classmethod
    def readable(cls, models: list[str]) -> list[str]:
        return [model for model in models if model in cls.MINE]

    def test_a_page_is_filled_with_those_that_the_caller_may_read(self, thousand: MemoryMetaStore) -> None:
        found, behind = browse.list_models(thousand, Page(3, None, "GET /v1/models"), self.readable)
        assert [row["model"] for row in found] == sorted(self.MINE)[:4]  # one more, so that it is known that there is a next page
        assert behind is None
        found, behind = browse.list_models(thousand, Page(100, None, "GET /v1/models"), self.readable)
        assert [row["model"] for row in found] == sorted(self.MINE)
        assert behind is None

    def test_it_ends_where_too_many_were_looked_at_and_goes_on_behind_one_that_the_caller_may_read(
        self, thousand: MemoryMetaStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(browse, "LOOKED_AT", 300)
        page, found = Page(100, None, "GET /v1/models"), list[str]()
        while True:
            rows, behind = browse.list_models(thousand, page, self.readable)
            found += [row["model"] for row in rows]
            if behind is None:
                break
            assert behind in self.MINE
            page = replace(page, after=behind)
        assert found == sorted(self.MINE)

    def test_who_may_read_none_sees_none_and_comes_to_the_end(self, thousand: MemoryMetaStore) -> None:
        assert browse.list_models(thousand, Page(100, None, "GET /v1/models"), lambda models: []) == ([], None)
