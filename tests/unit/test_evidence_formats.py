"""Digests, canonical JSON, artifact manifests and version URNs."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.evidence.artifact_manifest import ArtifactManifest, FrozenFile, ManifestEnvironment, SourceData
from attestry.evidence.canonical import canonical_bytes, parse_canonical, parse_strict
from attestry.evidence.compact_jws import decode_segment
from attestry.evidence.digests import digest_stream, tree_digest
from attestry.evidence.prediction_id import MAX_SEQUENCE, PredictionId
from attestry.evidence.version_urn import VersionUrn

SHA = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=8)
FILES = st.lists(st.builds(FrozenFile, path=NAMES, size=st.integers(0, 2**40), sha256=SHA), max_size=6, unique_by=lambda f: f.path)
MANIFESTS = st.builds(
    ArtifactManifest,
    model=NAMES,
    number=st.integers(1, 10**9 - 1),
    execution_id=NAMES,
    candidate=SHA,
    source=st.lists(st.builds(SourceData, NAMES, SHA, st.integers(0, 2**40)), max_size=3, unique_by=lambda s: s.name).map(tuple),
    training=SHA,
    holdout=SHA,
    environment=st.builds(ManifestEnvironment, NAMES, SHA, SHA, st.just("3.13")),
    files=FILES.map(tuple),
)
TEXTS = st.text(st.characters(codec="utf-8"))
EXACT = 2**53 - 1
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-EXACT, EXACT) | st.floats(-EXACT, EXACT) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_means_what_was_written(value: object) -> None:
    data = canonical_bytes(value)
    assert canonical_bytes(parse_canonical(data)) == data
    assert json.loads(data) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**53, -(2**53), "\ud800", {1: "x"}, {"a": object()}])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError):
        canonical_bytes([value])


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e999", '{"a":1,"a":2}', "", "[1", "[1]x", "[" * 100_000, "\ufeff[]"])
def test_json_that_readers_disagree_about_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_strict(text)


@pytest.mark.parametrize("data", [b'{"b":1,"a":2}', b'{ "a":1}', b"1.0", b'"\\u0041"', b"[1]\n", b"\xff"])
def test_json_in_another_than_the_canonical_form_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_canonical(data)


def test_a_stream_is_digested_to_its_end_across_chunks() -> None:
    data = bytes(range(256)) * 10_000
    found = digest_stream(io.BytesIO(data))
    assert (found.sha256, found.size) == (hashlib.sha256(data).hexdigest(), len(data))


@given(FILES, st.randoms())
def test_a_tree_digest_does_not_depend_on_the_order_of_the_files(files: list[FrozenFile], random: object) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tree_digest(files) == tree_digest(shuffled)


@given(FILES, SHA)
def test_a_tree_digest_changes_with_path_size_and_digest(files: list[FrozenFile], other: str) -> None:
    assume(files and files[0].sha256 != other)
    before = tree_digest(files)
    first = files[0]
    for changed in (replace(first, path=first.path + "x"), replace(first, size=first.size + 1), replace(first, sha256=other)):
        assert tree_digest([changed, *[f for f in files[1:] if f.path != changed.path]]) != before


def test_a_tree_digest_can_be_recomputed_with_a_json_library() -> None:
    files = [FrozenFile("b", 2, "b" * 64), FrozenFile("a/x", 1, "a" * 64)]
    text = f'[{{"path":"a/x","sha256":"{"a" * 64}","size":1}},{{"path":"b","sha256":"{"b" * 64}","size":2}}]'
    assert tree_digest(files) == hashlib.sha256(text.encode()).hexdigest()


def test_a_set_with_one_path_twice_has_no_tree_digest() -> None:
    with pytest.raises(InvalidInputError, match="unique_path"):
        tree_digest([FrozenFile("a", 1, "a" * 64), FrozenFile("a", 1, "b" * 64)])


@given(MANIFESTS)
def test_an_artifact_manifest_is_read_as_it_was_written(manifest: ArtifactManifest) -> None:
    data = manifest.to_bytes()
    assert ArtifactManifest.from_bytes(data) == manifest
    assert manifest.version_digest == hashlib.sha256(data).hexdigest()


@given(MANIFESTS, st.data())
def test_a_changed_byte_of_an_artifact_manifest_is_refused_or_another_version(manifest: ArtifactManifest, data: st.DataObject) -> None:
    raw = bytearray(manifest.to_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = ArtifactManifest.from_bytes(bytes(raw))
    except InvalidInputError:
        return
    assert changed.version_digest != manifest.version_digest
    assert changed.to_bytes() == bytes(raw)


def manifest_with(**changes: object) -> bytes:
    document = {
        "format": 1,
        "model": "m",
        "number": 1,
        "execution_id": "e",
        "candidate": "0" * 64,
        "datasets": {"source": [{"name": "s", "sha256": "1" * 64, "size": 3}], "training": "2" * 64, "holdout": "3" * 64},
        "environment": {"id": "i", "lock_sha256": "4" * 64, "archive_sha256": "5" * 64, "python": "3.13"},
        "files": [{"path": "a", "size": 1, "sha256": "6" * 64}, {"path": "b/c", "size": 2, "sha256": "7" * 64}],
    }
    return canonical_bytes({**document, **changes})


def file(path: str, size: object = 1, sha256: object = "6" * 64) -> dict[str, object]:
    return {"path": path, "size": size, "sha256": sha256}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": True},
        {"number": 0},
        {"number": "1"},
        {"number": True},
        {"model": ""},
        {"model": "../m"},
        {"extra": 1},
        {"candidate": "0" * 63},
        {"candidate": "A" * 64},
        {"datasets": {"source": [], "training": "2" * 64}},
        {"files": [file("b"), file("a")]},
        {"files": [file("a"), file("a")]},
        {"files": [file("A"), file("a")]},
        {"files": [file("../a")]},
        {"files": [file("/a")]},
        {"files": [file("a\0")]},
        {"files": [file("a", size=-1)]},
        {"files": [file("a", size=True)]},
        {"files": [file("a", sha256="x")]},
        {"files": [{"path": "a", "size": 1}]},
        {"files": ["a"]},
    ],
    ids=str,
)
def test_an_artifact_manifest_that_breaks_a_rule_is_refused(changes: dict[str, object]) -> None:
    assert ArtifactManifest.from_bytes(manifest_with())
    with pytest.raises(InvalidInputError):
        ArtifactManifest.from_bytes(manifest_with(**changes))


def test_two_trainings_with_equal_bytes_are_two_versions() -> None:
    first = ArtifactManifest.from_bytes(manifest_with())
    second = ArtifactManifest.from_bytes(manifest_with(execution_id="e2", number=2))
    assert first.files == second.files
    assert first.version_digest != second.version_digest


@given(st.integers(1, 10**9 - 1), SHA)
def test_a_version_urn_is_read_as_it_was_written(number: int, digest: str) -> None:
    urn = VersionUrn("credit-risk", number, digest)
    assert VersionUrn.parse(str(urn)) == urn


@pytest.mark.parametrize(
    "text",
    [
        "",
        "urn:attestry:m:0:sha256:" + "a" * 64,
        "urn:attestry:m:01:sha256:" + "a" * 64,
        "URN:attestry:m:1:sha256:" + "a" * 64,
        "urn:attestry:m:1:sha256:" + "a" * 63,
        "urn:attestry:m:1:sha256:" + "a" * 64 + "\n",
        "urn:attestry:a:b:1:sha256:" + "a" * 64,
    ],
)
def test_what_is_no_version_urn_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        VersionUrn.parse(text)


@given(st.integers(1, MAX_SEQUENCE))
def test_a_prediction_id_is_read_as_it_was_written(sequence: int) -> None:
    prediction = PredictionId("a" * 52, sequence)
    assert PredictionId.parse(str(prediction)) == prediction


@pytest.mark.parametrize("tail", ["=", "+/", " ", "\n"])
def test_a_segment_has_one_text_only(tail: str) -> None:
    assert decode_segment("AQ") == b"\x01"
    for text in ("AR", "A", f"AQ{tail}", "AQ=="):
        with pytest.raises(InvalidInputError):
            decode_segment(text)


BAD_IDS = ["a" * 52, "a" * 52 + "-0", "a" * 52 + "-01", "a" * 51 + "b-1", "A" * 52 + "-1", "a" * 52 + "-1\n", "a" * 52 + "-1" * 13]


@pytest.mark.parametrize("text", ["", *BAD_IDS])
def test_what_is_no_prediction_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        PredictionId.parse(text)
