"""The ledger, read and audited: what an administrator does to it shows, and what is served is the ledger alone."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.aws.http import error_answer, read_request
from attestry.aws.settings import Settings
from attestry.aws.world import World as AwsWorld
from attestry.cli.main import make_app
from attestry.domain.errors import AttestryError, InvalidInputError, NotFoundError
from attestry.evidence.leaf import Leaf, write_leaf
from attestry.evidence.ledger_audit import LedgerAudit, LedgerBrokenError, audit_ledger
from attestry.evidence.ledger_batch import Batch, LogState
from attestry.evidence.note import Checkpoint, Signature, add_signatures, sign_note
from attestry.evidence.tlog import leaf_hash, verify_consistency, verify_inclusion
from attestry.evidence.trusted_key import ed25519_der
from attestry.usecases.ledger import LedgerReader, find_leaf, find_leaves, read_file
from attestry.usecases.ledger_head import archive_key
from lambdas import registry
from tests.fakes import LocalNoteSigner
from tests.root_of_trust import People, a_trusted_root, deployment, entry
from tests.unit.client_double import ApiDouble, Told
from tests.unit.ledger_world import ORIGIN, WITNESS, World, check


def ledger_of(*portions: int) -> World:
    world = World()
    world.run()
    for count in portions:
        world.add_events(count)
        world.run()
        world.clock.advance(seconds=1)
    return world


def audit(world: World, since: bytes | None = None) -> LedgerAudit:
    def read(path: str) -> bytes:
        return base64.b64decode(read_file(world.store, path)["content"])

    return audit_ledger(read, [world.log_key], [world.witness_key], since=since)


def rewrite(world: World, leaves: list[bytes], *, size: int | None = None) -> None:
    """Do what an administrator with the ledger's key can do: publish another ledger in place of this one."""
    batch = Batch(LogState(), tuple(leaves))
    edge = batch.after.edge
    world.store.versions = {k: v for k, v in world.store.versions.items() if not k.startswith("ledger/tile")}
    for path, raw, _ in batch.objects():
        world.store.put(f"ledger/{path}", raw)
    text = Checkpoint(ORIGIN, edge.size if size is None else size, edge.root()).to_text()
    world.store.put("ledger/checkpoint", sign_note(text, ORIGIN, world.signer.public_key(), world.signer.sign_ed25519))


@pytest.mark.parametrize("portions", [(), (1,), (3, 5), (256,), (255, 1, 1), (600, 200)])
def test_a_ledger_as_it_was_written_verifies_with_its_witness(portions: tuple[int, ...]) -> None:
    world = ledger_of(*portions)
    found = audit(world)
    assert found.checkpoint == world.live()
    assert [name for name, _ in found.witnesses] == [WITNESS]
    assert found.note == world.object("checkpoint")


def test_every_checkpoint_that_somebody_kept_is_a_prefix() -> None:
    world = ledger_of(3, 250, 3, 256, 100)
    for size in check(world).checkpoints:
        assert audit(world, world.store.versions[archive_key(size)][0].body).since == size


def test_a_ledger_that_was_truncated_is_found_by_who_kept_a_checkpoint() -> None:
    world = ledger_of(5, 5)
    kept = world.object("checkpoint")
    world.store.put("ledger/checkpoint", world.store.versions[archive_key(5)][0].body)
    assert audit(world).checkpoint.size == 5
    with pytest.raises(LedgerBrokenError, match="cut off") as caught:
        audit(world, kept)
    assert caught.value.step == "since"


def test_a_ledger_that_was_rewritten_with_the_ledgers_own_key_is_found_by_who_kept_a_checkpoint() -> None:
    world = ledger_of(5, 5)
    kept = world.object("checkpoint")
    leaves = check(world).leaves
    rewrite(world, [leaves[0], *leaves[2:], leaves[1]])
    with pytest.raises(LedgerBrokenError):
        audit(world, kept)
    rewrite(world, [leaves[0], *leaves[2:]])
    assert audit(world).checkpoint.size == 9
    with pytest.raises(LedgerBrokenError) as caught:
        audit(world, kept)
    assert caught.value.step == "since"


def test_a_fork_that_grew_beyond_the_kept_checkpoint_is_found() -> None:
    world, other = ledger_of(5), ledger_of(9)
    other.made += 100
    kept = world.object("checkpoint")
    rewrite(world, check(other).leaves[:3] + check(other).leaves[5:])
    with pytest.raises(LedgerBrokenError, match="rewritten"):
        audit(world, kept)


def test_a_fork_of_the_same_size_is_found() -> None:
    world = ledger_of(5)
    kept = world.object("checkpoint")
    leaves = check(world).leaves
    rewrite(world, [*leaves[:4], write_leaf(ledger_of(7).add_events(1)[0], Leaf.parse(leaves[-1]).logged)])
    assert audit(world).checkpoint.size == 5
    with pytest.raises(LedgerBrokenError, match="rewritten"):
        audit(world, kept)


def administrators_acts() -> dict[str, tuple[str, Callable[[World], Any]]]:
    def edit(world: World, path: str, act: Callable[[bytes], bytes]) -> None:
        world.store.tamper(f"ledger/{path}", act(world.object(path)))

    def relog(world: World, change: Callable[[list[bytes]], list[bytes]]) -> None:
        rewrite(world, change(check(world).leaves))

    def leaf_of(world: World, n: int, logged: str) -> bytes:
        return write_leaf(Leaf.parse(check(world).leaves[n]).event_bytes, logged)

    def forged_line(world: World) -> bytes:
        return add_signatures(world.object("checkpoint"), [Signature(WITNESS, world.witness_key.key_id, bytes(7) + b"\1" * 65)])

    last = "tile/entries/001.p/44"
    return {
        "a byte of a leaf is changed": ("leaf", lambda w: edit(w, last, lambda d: d.replace(b'"sequence":290', b'"sequence":291'))),
        "a leaf is changed and stays one": ("tile", lambda w: edit(w, last, lambda d: d.replace(b'"data":{"n":290}', b'"data":{"n":299}'))),
        "a leaf is cut out": ("entries", lambda w: edit(w, last, lambda d: d[2 + int.from_bytes(d[:2], "big") :])),
        "two leaves are swapped": ("leaf", lambda w: relog(w, lambda ls: [*ls[:-2], ls[-1] + b"", ls[0]])),
        "an event is logged twice": ("leaf", lambda w: relog(w, lambda ls: [*ls, ls[-1]])),
        "a time goes back": ("leaf", lambda w: relog(w, lambda ls: [*ls[:-1], leaf_of(w, -1, "2020-01-01T00:00:00.000000Z")])),
        "a full tile is changed": ("tile", lambda w: edit(w, "tile/0/000", lambda d: bytes(32) + d[32:])),
        "a partial tile is changed": ("tile", lambda w: edit(w, "tile/0/001.p/44", lambda d: d[32:] + d[:32])),
        "a tile of the second level is changed": ("tile", lambda w: edit(w, "tile/1/000.p/1", lambda d: bytes(32))),
        "a tile is longer": ("tile", lambda w: edit(w, "tile/1/000.p/1", lambda d: d + d)),
        "a tile is deleted": ("tile", lambda w: w.store.delete("ledger/tile/0/000")),
        "a bundle is deleted": ("entries", lambda w: w.store.delete("ledger/tile/entries/000")),
        "the checkpoint is deleted": ("checkpoint", lambda w: w.store.delete("ledger/checkpoint")),
        "the checkpoint is garbage": ("checkpoint", lambda w: w.store.put("ledger/checkpoint", b"garbage")),
        "the size is changed": ("checkpoint", lambda w: edit(w, "checkpoint", lambda d: d.replace(b"\n300\n", b"\n299\n"))),
        "a cosignature is forged": ("checkpoint", lambda w: w.store.put("ledger/checkpoint", forged_line(w))),
        "the ledger's key signs another size": ("root", lambda w: rewrite_size(w, 299)),
    }


def rewrite_size(world: World, size: int) -> None:
    leaves = check(world).leaves
    rewrite(world, leaves[:size])
    text = Checkpoint(ORIGIN, size, bytes(32)).to_text()
    world.store.put("ledger/checkpoint", sign_note(text, ORIGIN, world.signer.public_key(), world.signer.sign_ed25519))


@pytest.mark.parametrize("name", administrators_acts())
def test_whatever_an_administrator_does_to_the_files_is_found_at_its_step(name: str) -> None:
    world = ledger_of(300)
    step, act = administrators_acts()[name]
    act(world)
    with pytest.raises(LedgerBrokenError) as caught:
        audit(world)
    assert caught.value.step == step


def test_a_checkpoint_of_another_key_or_under_another_name_is_refused() -> None:
    world = ledger_of(3)
    other = LocalNoteSigner("other")
    checkpoint = world.live()
    for origin, signer in ((ORIGIN, other), ("elsewhere", world.signer)):
        text = Checkpoint(origin, checkpoint.size, checkpoint.root).to_text()
        world.store.put("ledger/checkpoint", sign_note(text, ORIGIN, signer.public_key(), signer.sign_ed25519))
        with pytest.raises(LedgerBrokenError) as caught:
            audit(world)
        assert caught.value.step == "checkpoint"


def test_a_witness_alone_does_not_make_a_checkpoint() -> None:
    world = ledger_of(3)
    note = world.object("checkpoint").decode()
    text, lines = note.split("\n\n")
    world.store.put("ledger/checkpoint", f"{text}\n\n{lines.splitlines(keepends=True)[1]}".encode())
    with pytest.raises(LedgerBrokenError, match="no key of the ledger"):
        audit(world)


def test_an_earlier_checkpoint_that_the_ledger_never_signed_is_refused() -> None:
    world = ledger_of(3)
    other = ledger_of(2)
    with pytest.raises(LedgerBrokenError) as caught:
        audit(world, other.object("checkpoint"))
    assert caught.value.step == "since"


# Reading


def test_leaves_and_proofs_are_read_from_what_is_published() -> None:
    world = ledger_of(300, 20)
    reader = LedgerReader(world.store)
    checkpoint, note = reader.checkpoint()
    leaves = check(world).leaves
    assert note == world.object("checkpoint")
    assert reader.checkpoint(300)[0].size == 300
    for index in (0, 255, 256, 319):
        assert reader.leaf(index, checkpoint.size) == leaves[index]
        verify_inclusion(leaf_hash(leaves[index]), index, 320, reader.inclusion_proof(index, 320), checkpoint.root)
    assert list(reader.leaves(250, 320)) == leaves[250:]
    old = reader.checkpoint(300)[0]
    verify_consistency(300, 320, reader.consistency_proof(300, 320), old.root, checkpoint.root)
    for index in (-1, 320):
        with pytest.raises(InvalidInputError):
            reader.leaf(index, 320)


def test_an_event_is_found_by_its_id_once_it_is_logged() -> None:
    world = ledger_of(3)
    first, waiting = json.loads(next(iter(world.events.values())))["id"], json.loads(world.add_events(1)[0])["id"]
    assert find_leaf(world.meta, first) == 0
    assert find_leaf(world.meta, waiting) is None
    assert find_leaves(world.meta, [first, waiting]) == {first: 0}


@pytest.mark.parametrize(
    "path", ["checkpoint", "checkpoints/000000000300", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000"]
)
def test_published_files_are_served(path: str) -> None:
    world = ledger_of(300)
    served = read_file(world.store, path)
    assert (served["path"], base64.b64decode(served["content"])) == (path, world.object(path))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/checkpoint",
        "checkpoint/",
        "checkpoint\n",
        "checkpoints/",
        "checkpoints/1",
        "checkpoints/../staging/000000000300",
        "staging/000000000300-0000000000000000-0300",
        "audit/x.jsonl",
        "../models/credit-risk",
        "tile/../../candidates",
        "tile/0/../../../x",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/\u0660\u0660\u0660",
        "tile/entries/000.p/",
        "tile/entries",
        "tile/0/" + "x000/" * 7 + "000",
    ],
)
def test_nothing_else_of_the_store_is_served(path: str) -> None:
    with pytest.raises(InvalidInputError):
        read_file(World().store, path)


def test_a_file_that_is_not_there_is_told_so() -> None:
    with pytest.raises(NotFoundError):
        read_file(ledger_of(3).store, "tile/0/007")


# The command line, over the API's own handler


@pytest.fixture
def world() -> World:
    return ledger_of(300, 20)


@pytest.fixture
def api(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    aws = AwsWorld(Settings({"ATTESTRY_ACCOUNT": "123456789012"}))
    aws.__dict__.update({"store": world.store, "meta": world.meta})
    monkeypatch.setattr(registry, "world", aws)
    double = ApiDouble()

    def serve(_: Any) -> Told:
        event = {"queryStringParameters": dict(double.asked[-1].query)}
        try:
            return Told(registry.ROUTES["GET /v1/ledger/file"](read_request(event)))
        except AttestryError as error:
            answer = error_answer(error, "r1")
            return Told(answer.body, answer.status)

    double.functions["GET /v1/ledger/file"] = serve
    yield double
    double.close()


@pytest.fixture
def run(api: ApiDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "ATTESTRY_API_URL": api.url,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    for name, value in {**settings, "AWS_DEFAULT_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(make_app(), list(arguments))


def keys_of(world: World) -> list[str]:
    return ["--vkey", world.log_key.vkey(), "--vkey", world.witness_key.vkey()]


def test_ledger_verify_tells_size_root_witnesses_and_verdict(run: Callable[..., Any], world: World, tmp_path: Path) -> None:
    saved = tmp_path / "kept"
    result = run("ledger", "verify", *keys_of(world), "--save", str(saved))
    assert result.exit_code == 0, result.output
    for text in ("VERIFIED", ORIGIN, "320 leaves", world.live().root.hex(), WITNESS, "not outside"):
        assert text in result.output
    assert saved.read_bytes() == world.object("checkpoint")
    world.add_events(5)
    world.run()
    told = json.loads(run("ledger", "verify", *keys_of(world), "--since", str(saved), "--json").output)
    assert (told["verdict"], told["size"], told["since"]) == ("VERIFIED", 325, 320)


def test_ledger_verify_ends_with_5_and_names_the_step_of_a_broken_ledger(run: Callable[..., Any], world: World, tmp_path: Path) -> None:
    saved = tmp_path / "kept"
    saved.write_bytes(world.object("checkpoint"))
    world.store.put("ledger/checkpoint", world.store.versions[archive_key(300)][0].body)
    result = run("ledger", "verify", *keys_of(world), "--since", str(saved), "--save", str(tmp_path / "new"))
    assert result.exit_code == 5
    assert "BROKEN" in result.output
    assert "cut off" in result.output
    assert not (tmp_path / "new").exists()
    world.store.delete("ledger/tile/0/000")
    result = run("ledger", "verify", *keys_of(world), "--json")
    assert (result.exit_code, json.loads(result.output)["step"]) == (5, "tile")


@pytest.mark.parametrize("arguments", [[], ["--root", "r", "--vkey", "v"], ["--vkey", "nonsense"]])
def test_ledger_verify_needs_to_be_told_whom_to_believe(run: Callable[..., Any], arguments: list[str]) -> None:
    assert run("ledger", "verify", *arguments).exit_code in (1, 2)


def test_ledger_show_lists_the_latest_events(run: Callable[..., Any]) -> None:
    result = run("ledger", "show", "--last", "3")
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()[-3:]] == ["317", "318", "319"]
    told = json.loads(run("ledger", "show", "--last", "70", "--json").output)
    assert [e["index"] for e in told["events"]] == list(range(250, 320))


def publish_root(api: ApiDouble, world: World, tmp_path: Path, *, end: str | None = None) -> Path:
    keys = [e for e in deployment() if e["use"] not in ("tlogs", "witnesses")]
    keys += [entry("tlogs", ORIGIN, ed25519_der(world.signer.public_key()))]
    keys += [entry("witnesses", WITNESS, ed25519_der(world.witness_signer.public_key()))]
    trusted = a_trusted_root(keys)
    if end is not None:
        from attestry.client.key_changes import revoke

        trusted = revoke(trusted, trusted.tlogs[0].fingerprint, since=end)
    files = People().begin(trusted, at=datetime(2026, 1, 1, tzinfo=UTC))
    api.answer("GET /v1/root", {"files": {name: data.decode() for name, data in files.items()}})
    pin = tmp_path / "root.json"
    pin.write_bytes(files["1.root.json"])
    return pin


def test_ledger_verify_believes_the_keys_that_a_pinned_root_leads_to(
    run: Callable[..., Any], api: ApiDouble, world: World, tmp_path: Path
) -> None:
    pin = publish_root(api, world, tmp_path)
    result = run("ledger", "verify", "--root", str(pin))
    assert result.exit_code == 0, result.output
    assert WITNESS in result.output


def test_ledger_verify_refuses_a_checkpoint_signed_with_a_revoked_key(
    run: Callable[..., Any], api: ApiDouble, world: World, tmp_path: Path
) -> None:
    pin = publish_root(api, world, tmp_path, end="2026-01-01T12:00:00.000000Z")
    result = run("ledger", "verify", "--root", str(pin))
    assert result.exit_code == 5, result.output


def test_ledger_verify_refuses_the_root_of_somebody_else(run: Callable[..., Any], api: ApiDouble, world: World, tmp_path: Path) -> None:
    pin = publish_root(api, world, tmp_path)
    (tmp_path / "x").mkdir()
    api.answers.clear()
    publish_root(api, world, tmp_path / "x")
    assert run("ledger", "verify", "--root", str(pin)).exit_code == 5


# The keys as vkeys


def test_ledger_vkey_prints_the_keys_that_ledger_verify_takes(
    run: Callable[..., Any], api: ApiDouble, world: World, tmp_path: Path
) -> None:
    pin = publish_root(api, world, tmp_path)
    result = run("ledger", "vkey", "--root", str(pin))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [world.log_key.vkey(), world.witness_key.vkey()]
    assert run("ledger", "verify", *(f"--vkey={line}" for line in result.stdout.splitlines())).exit_code == 0


def test_ledger_vkey_without_a_pin_says_that_the_registry_tells_them(
    run: Callable[..., Any], api: ApiDouble, world: World, tmp_path: Path
) -> None:
    publish_root(api, world, tmp_path)
    result = run("ledger", "vkey")
    assert world.log_key.vkey() in result.stdout
    assert "not pinned" in result.stderr


def test_ledger_vkey_leaves_out_keys_that_have_ended_unless_it_is_asked(
    run: Callable[..., Any], api: ApiDouble, world: World, tmp_path: Path
) -> None:
    pin = publish_root(api, world, tmp_path, end="2026-01-01T12:00:00.000000Z")
    assert json.loads(run("ledger", "vkey", "--root", str(pin), "--json").output) == [
        e for e in json.loads(run("ledger", "vkey", "--root", str(pin), "--all", "--json").output) if e["use"] == "witness"
    ]
    assert f"{world.log_key.vkey()}  # ended 2026-01-01" in run("ledger", "vkey", "--root", str(pin), "--all").stdout


def test_ledger_vkey_refuses_the_root_of_somebody_else(run: Callable[..., Any], api: ApiDouble, world: World, tmp_path: Path) -> None:
    pin = publish_root(api, world, tmp_path)
    (tmp_path / "x").mkdir()
    api.answers.clear()
    publish_root(api, world, tmp_path / "x")
    assert run("ledger", "vkey", "--root", str(pin)).exit_code != 0


def test_ledger_vkey_makes_the_vkey_of_a_key_that_no_root_names_yet(run: Callable[..., Any], world: World) -> None:
    log, witness = (base64.b64encode(ed25519_der(s.public_key())).decode() for s in (world.signer, world.witness_signer))
    assert run("ledger", "vkey", "--name", ORIGIN, "--public-key", log).stdout.strip() == world.log_key.vkey()
    told = run("ledger", "vkey", "--witness", "--name", WITNESS, "--public-key", witness)
    assert told.stdout.strip() == world.witness_key.vkey()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", ORIGIN],
        ["--public-key", "AAAA"],
        ["--name", ORIGIN, "--public-key", "AAAA"],
        ["--name", ORIGIN, "--public-key", "not base64!"],
        ["--name", "a name", "--public-key", base64.b64encode(bytes(32)).decode()],
        ["--name", ORIGIN, "--public-key", base64.b64encode(bytes(32)).decode(), "--root", "root.json"],
    ],
)
def test_ledger_vkey_refuses_what_is_no_key(run: Callable[..., Any], arguments: list[str]) -> None:
    assert run("ledger", "vkey", *arguments).exit_code != 0
