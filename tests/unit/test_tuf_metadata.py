"""From a pinned root to the trusted root, and everything that must not pass."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Delegations, Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from attestry.client.ceremony import next_root, next_targets, seal, sign
from attestry.client.key_changes import revoke
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.trusted_root import TrustedRoot
from attestry.evidence.tuf_metadata import VerifiedRoot, verify_metadata
from tests.root_of_trust import NOW, People, a_trusted_root, moment

ROOT = Path(__file__).resolve().parents[2]

Files = dict[str, bytes]


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
    """The same registry after a key was revoked."""
    return people.finish(next_targets(first, revoke(trusted, trusted.signers[0].fingerprint, since=moment(9)), at=NOW))


def check(pin_and_files: Files, pin: bytes | None = None) -> VerifiedRoot:
    return verify_metadata(pin or pin_and_files["1.root.json"], pin_and_files)


def resigned(data: bytes, change: Callable[[Any], None], *signers: CryptoSigner) -> bytes:
    """Metadata with a change, signed by these and nobody else."""
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    change(metadata.signed)
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def named(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def chained(files: Files, people: People, data: bytes, number: int = 1, **meta: MetaFile) -> Files:
    """The files with other targets, and snapshot and timestamp that name them, as only the sealer could make."""
    out = {**files, f"{number}.targets.json": data}
    snapshot: Metadata[Any] = Metadata.from_bytes(files["1.snapshot.json"])
    snapshot.signed.meta = {"targets.json": meta.get("targets", named(number, data))}
    snapshot.sign(people.sealer)
    out["1.snapshot.json"] = snapshot.to_bytes()
    timestamp: Metadata[Any] = Metadata.from_bytes(files["timestamp.json"])
    timestamp.signed.snapshot_meta = meta.get("snapshot", named(1, out["1.snapshot.json"]))
    timestamp.sign(people.sealer)
    out["timestamp.json"] = timestamp.to_bytes()
    return out


def test_a_pinned_root_leads_to_the_trusted_root(first: Files, trusted: TrustedRoot) -> None:
    verified = check(first)
    assert verified.trusted_root == trusted
    assert verified.versions == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    signed = json.loads(first["1.root.json"])["signed"]
    assert verified.expires["root"] == signed["expires"].replace("Z", ".000000Z")


def test_the_trusted_root_may_lie_under_its_plain_name(first: Files, trusted: TrustedRoot) -> None:
    hashed = f"{trusted.sha256}.trusted_root.json"
    plain = {("trusted_root.json" if name == hashed else name): data for name, data in first.items()}
    assert check(plain).trusted_root == trusted


def test_newer_targets_follow_older_ones(first: Files, second: Files) -> None:
    verified = check(second)
    assert verified.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
    verified.require_follows(check(first))
    verified.require_follows(verified)


def test_a_rollback_behind_what_was_seen_is_refused(first: Files, second: Files) -> None:
    with pytest.raises(IntegrityError, match="rollback"):
        check(first).require_follows(check(second))


def test_two_trusted_roots_of_one_version_are_refused(people: People, trusted: TrustedRoot, first: Files, second: Files) -> None:
    other = people.finish(next_targets(first, revoke(trusted, trusted.signers[1].fingerprint, since=moment(9)), at=NOW))
    with pytest.raises(IntegrityError, match="two trusted roots"):
        check(other).require_follows(check(second))


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_metadata_is_judged_at_the_ledger_time_and_is_expired_from_its_expiry_on(first: Files, role: str) -> None:
    verified = check(first)
    others = dict.fromkeys(verified.expires, moment(9999))
    verified = replace(verified, expires={**others, role: moment(30)})
    verified.require_current(moment(29.99))
    with pytest.raises(IntegrityError, match=f"the {role} metadata expired"):
        verified.require_current(moment(30))


def test_the_root_of_another_registry_is_refused(first: Files) -> None:
    foreign = People().begin(a_trusted_root())
    with pytest.raises(IntegrityError, match="not the pinned root"):
        check(first, foreign["1.root.json"])
    with pytest.raises(IntegrityError, match="valid signatures"):
        verify_metadata(foreign["1.root.json"], {n: d for n, d in first.items() if n != "1.root.json"})


def test_a_pin_that_its_own_keys_did_not_sign_is_refused(first: Files) -> None:
    unsigned = resigned(first["1.root.json"], lambda _: None, CryptoSigner.generate_ed25519())
    with pytest.raises(IntegrityError, match="0 valid signatures"):
        check({**first, "1.root.json": unsigned})


def test_targets_below_the_threshold_are_refused_although_the_sealer_names_them(people: People, first: Files) -> None:
    for signers in ((), people.holders[:1], (people.holders[0], CryptoSigner.generate_ed25519()), (people.sealer, people.holders[0])):
        alone = resigned(first["1.targets.json"], lambda _: None, *signers)
        with pytest.raises(IntegrityError, match=r"1\.targets\.json has [01] valid signatures"):
            check(chained(first, people, alone))


def test_one_signature_copied_under_a_second_key_id_does_not_count_twice(people: People, first: Files) -> None:
    value = json.loads(resigned(first["1.targets.json"], lambda _: None, people.holders[0]))
    value["signatures"].append({**value["signatures"][0], "keyid": people.holders[1].public_key.keyid})
    forged = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(IntegrityError, match="1 valid signatures"):
        check(chained(first, people, forged))
    value["signatures"][1]["keyid"] = people.holders[0].public_key.keyid
    with pytest.raises(IntegrityError, match="no TUF metadata"):
        check(chained(first, people, json.dumps(value, sort_keys=True, separators=(",", ":")).encode()))


@pytest.mark.parametrize("upper", [False, True])
def test_one_key_under_two_key_ids_does_not_make_two_holders(people: People, first: Files, upper: bool) -> None:
    holder = people.holders[0]

    def double(root: Root) -> None:
        key = copy.deepcopy(holder.public_key.to_dict())
        if upper:
            key["keyval"]["public"] = key["keyval"]["public"].upper()
        alias = type(holder.public_key).from_dict("ab" * 32, key)
        for role in ("root", "targets"):
            root.roles[role].keyids = []
            root.add_key(holder.public_key, role)
            root.add_key(alias, role)

    metadata: Metadata[Any] = Metadata.from_bytes(first["1.root.json"])
    double(metadata.signed)
    metadata.sign(holder)
    signature = next(iter(metadata.signatures.values()))
    metadata.signatures["ab" * 32] = type(signature)("ab" * 32, signature.signature)
    with pytest.raises(IntegrityError, match=r"twice|malformed"):
        check({**first, "1.root.json": metadata.to_bytes()})


def test_a_snapshot_that_the_timestamp_does_not_name_is_refused(first: Files, second: Files) -> None:
    with pytest.raises(IntegrityError, match=r"2\.snapshot\.json is not the file that is named"):
        check({**second, "2.snapshot.json": first["1.snapshot.json"]})


def test_targets_that_the_snapshot_does_not_name_are_refused(first: Files, second: Files) -> None:
    with pytest.raises(IntegrityError, match=r"2\.targets\.json is not the file that is named"):
        check({**second, "2.targets.json": first["1.targets.json"]})
    with pytest.raises(IntegrityError, match=r"2\.snapshot\.json is missing"):
        check({**first, "timestamp.json": second["timestamp.json"]})


def test_old_targets_under_a_new_number_are_refused_even_when_the_sealer_helps(people: People, first: Files) -> None:
    data = first["1.targets.json"]
    with pytest.raises(IntegrityError, match="version 1; version 2 is named"):
        check(chained(first, people, data, 2, targets=named(2, data)))


def test_metadata_named_without_a_hash_is_refused(people: People, first: Files) -> None:
    with pytest.raises(IntegrityError, match="no SHA-256"):
        check(chained(first, people, first["1.targets.json"], targets=MetaFile(1)))
    with pytest.raises(IntegrityError, match="no SHA-256"):
        check(chained(first, people, first["1.targets.json"], snapshot=MetaFile(1)))
    data = first["1.targets.json"]
    with pytest.raises(IntegrityError, match="no SHA-256"):
        check(chained(first, people, data, targets=MetaFile(1, len(data), {"sha512": hashlib.sha512(data).hexdigest()})))


def test_a_swapped_trusted_root_is_refused(first: Files, trusted: TrustedRoot) -> None:
    name = f"{trusted.sha256}.trusted_root.json"
    with pytest.raises(IntegrityError, match="is not the file that is named"):
        check({**first, name: a_trusted_root().to_bytes()})
    without = {n: d for n, d in first.items() if n != name}
    with pytest.raises(IntegrityError, match="is missing"):
        check(without)
    with pytest.raises(IntegrityError, match="is not the file that is named"):
        check({**without, "trusted_root.json": a_trusted_root().to_bytes()})


def test_a_signed_trusted_root_that_is_none_is_refused(people: People, first: Files) -> None:
    data = b'{"demo":false}'

    def point(targets: Targets) -> None:
        targets.targets["trusted_root.json"].hashes = {"sha256": hashlib.sha256(data).hexdigest()}
        targets.targets["trusted_root.json"].length = len(data)

    targets = resigned(first["1.targets.json"], point, *people.holders[:2])
    with pytest.raises(InvalidInputError):
        check({**chained(first, people, targets), "trusted_root.json": data})


def test_delegations_and_further_targets_are_refused(people: People, first: Files) -> None:
    def delegate(targets: Targets) -> None:
        targets.delegations = Delegations({}, {})

    def add(targets: Targets) -> None:
        targets.targets["more.json"] = targets.targets["trusted_root.json"]

    def rename(targets: Targets) -> None:
        targets.targets = {"other.json": targets.targets["trusted_root.json"]}

    for change in (delegate, add, rename):
        with pytest.raises(IntegrityError, match="names other than"):
            check(chained(first, people, resigned(first["1.targets.json"], change, *people.holders[:2])))


def test_metadata_of_one_role_does_not_pass_for_another(people: People, first: Files) -> None:
    with pytest.raises(IntegrityError, match="is metadata of snapshot, not of timestamp"):
        check({**first, "timestamp.json": first["1.snapshot.json"]})
    with pytest.raises(IntegrityError, match="is metadata of targets, not of root"):
        check(first, first["1.targets.json"])


def test_the_sealer_cannot_sign_for_the_holders_nor_they_for_it(people: People, first: Files) -> None:
    for data in (resigned(first["timestamp.json"], lambda _: None, *people.holders),):
        with pytest.raises(IntegrityError, match=r"timestamp\.json has 0 valid"):
            check({**first, "timestamp.json": data})


def test_one_key_is_enough_for_a_demo_and_for_nothing_else(people: People, trusted: TrustedRoot) -> None:
    demo = replace(trusted, demo=True)
    files = people.begin(demo, threshold=1)
    assert check(files).trusted_root.demo
    lowered = {**files}
    data = trusted.to_bytes()

    def point(targets: Targets) -> None:
        targets.targets["trusted_root.json"].hashes = {"sha256": trusted.sha256}
        targets.targets["trusted_root.json"].length = len(data)

    targets = resigned(files["1.targets.json"], point, people.holders[0])
    with pytest.raises(IntegrityError, match="no demo root"):
        check({**chained(lowered, people, targets), "trusted_root.json": data})


def successor(people: People, files: Files, following: People) -> Files:
    """The next root with other holders, signed by a threshold of both, and sealed by the new sealer."""
    publics = [h.public_key for h in following.holders]
    out = next_root(files, publics, threshold=2, sealer=following.sealer.public_key, demo=False, at=NOW)
    out = next_targets(out, check(files).trusted_root, at=NOW)
    for signer in (*people.holders[:2], *following.holders[:2]):
        sign(out, signer)
    seal(out, following.sealer, at=NOW)
    return out


def test_a_newer_root_is_reached_from_every_older_pin(people: People, first: Files) -> None:
    second_people, third_people = People(), People()
    second = successor(people, first, second_people)
    third = successor(second_people, second, third_people)
    for number in (1, 2, 3):
        verified = check(third, third[f"{number}.root.json"])
        assert verified.versions["root"] == 3
    from_three = {n: d for n, d in third.items() if n not in ("1.root.json", "2.root.json")}
    assert check(from_three, third["3.root.json"]).versions["root"] == 3
    with pytest.raises(IntegrityError, match=r"2\.root\.json is missing"):
        check({n: d for n, d in third.items() if n != "2.root.json"}, third["1.root.json"])


def test_a_newer_root_needs_a_threshold_of_the_old_and_of_the_new_keys(people: People, first: Files) -> None:
    following = People()
    complete = successor(people, first, following)
    for signers in (people.holders, following.holders, [people.holders[0], *following.holders], [*people.holders, following.holders[0]]):
        weak = resigned(complete["2.root.json"], lambda _: None, *signers)
        with pytest.raises(IntegrityError, match=r"2\.root\.json has [01] valid"):
            check({**complete, "2.root.json": weak})


def test_a_root_with_another_number_than_its_file_is_refused(people: People, first: Files) -> None:
    with pytest.raises(IntegrityError, match="says that it is version 1"):
        check({**first, "2.root.json": first["1.root.json"]})


def test_keys_that_a_newer_root_dismissed_sign_nothing_more(people: People, first: Files) -> None:
    following = People()
    complete = successor(people, first, following)
    for name, signers in (("timestamp.json", [people.sealer]),):
        with pytest.raises(IntegrityError, match="0 valid"):
            check({**complete, name: resigned(complete[name], lambda _: None, *signers)})


def change_text(name: str, change: Callable[[Any], Any], files: Files) -> Files:
    value = json.loads(files[name])
    value = change(value) or value
    return {**files, name: json.dumps(value, sort_keys=True, separators=(",", ":")).encode()}


@pytest.mark.parametrize("name", ["1.root.json", "timestamp.json"])
def test_metadata_that_is_written_otherwise_is_refused(first: Files, name: str) -> None:
    pretty = json.dumps(json.loads(first[name]), indent=1).encode()
    double = first[name].replace(b'"signed":{', b'"signed":{"version":1,', 1)
    more = change_text(name, lambda v: v.update(more=1), first)[name]
    for data in (pretty, double, more, b"", b"[]", b"{}", b"\xff", first[name] + b" ", b'{"signatures":[],"signed":{}}'):
        with pytest.raises(IntegrityError):
            check({**first, name: data}, first["1.root.json"])
    large = b" " * (512 * 1024 + 1)
    with pytest.raises(IntegrityError, match="limit"):
        check({**first, name: large}, first["1.root.json"])


def test_a_flipped_byte_anywhere_is_noticed(first: Files) -> None:
    for name, data in first.items():
        for place in range(0, len(data), max(1, len(data) // 40)):
            flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            with pytest.raises((IntegrityError, InvalidInputError)):
                verify_metadata(flipped if name == "1.root.json" else first["1.root.json"], {**first, name: flipped})


def test_only_ed25519_keys_of_a_consistent_repository_are_taken(people: People, first: Files) -> None:
    rsa = CryptoSigner.generate_ecdsa()

    def other_kind(root: Root) -> None:
        root.add_key(rsa.public_key, "root")

    def inconsistent(root: Root) -> None:
        root.consistent_snapshot = False

    def unknown(root: Root) -> None:
        root.roles["targets"].keyids.append("cd" * 32)

    def greedy(root: Root) -> None:
        root.roles["targets"].threshold = 9

    for change in (other_kind, inconsistent, unknown, greedy):
        data = resigned(first["1.root.json"], change, *people.holders)
        with pytest.raises(IntegrityError):
            check({**first, "1.root.json": data})


def test_it_does_without_aws_the_network_and_the_clock() -> None:
    program = (
        "import sys\n"
        "sys.modules['boto3'] = sys.modules['botocore'] = None\n"
        "import attestry.evidence.tuf_metadata\n"
        "print([m for m in sys.modules if m.startswith(('requests', 'boto', 'attestry.aws', 'tuf.ngclient'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "['boto3', 'botocore']"), done.stderr


def test_expired_metadata_verifies_as_what_it_was(people: People, trusted: TrustedRoot) -> None:
    long_ago = people.begin(trusted, at=NOW - timedelta(days=4000))
    verified = check(long_ago)
    verified.require_current((NOW - timedelta(days=3990)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    with pytest.raises(IntegrityError, match="expired"):
        verified.require_current(NOW.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def test_snapshots_of_other_files_are_refused(people: People, first: Files) -> None:
    snapshot: Metadata[Any] = Metadata.from_bytes(first["1.snapshot.json"])
    snapshot.signed.meta["more.json"] = MetaFile(1)
    snapshot.sign(people.sealer)
    assert isinstance(snapshot.signed, Snapshot)
    out = {**first, "1.snapshot.json": snapshot.to_bytes()}
    timestamp: Metadata[Any] = Metadata.from_bytes(first["timestamp.json"])
    timestamp.signed.snapshot_meta = named(1, out["1.snapshot.json"])
    timestamp.sign(people.sealer)
    assert isinstance(timestamp.signed, Timestamp)
    with pytest.raises(IntegrityError, match="other than one targets file"):
        check({**out, "timestamp.json": timestamp.to_bytes()})
