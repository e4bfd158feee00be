"""Attacks on bundles by who can rewrite a zip but holds no key of the registry.

Index and report of every forgery are right; none is PROVEN.
"""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestry.domain.errors import InvalidInputError
from attestry.evidence.bundle import read_bundle
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.compact_jws import encode_segment
from attestry.evidence.delegation import issue, jwk_of
from attestry.evidence.leaf import write_leaf
from attestry.evidence.note import Checkpoint, cosign, parse_note, sign_note
from attestry.evidence.receipt import ReceiptWriter
from attestry.evidence.tlog import RightEdge, leaf_hash, node_hash, verify_inclusion
from attestry.evidence.verdict import Verification
from attestry.evidence.verification import verify_bundle
from attestry.evidence.version_urn import VersionUrn
from tests.evidence_world import EvidenceWorld, find_leaf, rewrite
from tests.fakes import LocalNoteSigner, LocalSigner
from tests.root_of_trust import REGISTRY
from tests.unit.test_verification import Made

ANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


@pytest.fixture(scope="module")
def files(made):
    return read_bundle(made.bundle).files


def broken(verification: Verification, step: str) -> str:
    """The reason why the verification broke at this step."""
    failed = [(s.name, s.detail) for s in verification.steps if s.outcome == "failed"]
    assert verification.verdict == "BROKEN", verification.reason
    assert [name for name, _ in failed] == [step], failed
    return failed[0][1]


def segment(value: object) -> str:
    return encode_segment(json.dumps(value, separators=(",", ":")).encode()).decode()


def with_leaf(made: Made, name: str, body: bytes | None) -> bytes:
    return rewrite(made.bundle, {name: body})


class TestFlippedAndTaken:
    @ANY
    @given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
    def test_a_flipped_bit_anywhere_in_the_zip_is_noticed(self, made, place, bit):
        spoiled = bytearray(made.bundle)
        spoiled[place % len(spoiled)] ^= 1 << bit
        broken(made.world.verify(bytes(spoiled)), "bundle")

    def test_a_flipped_byte_in_each_file_is_noticed_though_the_index_follows(self, made, files):
        for name, body in files.items():
            for place in (0, len(body) // 3, len(body) // 2, len(body) - 1):
                changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
                verification = made.world.verify(rewrite(made.bundle, {name: changed}, documents=name not in ("README.md", "REPORT.md")))
                assert verification.verdict == "BROKEN", (name, place, verification.reason)

    @ANY
    @given(data=st.data())
    def test_whatever_a_file_is_replaced_by_proves_nothing(self, made, files, data):
        name = data.draw(st.sampled_from(sorted(files.keys() - {"README.md", "REPORT.md"})))
        other = data.draw(st.sampled_from([b"", b"{}", b"[]", b"null", b"\xff", b'{"event":{}}', *files.values()]))
        if other != files[name]:
            assert made.world.verify(rewrite(made.bundle, {name: other})).verdict in ("BROKEN", "INCOMPLETE")

    def test_each_file_is_missed(self, made, files):
        for name in files:
            verification = made.world.verify(rewrite(made.bundle, {name: None}, documents=name not in ("README.md", "REPORT.md")))
            # The pinned root is the verifier's own; its copy in the bundle is for people.
            expected = ("PROVEN",) if name == "root/1.root.json" else ("INCOMPLETE", "BROKEN")
            assert verification.verdict in expected, (name, verification.reason)

    def test_a_bundle_from_which_seal_and_proof_were_taken_is_unanchored(self, made, files):
        sealed = find_leaf(made.bundle, "key.sealed", f"key/{made.prediction.rpartition('-')[0]}", 1)
        proofs = json.loads(files["ledger/proofs.json"])
        del proofs["proofs"][str(int(sealed[-17:-5]))]
        taken = {sealed: None, "prediction/proof.json": None, "ledger/proofs.json": canonical_bytes(proofs)}
        assert made.world.verify(rewrite(made.bundle, taken)).verdict == "SIGNED-UNANCHORED"

    def test_a_report_that_tells_another_story_is_refused(self, made, files):
        told = files["REPORT.md"].replace(b"erin", b"mary")
        assert "REPORT.md" in broken(made.world.verify(rewrite(made.bundle, {"REPORT.md": told}, documents=False)), "documents")
        told = files["README.md"] + b"\n    pip install something-else\n"
        assert "README.md" in broken(made.world.verify(rewrite(made.bundle, {"README.md": told}, documents=False)), "documents")

    @pytest.mark.parametrize("index", [{"number": 2}, {"version_digest": "ab" * 32}, {"model": "other"}])
    def test_an_index_that_claims_another_version_is_refused(self, made, index):
        assert made.world.verify(rewrite(made.bundle, {}, **index)).verdict == "BROKEN"

    def test_an_index_that_claims_another_prediction_is_refused(self, made):
        other = made.prediction.rpartition("-")[0] + "-2"
        assert "prediction" in broken(made.world.verify(rewrite(made.bundle, {}, subject=other)), "receipt")


class TestSmuggled:
    def test_what_no_step_uses_is_refused(self, made, files):
        other = Made()
        strangers = {
            "attestations/" + "ab" * 32 + ".json": (b"{}", "transitions"),
            "signatures/mary.sig": (files["signatures/erin.sig"], "approvals"),
            "version/records/TRAINING-2.json": (files["version/records/TRAINING-1.json"], "provenance"),
            "root/7.targets.json": (files["root/1.targets.json"], "root"),
            "root/2.root.json": (other.world.pin, "root"),
            "prediction/salt.txt": (b"00" * 16, "payload"),
            "ledger/pending/" + "ab" * 32 + ".json": (b"{}", "leaves"),
        }
        for name, (body, step) in strangers.items():
            broken(made.world.verify(rewrite(made.bundle, {name: body})), step)
        with pytest.raises(InvalidInputError):
            rewrite(made.bundle, {"notes.txt": b"see REPORT2.md"})

    def test_an_event_of_another_version_is_refused(self, made):
        def edit(draft):
            draft["training"]["hyperparameters"]["max_iter"] = 5000

        world = EvidenceWorld()
        world.deploy()
        world.validate(edit=edit)
        world.sequence()
        bundle, other = world.version_bundle(1), world.version_bundle(2)
        name = find_leaf(other, "candidate.registered", f"{world.head.model}@2", 1)
        proofs = json.loads(read_bundle(bundle).files["ledger/proofs.json"])
        index = str(int(name[-17:-5]))
        proofs["proofs"][index] = json.loads(read_bundle(other).files["ledger/proofs.json"])["proofs"][index]
        added = {name: read_bundle(other).files[name], "ledger/proofs.json": canonical_bytes(proofs)}
        assert "@2" in broken(world.verify(rewrite(bundle, added)), "transitions")

    def test_a_pending_event_that_is_in_the_ledger_is_there_twice(self, made):
        name = find_leaf(made.bundle, "version.deployed", "tumour-diagnosis@1", 11)
        event = json.loads(read_bundle(made.bundle).files[name])["event"]
        pending = {f"ledger/pending/{event['id']}.json": canonical_bytes(event)}
        assert "twice" in broken(made.world.verify(rewrite(made.bundle, pending)), "leaves")


class TestAttestations:
    def test_swapped_attestations_are_noticed(self, made, files):
        first, second = [n for n in sorted(files) if n.startswith("attestations/")][:2]
        broken(made.world.verify(rewrite(made.bundle, {first: files[second], second: files[first]})), "transitions")

    def test_an_attestation_with_another_payload_type_or_a_second_signature_is_refused(self, made, files):
        """The name follows the change, and so does an event that names it: only the ledger still says otherwise."""
        name = next(n for n in sorted(files) if n.startswith("attestations/"))
        body = json.loads(files[name])
        for changed in ({**body, "payloadType": "application/json"}, {**body, "signatures": body["signatures"] * 2}):
            broken(made.world.verify(rewrite(made.bundle, {name: canonical_bytes(changed)})), "transitions")


class TestRoot:
    def test_a_foreign_root_is_refused(self, made):
        other = EvidenceWorld()
        assert "another registry" in broken(verify_bundle(made.bundle, pin=other.pin), "root")

    def test_a_bundle_that_was_made_under_a_foreign_root_is_refused(self, made):
        """The attacker's own registry, with the same name and keys of its own."""
        broken(verify_bundle(Made().bundle, pin=made.world.pin), "root")

    def test_foreign_keys_in_the_trusted_root_are_refused(self, made):
        other = read_bundle(Made().bundle).files["root/trusted_root.json"]
        broken(made.world.verify(rewrite(made.bundle, {"root/trusted_root.json": other})), "root")

    @pytest.mark.parametrize("pin", [b"", b"{}", b"not json", b'{"signed":{},"signatures":[]}'])
    def test_a_pin_that_is_no_root_is_refused(self, made, pin):
        broken(verify_bundle(made.bundle, pin=pin), "root")


class TestLedger:
    def test_a_checkpoint_by_another_key_is_refused(self, made, files):
        mallory = LocalNoteSigner("mallory")
        text, _ = parse_note(files["ledger/checkpoint"])
        forged = sign_note(text, REGISTRY, mallory.public_key(), mallory.sign_ed25519)
        assert "no known key" in broken(made.world.verify(rewrite(made.bundle, {"ledger/checkpoint": forged})), "checkpoint")

    def test_a_checkpoint_that_only_the_witness_signed_is_refused(self, made, files):
        lines = files["ledger/checkpoint"].decode().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"— {REGISTRY} ")]
        forged = "".join(kept).encode()
        assert "not signed by a key of the ledger" in broken(
            made.world.verify(rewrite(made.bundle, {"ledger/checkpoint": forged})), "checkpoint"
        )

    def test_a_checkpoint_over_other_leaves_by_another_key_is_refused(self, made):
        """The whole ledger forged: one leaf, its own tree, a checkpoint, a cosignature."""
        mallory = LocalNoteSigner("mallory")
        name = find_leaf(made.bundle, "version.deployed", "tumour-diagnosis@1", 11)
        leaf = read_bundle(made.bundle).files[name]
        text = Checkpoint(REGISTRY, 1, leaf_hash(leaf)).to_text()
        note = sign_note(text, REGISTRY, mallory.public_key(), mallory.sign_ed25519)
        note += cosign(text, 1767323000, made.world.witness_name, mallory.public_key(), mallory.sign_ed25519).to_line().encode()
        broken(made.world.verify(rewrite(made.bundle, {"ledger/checkpoint": note})), "checkpoint")

    def test_an_event_of_the_attacker_is_not_in_the_tree(self, made, files):
        name = find_leaf(made.bundle, "version.approved", "tumour-diagnosis@1", 9)
        leaf = json.loads(files[name])
        leaf["event"]["principal"]["person"] = "mallory"
        forged = write_leaf(canonical_bytes(leaf["event"]), leaf["logged"])
        assert "inclusion proof" in broken(made.world.verify(with_leaf(made, name, forged)), "leaves")

    def test_a_backdated_leaf_is_not_in_the_tree(self, made, files):
        name = find_leaf(made.bundle, "key.delegated", f"key/{made.prediction.rpartition('-')[0]}", 1)
        forged = files[name].replace(b'"logged":"2026', b'"logged":"2025')
        broken(made.world.verify(with_leaf(made, name, forged)), "leaves")

    def test_a_node_of_the_tree_does_not_pass_for_a_leaf(self, made, files):
        """Second preimage: the two children of a node, one behind the other, are offered as the leaf of a tree of half the height."""
        left, right = (files[f"ledger/leaves/{n:012d}.json"] for n in (4, 5))
        children = leaf_hash(left) + leaf_hash(right)
        assert leaf_hash(children) != node_hash(leaf_hash(left), leaf_hash(right))
        proofs = json.loads(files["ledger/proofs.json"])
        proofs["proofs"]["4"] = proofs["proofs"]["4"][1:]
        forged = {"ledger/leaves/000000000004.json": children, "ledger/proofs.json": canonical_bytes(proofs)}
        broken(made.world.verify(rewrite(made.bundle, forged)), "leaves")
        # The same trick on the tree itself, where no size stands against it.
        edge = RightEdge().append([leaf_hash(bytes([n])) for n in range(4)])[0]
        pair = leaf_hash(b"\0") + leaf_hash(b"\1")
        with pytest.raises(Exception, match="does not lead"):
            verify_inclusion(leaf_hash(pair), 0, 2, [node_hash(leaf_hash(b"\2"), leaf_hash(b"\3"))], edge.root())

    @pytest.mark.parametrize("size", [1, 15, 17, 10**6])
    def test_proofs_for_a_tree_of_another_size_are_refused(self, made, files, size):
        proofs = {**json.loads(files["ledger/proofs.json"]), "size": size}
        broken(made.world.verify(rewrite(made.bundle, {"ledger/proofs.json": canonical_bytes(proofs)})), "leaves")

    def test_a_leaf_under_another_index_is_refused(self, made, files):
        first, second = (f"ledger/leaves/{n:012d}.json" for n in (4, 5))
        broken(made.world.verify(rewrite(made.bundle, {first: files[second], second: files[first]})), "leaves")


class TestTokens:
    def test_a_receipt_without_a_signature_or_by_another_algorithm_is_refused(self, made, files):
        header, payload, signature = files["prediction/receipt.jws"].decode().split(".")
        kid = made.prediction.rpartition("-")[0]
        own = json.loads(base64.urlsafe_b64decode(header + "=="))
        for forged in (
            f"{segment({**own, 'alg': 'none'})}.{payload}.",
            f"{segment({**own, 'alg': 'none'})}.{payload}.{signature}",
            f"{segment({**own, 'alg': 'HS256'})}.{payload}.{signature}",
            f"{segment({**own, 'alg': 'EdDSA'})}.{payload}.{signature}",
            f"{segment({**own, 'typ': 'predkey+jwt'})}.{payload}.{signature}",
            f"{segment({**own, 'jwk': jwk_of(bytes(32))})}.{payload}.{signature}",
            f"{segment({**own, 'kid': 'x' + kid})}.{payload}.{signature}",
            f"{header}.{payload}.{'A' * len(signature)}",
            f"{header}.{payload}.{signature}=",
            f" {header}.{payload}.{signature}",
        ):
            broken(made.world.verify(rewrite(made.bundle, {"prediction/receipt.jws": forged.encode()}, documents=False)), "receipt")

    def test_a_delegation_in_the_place_of_a_receipt_is_refused(self, made, files):
        forged = {"prediction/receipt.jws": files["prediction/delegation.jwt"]}
        broken(made.world.verify(rewrite(made.bundle, forged, documents=False)), "receipt")

    def test_a_delegation_by_another_key_or_algorithm_is_refused(self, made, files):
        header, payload, signature = files["prediction/delegation.jwt"].decode().split(".")
        own = json.loads(base64.urlsafe_b64decode(header + "=="))
        for forged in (
            f"{segment({**own, 'alg': 'none'})}.{payload}.",
            f"{segment({**own, 'alg': 'HS256'})}.{payload}.{signature}",
            f"{segment({**own, 'typ': 'JWT'})}.{payload}.{signature}",
            f"{header}.{payload}.{'A' * 86}",
        ):
            broken(made.world.verify(rewrite(made.bundle, {"prediction/delegation.jwt": forged.encode()})), "delegation")

    def test_a_process_that_delegates_to_itself_is_refused(self, made):
        """Everything right but the delegator's signature, which is by a key of the attacker's."""
        key = Ed25519PrivateKey.generate()
        version = VersionUrn.parse(made.world.verify(made.bundle).facts["prediction"]["version"])
        signer = LocalSigner(made.world.delegator.key_id)
        public = key.public_key().public_bytes_raw()
        delegation = issue(
            signer, version=version, environment="production", standing="DEPLOYED", public_key=public, now=made.world.clock.now()
        )
        writer = ReceiptWriter(key.sign, kid=delegation.kid, version=version)
        receipt = writer.emit(sequence=1, time_ms=delegation.grant.not_before * 1000, request=b"{}", output=b"[1]")
        forged = {"prediction/delegation.jwt": delegation.token.encode(), "prediction/receipt.jws": receipt.token.encode()}
        assert made.world.verify(rewrite(made.bundle, forged, subject=receipt.prediction_id)).verdict == "BROKEN"

    def test_another_receipt_of_the_same_key_is_not_the_sealed_one(self, made):
        world = made.world
        first, second = world.predict(), world.predict()
        world.seal()
        bundle = world.bundle(first)
        other = read_bundle(world.bundle(second)).files
        forged = {n: other[n] for n in ("prediction/receipt.jws",)}
        assert "place" in broken(world.verify(rewrite(bundle, forged, subject=second)), "seal")

    def test_a_payload_that_was_not_asked_or_answered_is_refused(self, made):
        bundle = made.world.bundle(made.prediction, payload=True)
        for name, body in (("request.bin", b"{}"), ("output.json", b"[0.75]"), ("salt.txt", b"00" * 16), ("salt.txt", b"zz")):
            broken(made.world.verify(rewrite(bundle, {f"prediction/{name}": body})), "payload")
        assert made.world.verify(rewrite(bundle, {"prediction/salt.txt": None})).verdict == "INCOMPLETE"
