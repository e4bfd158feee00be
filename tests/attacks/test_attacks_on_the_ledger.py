"""Attacks on the ledger: cut off, forked, rewritten, signed by others, set back; by administrators, and by whoever holds its key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from attestry.aws.signer import KmsNoteSigner
from attestry.evidence.bundle import read_bundle as read_zip
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.leaf import Leaf, read_bundle, write_leaf
from attestry.evidence.ledger_audit import LedgerBrokenError, audit_ledger
from attestry.evidence.ledger_batch import Batch, LogState
from attestry.evidence.note import Checkpoint, parse_note, sign_note
from attestry.evidence.tlog import TILE_WIDTH, leaf_hash, tile_at
from attestry.ports import NoteSigner
from attestry.usecases.ledger_head import COMMIT, FOLDER, LIVE, archive_key
from attestry.usecases.witness import CheckpointRequest
from tests.attacks.conftest import Tell
from tests.attacks.scene import Scene, broken
from tests.embedded.flows import refusal, until
from tests.evidence_world import rewrite
from tests.fakes import LocalNoteSigner

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

TRIES = 4


def kept_checkpoint(scene: Scene) -> bytes:
    """The checkpoint that an auditor took home, of a ledger in which nothing waits."""
    until(lambda: scene.sequence()["appended"] == 0, "nothing waited for the ledger")
    return scene.ledger_file("checkpoint")


def size_of(note: bytes) -> int:
    """How many leaves a checkpoint speaks of."""
    return Checkpoint.parse(parse_note(note)[0]).size


def leaves_of(scene: Scene, size: int) -> list[bytes]:
    """All leaves of the ledger, read through the API."""
    tiles = [tile_at(0, n, size) for n in range(-(-size // TILE_WIDTH))]
    return [leaf for tile in tiles for leaf in read_bundle(scene.ledger_file(tile.entries_path), tile.width)]


def audit(scene: Scene, since: bytes | None = None) -> Any:
    """What `attestry ledger verify` does."""
    return audit_ledger(scene.ledger_file, scene.log_keys, scene.witness_keys, since=since)


def audit_breaks(scene: Scene, attack: Callable[[bytes], Mapping[str, bytes]], *, since: bool = False) -> LedgerBrokenError:
    """Lay other objects over those of the ledger, and return what `attestry ledger verify` says.

    The sequencer wakes every minute and mends the live checkpoint; where it did so just then, the attack is made once more.
    """
    for _ in range(TRIES):
        honest = kept_checkpoint(scene)
        with laid_over(scene, attack(honest)):
            try:
                audit(scene, honest if since else None)
            except LedgerBrokenError as error:
                return error
    raise AssertionError("the audit found nothing")


@contextmanager
def laid_over(scene: Scene, objects: Mapping[str, bytes]) -> Iterator[None]:
    """Have an administrator write over objects of the ledger."""
    with ExitStack() as stack:
        for key, body in objects.items():
            stack.enter_context(scene.laid_over(key, body))
        yield


def ledger_key(scene: Scene) -> NoteSigner:
    """The ledger's own key, in the hands of who has stolen the sequencer's role."""
    registry = scene.registry
    variables = registry.aws("lambda").get_function_configuration(FunctionName="attestry-sequence")["Environment"]["Variables"]
    return KmsNoteSigner(registry.aws("kms", registry.as_function("sequence")), variables["ATTESTRY_LEDGER_KEY"])


def signed(scene: Scene, size: int, root: bytes, signer: NoteSigner) -> bytes:
    """A checkpoint of our ledger's name."""
    origin = scene.root.trusted_root.registry
    return sign_note(Checkpoint(origin, size, root).to_text(), origin, signer.public_key(), signer.sign_ed25519)


def ask_witness(scene: Scene, old: int, note: bytes) -> tuple[int, str]:
    """Status and body of the witness's answer about a checkpoint."""
    body = CheckpointRequest(old, (), note).to_body().decode()
    http = {"method": "POST", "path": "/add-checkpoint"}
    event = {"version": "2.0", "rawPath": "/add-checkpoint", "headers": {}, "requestContext": {"http": http}, "body": body}
    answer = scene.registry.invoke("witness", {**event, "rawQueryString": "", "isBase64Encoded": False})
    return int(answer["statusCode"]), str(answer["body"])


def sequence_refuses(scene: Scene) -> str:
    """What the sequencer fails with."""
    answer = scene.registry.aws("lambda").invoke(FunctionName="attestry-sequence", Payload=b"{}")
    assert "FunctionError" in answer, "the sequencer went on"
    return str(json.loads(answer["Payload"].read())["errorMessage"])


def test_the_honest_ledger_is_verified(scene: Scene) -> None:
    since = scene.read_object(archive_key(size_of(kept_checkpoint(scene))))
    assert audit(scene, since).witnesses


def test_a_ledger_that_is_cut_off_is_told_by_who_kept_a_checkpoint(scene: Scene, tell: Tell) -> None:
    """An administrator shows an older checkpoint, which the ledger's key signed at its time."""

    def attack(honest: bytes) -> Mapping[str, bytes]:
        sizes = sorted(int(k.rpartition("/")[2]) for k in scene.registry.keys(f"{FOLDER}checkpoints/"))
        return {LIVE: scene.read_object(archive_key([n for n in sizes if n < size_of(honest)][-1]))}

    error = audit_breaks(scene, attack, since=True)
    assert (error.step, "cut off" in error.reason) == ("since", True), error
    assert scene.sequence()["finished"]
    audit(scene)
    tell("`ledger verify --since` BROKEN at `since`; the sequencer shows the later checkpoint again within a minute")


def test_a_leaf_that_is_rewritten_breaks_the_ledger(scene: Scene, tell: Tell) -> None:
    """An administrator changes who approved, in the published leaf."""
    error = audit_breaks(scene, lambda honest: {k: v for k, v in rewritten(scene, honest)[0].items() if "/entries/" in k})
    assert error.step in ("root", "tile"), error
    honest = kept_checkpoint(scene)
    changed = {k: v for k, v in rewritten(scene, honest)[0].items() if "/entries/" in k}
    with laid_over(scene, changed):
        found = scene.findings(whole=True)
    assert found["ledger.changed"], found
    tell(f"`ledger verify` BROKEN at `{error.step}`; finding `ledger.changed`")


def rewritten(scene: Scene, honest: bytes) -> tuple[dict[str, bytes], bytes]:
    """The objects of a ledger in which somebody else approved, as far as they differ from the honest ones, and its root."""
    leaves = leaves_of(scene, size_of(honest))
    subject = f"{scene.model}@{scene.second}"
    index = next(
        n for n, leaf in enumerate(leaves) if (e := Leaf.parse(leaf).event)["kind"] == "version.approved" and e["subject"] == subject
    )
    leaf = Leaf.parse(leaves[index])
    event = {**leaf.event, "principal": {**leaf.event["principal"], "person": "mallory"}}
    leaves[index] = write_leaf(canonical_bytes(event), leaf.logged)
    batch = Batch(LogState(), tuple(leaves))
    differ = {}
    for path, raw, _ in batch.objects():
        if path.startswith("tile/") and scene.read_object(f"{FOLDER}{path}") != raw:
            differ[f"{FOLDER}{path}"] = raw
    return differ, batch.after.edge.root()


def test_a_ledger_that_is_rewritten_and_signed_by_its_own_key_is_not_the_one_that_was_kept(scene: Scene, tell: Tell) -> None:
    """The worst: whoever can use the ledger's key rewrites leaves, tiles and checkpoint so that all of them agree."""

    def attack(honest: bytes) -> Mapping[str, bytes]:
        objects, root = rewritten(scene, honest)
        return {**objects, LIVE: signed(scene, size_of(honest), root, ledger_key(scene))}

    error = audit_breaks(scene, attack, since=True)
    assert (error.step, "rewritten" in error.reason) == ("since", True), error
    honest = kept_checkpoint(scene)
    status, _ = ask_witness(scene, size_of(honest), attack(honest)[LIVE])
    assert status == 409
    tell("`ledger verify --since` BROKEN at `since`: the past was rewritten; the witness refuses to cosign: 409")


def test_a_fork_of_the_ledger_is_refused_by_the_witness_and_stops_the_sequencer(scene: Scene, tell: Tell) -> None:
    """Two checkpoints of one size, both by the ledger's key: one for us, one for somebody else."""
    honest = kept_checkpoint(scene)
    fork = signed(scene, size_of(honest), leaf_hash(b"another history"), ledger_key(scene))
    status, body = ask_witness(scene, size_of(honest), fork)
    assert (status, body) == (409, f"{size_of(honest)}\n")
    with laid_over(scene, {LIVE: fork}):
        refused = sequence_refuses(scene)
        with pytest.raises(LedgerBrokenError) as error:
            audit(scene)
        found = scene.findings(whole=True)
    assert "set back" in refused
    assert error.value.step == "root"
    assert LIVE in found["checkpoint.changed"]
    tell("the witness answers 409; the sequencer stops; `ledger verify` BROKEN at `root`; finding `checkpoint.changed`")


def test_a_longer_fork_without_a_proof_is_refused_by_the_witness(scene: Scene, tell: Tell) -> None:
    honest = kept_checkpoint(scene)
    fork = signed(scene, size_of(honest) + 1, leaf_hash(b"another history"), ledger_key(scene))
    status, _ = ask_witness(scene, size_of(honest), fork)
    assert status == 422
    tell("the witness refuses: 422, the consistency proof does not hold")


def test_a_checkpoint_that_is_signed_with_another_key_is_nobody_s(scene: Scene, tell: Tell) -> None:
    mallory = LocalNoteSigner("mallory")
    honest = kept_checkpoint(scene)
    forged = signed(scene, size_of(honest), leaf_hash(b"mallory's"), mallory)
    status, _ = ask_witness(scene, size_of(honest), forged)
    assert status == 403
    error = audit_breaks(scene, lambda note: {LIVE: signed(scene, size_of(note), leaf_hash(b"mallory's"), mallory)})
    assert error.step == "checkpoint"
    step, _ = broken(scene.verify(rewrite(scene.bundle, {"ledger/checkpoint": forged})))
    assert step == "checkpoint"
    tell("`ledger verify` and `verify` BROKEN at `checkpoint`; the witness refuses: 403")


@pytest.mark.parametrize("profile", ["admin", "grace", "record_stage", "decide", "witness", "reconcile", "collect"])
def test_the_ledger_s_key_signs_for_the_sequencer_alone(scene: Scene, tell: Tell, profile: str) -> None:
    registry = scene.registry
    who = profile if profile in ("admin", "grace") else registry.as_function(profile)
    how = {"MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512", "Message": b"x"}
    assert refusal(registry.aws("kms", who).sign, KeyId="alias/attestry-ledger", **how) == "AccessDeniedException"
    tell("KMS refuses: AccessDenied")


def test_a_ledger_that_is_set_back_in_the_table_signs_nothing(scene: Scene, tell: Tell) -> None:
    """An administrator sets the commit row back to an earlier checkpoint, so that the sequencer would write another future."""
    honest = kept_checkpoint(scene)
    sizes = sorted(int(k.rpartition("/")[2]) for k in scene.registry.keys(f"{FOLDER}checkpoints/"))
    earlier = scene.read_object(archive_key([n for n in sizes if 0 < n < size_of(honest)][-1]))
    text, _ = parse_note(earlier)
    told = Checkpoint.parse(text)
    own = next(line for line in earlier.decode().splitlines(keepends=True) if line.startswith(f"— {told.origin} "))
    note = f"{text}\n{own}"
    with scene.edited(COMMIT, size=told.size, root=told.root.hex(), note=note):
        refused, found = sequence_refuses(scene), scene.findings(whole=True)
    assert "set back" in refused
    assert LIVE in found["checkpoint.changed"], found
    assert size_of(scene.ledger_file("checkpoint")) >= size_of(honest)
    tell("the sequencer signs nothing and fails (alarm); finding `checkpoint.changed`")


def test_a_node_of_the_tree_does_not_pass_for_a_leaf(scene: Scene, tell: Tell) -> None:
    """Second preimage: the two children of a node, one behind the other, are shown as a leaf of a tree of half the height."""
    files = read_zip(scene.bundle).files
    proofs = json.loads(files["ledger/proofs.json"])
    for text, hashes in proofs["proofs"].items():
        index, name = int(text), f"ledger/leaves/{int(text):012d}.json"
        pair = [leaf_hash(files[name]), bytes.fromhex(hashes[0])]
        children = b"".join(pair if index % 2 == 0 else reversed(pair))
        shorter = canonical_bytes({**proofs, "proofs": {**proofs["proofs"], text: hashes[1:]}})
        step, reason = broken(scene.verify(rewrite(scene.bundle, {name: children, "ledger/proofs.json": shorter})))
        assert step == "leaves", reason
    tell("verify BROKEN at `leaves`: leaves and nodes are hashed apart, and the size gives the height")
