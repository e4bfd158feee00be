"""The versions that the benchmark of MLflow puts into a table by the thousand are what the real calls would have written."""

from __future__ import annotations

from attestry.domain.search_index import version_place
from attestry.usecases import catalogue
from benchmarks import mlflow_rows as rows
from tests.flow import Flow
from tests.imports import DANA

MODEL = "churn"


def test_a_version_of_the_bulk_has_the_rows_and_index_entries_that_the_calls_write() -> None:
    made = Flow()
    catalogue.create_model(made.meta, MODEL, mode="open", by=DANA, at=made.clock.now())
    first, second = rows.bring(made, MODEL, 1), rows.bring(made, MODEL, 2)
    bulk = list(rows.rows_of_version(first, 2))
    clone = rows.FirstVersion(type(second.version).from_item(next(r for r in bulk if "folder" in r and r["sk"] == "HEAD")), (), {})

    def shape(version: rows.FirstVersion, found: list[dict]) -> dict:
        own = {version.version.candidate: "CANDIDATE", version.version.version_digest: "DIGEST", version.version.execution_id: "EXECUTION"}
        return {(rows._changed(str(r["pk"]), own), rows._changed(str(r["sk"]), own)): set(r) for r in found}

    assert shape(clone, bulk) == shape(second, list(second.rows))
    assert (clone.version.number, clone.version.reference) == (2, f"{MODEL}@2")
    assert any(row["sk"].endswith(version_place(MODEL, 2)) for row in bulk if row["pk"].startswith("INDEX#"))
    assert not any(f"{MODEL}@1" in repr(row) or f"{first.version.candidate}" in repr(row) for row in bulk)
    numbered = {row["number"] for row in bulk if "number" in row}
    assert numbered == {2}


def test_a_bulk_of_many_versions_writes_each_row_once_and_counts_them_in_the_models_row() -> None:
    found = list(rows.rows_of_model(rows.first_version(MODEL), 30))
    assert len({rows.key_of(row) for row in found}) == len(found)
    assert found[0]["next"] == 31
