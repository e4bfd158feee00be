"""Publishing the root of trust: what passes, what is refused, and what a crash leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.rows import marshal_row
from attestry.client.ceremony import next_root, next_targets, seal, sign
from attestry.client.key_changes import revoke
from attestry.domain.errors import AttestryError, ConflictError, IntegrityError, InvalidInputError, UnavailableError
from attestry.domain.principal import Principal
from attestry.evidence.canonical import parse_canonical
from attestry.evidence.trusted_root import TrustedRoot
from attestry.ports import Key
from attestry.usecases.records import OUTBOX
from attestry.usecases.root import ROOT_KEY, Publication, publish_root, root_files, show_root
from tests.fakes import Faults, Killed, MemoryMetaStore, MemoryObjectStore
from tests.root_api import OUTSIDE, RootRegistry
from tests.root_of_trust import NOW, REGISTRY, WITNESS, People, a_trusted_root, moment

BY = Principal(
    "arn:aws:sts::1:assumed-role/attestry-admin/ada", "AROA:ada", "aws:1", "AWS_IAM SigV4", "192.0.2.7", "ada", ("admin",), "ada"
)

Files = dict[str, bytes]


class Place:
    """A registry's table and store."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.meta, self.store = MemoryMetaStore(self.faults), MemoryObjectStore(self.faults)

    def publish(self, files: Files, **more: Any) -> Publication:
        return publish_root(self.meta, self.store, files, **{"registry": REGISTRY, "by": BY, "at": NOW, **more})

    def events(self) -> list[dict[str, Any]]:
        return [parse_canonical(row["event"]) for key, row in self.meta.rows.items() if key.partition == OUTBOX]


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture(scope="module")
def trusted() -> TrustedRoot:
    return a_trusted_root()


@pytest.fixture(scope="module")
def first(people: People, trusted: TrustedRoot) -> Files:
    return people.begin(trusted)


@pytest.fixture(scope="module")
def second(people: People, trusted: TrustedRoot, first: Files) -> Files:
    return people.finish(next_targets(first, revoke(trusted, trusted.signers[0].fingerprint, since=moment(9)), at=NOW))


@pytest.fixture
def place() -> Place:
    return Place()


def test_the_first_root_is_published_with_its_event(place: Place, first: Files, trusted: TrustedRoot) -> None:
    published = place.publish(first)
    assert published.changed
    assert published.verified.trusted_root == trusted
    (event,) = place.events()
    assert (event["kind"], event["subject"], event["sequence"]) == ("root.published", "root", 1)
    assert event["data"] == {
        "trusted_root_sha256": trusted.sha256,
        "versions": {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1},
        "first_root_sha256": published.verified.fingerprint,
        "demo": False,
    }
    shown = show_root(place.meta, place.store)
    assert shown is not None
    assert shown.files == published.files


def test_the_files_lie_in_the_store_retained_and_the_timestamp_can_be_overwritten(place: Place, first: Files, trusted: TrustedRoot) -> None:
    place.publish(first)
    names = {"1.root.json", "1.snapshot.json", "1.targets.json", f"{trusted.sha256}.trusted_root.json", "timestamp.json"}
    assert set(place.store.versions) == {f"root/{name}" for name in names}
    retained = {key for key, versions in place.store.versions.items() if versions[-1].retained}
    assert retained == set(place.store.versions) - {"root/timestamp.json"}


def test_the_same_again_changes_nothing(place: Place, first: Files) -> None:
    place.publish(first)
    assert not place.publish(first).changed
    assert not place.publish(first, at=NOW + timedelta(days=4000)).changed
    assert len(place.events()) == 1
    assert place.meta.rows[ROOT_KEY]["rev"] == 1


def test_a_later_version_follows_and_needs_only_its_own_files(place: Place, first: Files, second: Files) -> None:
    place.publish(first)
    fresh = {name: data for name, data in second.items() if first.get(name) != data}
    assert place.publish(fresh).verified.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
    assert [e["sequence"] for e in place.events()] == [1, 2]


def test_a_rollback_is_refused(place: Place, first: Files, second: Files) -> None:
    place.publish(second)
    with pytest.raises(IntegrityError, match="rollback"):
        place.publish(first)


def test_a_root_of_somebody_elses_making_is_refused(place: Place, first: Files, trusted: TrustedRoot) -> None:
    place.publish(first)
    thief = People()
    with pytest.raises(ConflictError, match=r"another 1\.root\.json"):
        place.publish(thief.begin(trusted))
    forged = thief.finish(next_targets(thief.begin(trusted), trusted, at=NOW))
    del forged["1.root.json"]
    with pytest.raises(IntegrityError, match="valid signatures"):
        place.publish(forged)


def test_targets_without_enough_signatures_are_refused(place: Place, people: People, trusted: TrustedRoot, first: Files) -> None:
    with pytest.raises(ConflictError, match="signatures are missing"):
        people.finish(next_targets(first, trusted, at=NOW), count=1)
    place.publish(first)
    weak = People(people.holders[:1] * 2, people.sealer)
    with pytest.raises(InvalidInputError, match="twice"):
        weak.begin(trusted)


def test_a_key_that_disappears_or_comes_back_is_refused(
    place: Place, people: People, trusted: TrustedRoot, first: Files, second: Files
) -> None:
    place.publish(second)
    dropped = replace(trusted, signers=trusted.signers[1:])
    for following in (dropped, trusted):
        with pytest.raises(IntegrityError, match=r"gone|more time"):
            place.publish(people.finish(next_targets(second, following, at=NOW)))


def test_the_root_of_another_registry_is_refused(place: Place, first: Files) -> None:
    with pytest.raises(InvalidInputError, match="this registry is"):
        place.publish(first, registry="attestry/999999999999/eu-west-1/attestry")


def test_expired_metadata_is_refused(place: Place, first: Files) -> None:
    with pytest.raises(IntegrityError, match="expired"):
        place.publish(first, at=NOW + timedelta(days=365))


def test_metadata_that_is_only_signed_again_makes_no_event(place: Place, people: People, first: Files) -> None:
    place.publish(first)
    renewed = {**first}
    seal(renewed, people.sealer, at=NOW + timedelta(days=300))
    published = place.publish(renewed, at=NOW + timedelta(days=300))
    assert published.changed
    assert published.verified.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}
    assert len(place.events()) == 1
    assert place.store.read("root/timestamp.json", max_bytes=9999) == renewed["timestamp.json"]


def test_a_timestamp_of_a_published_version_that_says_something_else_is_refused(place: Place, people: People, first: Files) -> None:
    place.publish(first)
    other = {n: d for n, d in first.items() if n != "timestamp.json" and not n.endswith("snapshot.json")}
    seal(other, people.sealer, at=NOW + timedelta(days=1))
    with pytest.raises(ConflictError, match="timestamp version 1"):
        place.publish(other)


def test_new_holders_take_over_with_signatures_of_the_old_ones(place: Place, people: People, trusted: TrustedRoot, first: Files) -> None:
    place.publish(first)
    following = People()
    publics = [h.public_key for h in following.holders]
    draft = next_root(first, publics, threshold=2, sealer=following.sealer.public_key, demo=False, at=NOW)
    alone = {**draft}
    for holder in following.holders:
        sign(alone, holder)
    with pytest.raises(ConflictError, match="missing"):
        seal(alone, following.sealer, at=NOW)
    without_targets = {**draft}
    for holder in (*people.holders, *following.holders):
        sign(without_targets, holder)
    seal(without_targets, following.sealer, at=NOW)
    with pytest.raises((InvalidInputError, IntegrityError)):
        place.publish(without_targets)
    draft = next_targets(draft, trusted, at=NOW)
    for holder in (*people.holders[:2], *following.holders[:2]):
        sign(draft, holder)
    seal(draft, following.sealer, at=NOW)
    assert place.publish(draft).verified.versions["root"] == 2
    assert place.meta.rows[ROOT_KEY]["files"].keys() >= {"2.root.json"}
    assert "1.root.json" not in place.meta.rows[ROOT_KEY]["files"]
    assert root_files(place.meta, place.store) == dict(place.publish(draft).files)
    with pytest.raises((ConflictError, IntegrityError)):
        people.finish(next_targets(draft, trusted, at=NOW))


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"../1.root.json": b"x"},
        {"0.root.json": b"x"},
        {"root.json": b"x"},
        {"1.root.json": b" " * (512 * 1024 + 1)},
        {"timestamp.json": b"{}"},
    ],
)
def test_files_out_of_form_are_refused(place: Place, files: Files) -> None:
    with pytest.raises(InvalidInputError):
        place.publish(files)
    assert place.meta.rows == {}
    assert place.store.versions == {}


def test_a_refusal_changes_nothing(place: Place, first: Files, second: Files) -> None:
    place.publish(first)
    before = (dict(place.meta.rows), dict(place.store.versions))
    broken = {**second, "2.targets.json": second["2.targets.json"].replace(b'"version":2', b'"version":3')}
    with pytest.raises(AttestryError):
        place.publish(broken)
    assert (place.meta.rows, place.store.versions) == before


def test_a_row_of_a_large_root_fits_the_table(place: Place, first: Files) -> None:
    place.publish(first)
    assert len(str(marshal_row(place.meta.rows[ROOT_KEY]))) < 100_000


@pytest.mark.parametrize("error", [UnavailableError("no answer"), Killed()])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_anywhere_is_mended_by_the_same_call(first: Files, second: Files, error: BaseException, after: bool) -> None:
    tried = 0
    for n in range(1, 60):
        place = Place()
        place.publish(first)
        place.faults.clear()
        (place.faults.fail_after if after else place.faults.fail_before)(n, error=error)
        try:
            place.publish(second)
            done = True
        except (Killed, UnavailableError):
            done = False
        place.faults.clear()
        files = root_files(place.meta, place.store)
        assert files is not None
        assert show_root(place.meta, place.store) is not None
        place.publish(second)
        assert place.meta.rows[ROOT_KEY]["copied"]
        assert [e["sequence"] for e in place.events()] == [1, 2]
        assert place.store.read("root/timestamp.json", max_bytes=9999) == second["timestamp.json"]
        assert "root/2.targets.json" in place.store.versions
        tried += 1
        if done:
            break
    assert tried == 8  # seven calls, and one run without a fault


def test_what_a_crash_left_uncopied_is_copied_before_the_next_version(
    place: Place, people: People, trusted: TrustedRoot, first: Files
) -> None:
    following = People()
    publics = [h.public_key for h in following.holders]
    place.faults.fail_before(1, method="put_new", error=Killed())
    with pytest.raises(Killed):
        place.publish(first)
    assert place.store.versions == {}
    draft = next_targets(next_root(first, publics, threshold=2, sealer=following.sealer.public_key, demo=False, at=NOW), trusted, at=NOW)
    for holder in (*people.holders[:2], *following.holders[:2]):
        sign(draft, holder)
    seal(draft, following.sealer, at=NOW)
    place.publish(draft)
    assert {"root/1.root.json", "root/2.root.json", "root/1.targets.json", "root/2.targets.json"} <= set(place.store.versions)


def test_a_row_that_was_changed_by_hand_does_not_verify(place: Place, first: Files) -> None:
    place.publish(first)
    row = dict(place.meta.rows[ROOT_KEY])
    row["files"] = {**row["files"], "trusted_root.json": a_trusted_root().to_bytes()}
    place.meta.rows[Key("ROOT")] = row
    with pytest.raises(IntegrityError):
        show_root(place.meta, place.store)


def test_of_two_who_publish_at_once_one_is_told_to_look_first(place: Place, people: People, trusted: TrustedRoot, first: Files) -> None:
    place.publish(first)
    one, two = (
        people.finish(next_targets(first, revoke(trusted, trusted.signers[i].fingerprint, since=moment(9)), at=NOW)) for i in (0, 1)
    )
    real, done = place.meta.transact, []

    def race(writes: Any) -> None:
        if not done:
            done.append(1)
            place.publish(two)
        real(writes)

    place.meta.transact = race  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="at the same time"):
        place.publish(one)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> RootRegistry:
    return RootRegistry(monkeypatch)


def test_the_api_tells_every_key_that_the_deployment_signs_with(registry: RootRegistry) -> None:
    told = registry.root_keys()
    assert told["registry"] == REGISTRY
    assert {(k["use"], k["name"], k["outside"]) for k in told["keys"] if k["use"] in ("tlogs", "witnesses")} == {
        ("tlogs", REGISTRY, False),
        ("witnesses", WITNESS, False),
        ("witnesses", OUTSIDE, True),
    }
    assert {k["name"] for k in told["keys"] if k["use"] == "signers"} == registry.deployed.keys() - {
        "sequence",
        "witness",
        "delegate",
        "sign_artifact",
    }


def test_a_witness_of_the_own_account_is_told_as_inside_whatever_the_settings_say(registry: RootRegistry) -> None:
    registry.witnesses[1] = registry.outside_witness("arn:aws:lambda:eu-west-1:123456789012:function:second")
    assert not any(k["outside"] for k in registry.root_keys()["keys"])


def test_a_key_of_a_function_that_no_trusted_root_names_is_refused(registry: RootRegistry) -> None:
    registry.replace_key("nobody")
    status, body = registry.call("GET /v1/root/keys")
    assert (status, body["code"]) == (400, "invalid_input")


def test_the_api_publishes_and_shows(registry: RootRegistry, first: Files) -> None:
    status, body = registry.call("GET /v1/root")
    assert (status, body["code"]) == (404, "not_found")
    texts = {name: data.decode() for name, data in first.items()}
    status, body = registry.call("POST /v1/root", {"files": texts})
    assert status == 201
    assert registry.call("POST /v1/root", {"files": texts})[0] == 200
    status, shown = registry.call("GET /v1/root")
    assert (status, shown) == (200, body)
    assert shown["files"]["1.root.json"] == texts["1.root.json"]
    event = next(r for k, r in registry.meta.rows.items() if k.partition == OUTBOX)
    assert parse_canonical(event["event"])["principal"]["login"] == "ada"


@pytest.mark.parametrize("body", [{"files": []}, {"files": {"1.root.json": 1}}, {"files": {}}, {}, {"files": {}, "more": 1}, []])
def test_a_body_out_of_form_is_refused(registry: RootRegistry, body: Any) -> None:
    assert registry.call("POST /v1/root", body)[0] == 400
