"""Names of models, versions, folders, executions and files."""

from __future__ import annotations

import posixpath
import unicodedata
from datetime import date
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.domain.names import (
    DistinctPaths,
    FolderNaming,
    ModelName,
    VersionReference,
    check_relative_path,
    find_broken_path_rule,
    fold_path,
    name_execution,
    name_version_folder,
)

REVISION = "9fceb02d0ae598e95dc970b74767f19372d61af8"


@pytest.mark.parametrize("text", ["a", "credit-risk", "2024", "a" * 63, "a--b"])
def test_a_model_name_is_a_dns_label(text: str) -> None:
    assert ModelName(text).prefix == f"models/{text}/"


@pytest.mark.parametrize(
    "text",
    ["", "A", "a_b", "a/b", "../a", "a.b", "-a", "a-", "a" * 64, "a\n", "a b", "ä", "a\0", "%2e%2e", "a@1", "\u0430"],
)
def test_anything_else_is_no_model_name(text: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        ModelName(text)
    assert error.value.problems[0].rule == "model_name"


@given(st.text(max_size=80))
def test_no_accepted_model_name_leaves_its_prefix(text: str) -> None:
    try:
        prefix = ModelName(text).prefix
    except InvalidInputError:
        return
    assert posixpath.normpath(prefix) + "/" == prefix
    assert prefix.count("/") == 2


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True), st.integers(1, 999_999_999))
def test_a_version_reference_reads_what_it_writes(model: str, number: int) -> None:
    reference = VersionReference(model, number)
    assert VersionReference.parse(str(reference)) == reference


@pytest.mark.parametrize("text", ["", "a", "a@", "@1", "a@0", "a@01", "a@-1", "a@1.0", "a@1\n", "a@\u0661", "A@1", "a@1@2", "a@9999999999"])
def test_anything_else_is_no_version_reference(text: str) -> None:
    with pytest.raises(InvalidInputError):
        VersionReference.parse(text)


def test_an_execution_is_named_by_model_number_attempt_and_candidate() -> None:
    assert name_execution("credit-risk", 3, 2, "0123456789abcdef" * 4) == "credit-risk-3-2-0123456789ab"


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True), st.integers(1, 10**9), st.integers(1, 10**6))
def test_the_name_of_an_execution_fits_into_step_functions(model: str, number: int, attempt: int) -> None:
    name = name_execution(model, number, attempt, "f" * 64)
    assert len(name) <= 80
    assert name.endswith(f"-{number}-{attempt}-ffffffffffff")


def test_a_version_has_a_folder_named_by_number_revision_and_execution() -> None:
    assert name_version_folder("credit-risk", 3, REVISION, "credit-risk-3-1-0123456789ab") == (
        f"models/credit-risk/3-{REVISION}-credit-risk-3-1-0123456789ab/"
    )


@pytest.mark.parametrize(
    ("naming", "folder"),
    [
        (FolderNaming.REVISION, f"models/m/3-{REVISION}/"),
        (FolderNaming.EXECUTION, "models/m/3-exec/"),
        (FolderNaming.DATE, "models/m/3-2025-06-30/"),
    ],
)
def test_the_naming_of_folders_can_be_chosen(naming: FolderNaming, folder: str) -> None:
    assert name_version_folder("m", 3, REVISION, "exec", naming=naming, day=date(2025, 6, 30)) == folder


@pytest.mark.parametrize("naming", FolderNaming)
def test_two_versions_never_share_a_folder_whatever_the_naming(naming: FolderNaming) -> None:
    folders = {name_version_folder("m", n, REVISION, "same", naming=naming, day=date(2025, 6, 30)) for n in range(1, 200)}
    assert len(folders) == 199


def test_a_folder_by_date_needs_the_day() -> None:
    with pytest.raises(InvalidInputError):
        name_version_folder("m", 1, REVISION, "e", naming=FolderNaming.DATE)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("", "path_not_empty"),
        ("a\0b", "path_no_nul"),
        ("a\nb", "path_no_control_characters"),
        ("a\x7fb", "path_no_control_characters"),
        ("a\u2028b", "path_no_control_characters"),
        ("evil\u202etxt.py", "path_no_control_characters"),
        ("a\ud800", "path_no_control_characters"),
        ("a\\b", "path_no_backslash"),
        ("C:\\x", "path_no_backslash"),
        ("/etc/passwd", "path_relative"),
        ("../a", "path_no_parent"),
        ("a/../../b", "path_no_parent"),
        ("a/..", "path_no_parent"),
        ("..", "path_no_parent"),
        ("a//b", "path_plain_segments"),
        ("a/", "path_plain_segments"),
        ("./a", "path_plain_segments"),
        (".", "path_plain_segments"),
        ("a/" * 256 + "b", "path_length"),
        ("ä" * 128, "path_length"),
    ],
)
def test_a_bad_path_is_refused_by_its_rule(path: str, rule: str) -> None:
    broken = find_broken_path_rule(path)
    assert broken is not None
    assert broken.rule == rule
    broken.message.encode("ascii")


@pytest.mark.parametrize("path", ["a", "a/b.py", ".hidden", "..a", "a..b", "x y/ü.txt", "a" * 255, "~", "-x"])
def test_a_good_path_is_given_back(path: str) -> None:
    assert check_relative_path(path) == path


@given(st.text(alphabet=st.sampled_from("ab./\\\0\n~%ä\u202e "), max_size=30) | st.text(max_size=60))
def test_no_accepted_path_leaves_its_folder(path: str) -> None:
    if find_broken_path_rule(path) is not None:
        return
    assert posixpath.normpath(posixpath.join("/root/folder", path)) == f"/root/folder/{path}"
    assert not PurePosixPath(path).is_absolute()
    assert len(path.encode()) <= 512


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train.py", "train.py"),
        ("train.py", "Train.PY"),
        ("é.py", "e\u0301.py"),
        ("straße", "STRASSE"),
        ("ﬁle", "file"),
        ("a", "a/b"),
        ("A/b", "a"),
        ("x/Y/z", "X/y"),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_two_paths_that_fall_together_are_refused(one: str, other: str, swap: bool) -> None:
    paths = DistinctPaths("files")
    first, second = (other, one) if swap else (one, other)
    paths.add(first)
    with pytest.raises(InvalidInputError) as error:
        paths.add(second)
    assert (error.value.problems[0].field, error.value.problems[0].rule) == ("files", "path_distinct")


def test_a_folder_may_come_twice_but_not_in_the_place_of_a_file() -> None:
    paths = DistinctPaths()
    paths.add_folder("a")
    paths.add_folder("a")
    paths.add("a/b")
    for folder in ("A/B", "a/b/c"):
        with pytest.raises(InvalidInputError):
            paths.add_folder(folder)
    with pytest.raises(InvalidInputError):
        paths.add("A")


@given(st.lists(st.text(alphabet="aAbBäÄ/é\u0301\u017fs", min_size=1, max_size=6), max_size=12))
def test_the_paths_of_a_set_stay_apart_on_every_file_system(candidates: list[str]) -> None:
    paths, kept = DistinctPaths(), []
    for path in candidates:
        try:
            kept.append(paths.add(path))
        except InvalidInputError:
            continue
    folded = [fold_path(path) for path in kept]
    assert len(set(folded)) == len(folded)
    assert not any(other.startswith(f"{path}/") for path in folded for other in folded)


@given(st.text(max_size=30))
def test_folding_again_changes_nothing_and_forms_do_not_matter(text: str) -> None:
    assert fold_path(fold_path(text)) == fold_path(text)
    assert fold_path(unicodedata.normalize("NFD", text)) == fold_path(unicodedata.normalize("NFC", text))
