"""The sequencer against administrators, tampered rows and objects, and witnesses that are silent or were told otherwise."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest

from attestry.access.scopes import Placement
from attestry.access.standing import Grant
from attestry.domain.errors import IntegrityError, UnavailableError
from attestry.domain.events import Event
from attestry.domain.principal import registry_principal
from attestry.evidence.ledger_batch import Batch, LogState
from attestry.evidence.note import Checkpoint, Verifier, open_note, sign_note
from attestry.evidence.tlog import RightEdge, leaf_hash
from attestry.ports import Delete, Key, Put, When
from attestry.usecases.grants import give_grant
from attestry.usecases.ledger import LedgerReader
from attestry.usecases.ledger_head import COMMIT, leaf_key
from attestry.usecases.people import add_person
from attestry.usecases.placement import place_model
from attestry.usecases.records import outbox_put
from tests.fakes import LocalNoteSigner
from tests.unit.ledger_world import (
    ORIGIN,
    WITNESS,
    World,
    check_all_is_there,
    settle,
)


@pytest.mark.parametrize("found", ["same", "other"])
def test_an_index_row_written_by_hand_makes_no_event_disappear(found: str) -> None:
    world = World()
    world.add_events(3)
    world.run()
    (raw,) = world.add_events(1)
    event_id = json.loads(raw)["id"]
    forged = {
        "index": 1,
        "sha256": "0" * 64 if found == "other" else hashlib.sha256(raw).hexdigest(),
        "logged": "2026-01-01T00:00:00.000000Z",
    }
    world.meta.rows[leaf_key(event_id)] = {"pk": f"LEAF#{event_id}", "sk": "HEAD", **forged}
    done = world.run()
    assert done.appended == 1
    assert done.findings
    check_all_is_there(world)


def test_a_ledger_whose_commit_row_is_gone_is_not_begun_again() -> None:
    world = World()
    world.add_events(3)
    world.run()
    world.meta.transact([Delete(COMMIT, When())])
    for forget in (lambda: None, lambda: world.store.delete("ledger/checkpoint")):
        forget()
        with pytest.raises(IntegrityError, match="gone"):
            world.run()
    assert COMMIT not in world.meta.rows


def test_a_ledger_whose_commit_row_was_set_back_signs_nothing() -> None:
    world = World()
    world.add_events(3)
    world.run()
    earlier = dict(world.meta.rows[COMMIT])
    world.add_events(1)
    world.run()
    world.meta.rows[COMMIT] = earlier
    world.add_events(1)
    signed = world.signer.faults.calls.count("LocalNoteSigner.sign_ed25519")
    with pytest.raises(IntegrityError, match="set back"):
        world.run()
    assert world.signer.faults.calls.count("LocalNoteSigner.sign_ed25519") == signed


def test_a_ledger_set_back_together_with_its_live_checkpoint_is_stopped_by_its_archive_and_not_witnessed() -> None:
    world = World()
    world.add_events(3)
    world.run()
    earlier = dict(world.meta.rows[COMMIT]), world.object("checkpoint")
    world.add_events(1)
    world.run()
    world.meta.rows[COMMIT] = earlier[0]
    world.store.put("ledger/checkpoint", earlier[1])
    world.add_events(1)
    asked = len(world.witnesses.asked)
    with pytest.raises(IntegrityError, match="exists with other bytes"):
        world.run()
    assert len(world.witnesses.asked) == asked
    assert world.live().size == 3


@pytest.mark.parametrize(
    "change",
    [{"size": 99}, {"root": "0" * 64}, {"root": "x"}, {"note": "nothing"}, {"note": None}, {"size": None}],
)
def test_a_commit_row_that_was_edited_is_refused(change: dict[str, Any]) -> None:
    world = World()
    world.add_events(3)
    world.run()
    world.meta.rows[COMMIT].update(change)
    with pytest.raises(IntegrityError, match="row of the ledger's head"):
        world.run()


def test_a_commit_row_signed_by_another_key_or_of_another_ledger_is_refused() -> None:
    world = World()
    world.add_events(3)
    world.run()
    other = LocalNoteSigner("other")
    root = RightEdge().append([leaf_hash(b"x")])[0].root()
    for origin, signer in ((ORIGIN, other), ("elsewhere", world.signer)):
        note = sign_note(Checkpoint(origin, 1, root).to_text(), ORIGIN, signer.public_key(), signer.sign_ed25519)
        world.meta.rows[COMMIT].update({"size": 1, "root": root.hex(), "note": note.decode()})
        with pytest.raises(IntegrityError, match="row of the ledger's head"):
            world.run()


def crash_after_commit(world: World, count: int = 3) -> None:
    """Leave a head that is committed and not published."""
    world.run()
    world.add_events(count)
    world.store.faults.fail_before(2, method="put_new", error=UnavailableError("gone"))
    with pytest.raises(UnavailableError):
        world.run()
    assert world.meta.rows[COMMIT]["published"] is False


@pytest.mark.parametrize("forgery", ["garbage", "other leaves", "fewer leaves", "empty", "begins later"])
def test_a_forged_staging_object_is_passed_over_for_the_one_that_was_committed(forgery: str) -> None:
    world = World()
    crash_after_commit(world)
    key = str(world.meta.rows[COMMIT]["staging"])
    batch = Batch.parse(world.store.versions[key][0].body)
    part = Batch(LogState(), batch.leaves[:2])
    forged = {
        "garbage": b"\x00\xff",
        "other leaves": Batch(LogState(), (*batch.leaves[:2], b"other")).to_bytes(),
        "fewer leaves": part.to_bytes(),
        "empty": b"",
        "begins later": Batch(part.after, batch.leaves[2:]).to_bytes(),
    }[forgery]
    world.store.put(key, forged)
    done = world.run()
    assert done.replayed
    del world.store.versions[key][1]
    settle(world)
    check_all_is_there(world)


def test_a_staging_object_under_a_delete_marker_is_found() -> None:
    world = World()
    crash_after_commit(world)
    key = str(world.meta.rows[COMMIT]["staging"])
    world.store.delete(key)
    assert world.run().replayed
    del world.store.versions[key][1]
    settle(world)
    check_all_is_there(world)


def test_where_every_staging_object_is_forged_nothing_is_published_and_nothing_lost() -> None:
    world = World()
    crash_after_commit(world)
    key = str(world.meta.rows[COMMIT]["staging"])
    whole = world.store.versions[key][0].body
    world.store.tamper(key, b"garbage")
    with pytest.raises(IntegrityError, match="not the batch"):
        world.run()
    assert len(world.outbox()) == 3
    assert world.live().size == 0
    world.store.tamper(key, whole)
    settle(world)
    check_all_is_there(world)


def test_an_append_goes_on_from_the_tiles_where_the_last_staging_object_has_expired() -> None:
    for size in (3, 256, 300):
        world = World()
        world.add_events(size)
        world.run()
        del world.store.versions[str(world.meta.rows[COMMIT]["staging"])]
        world.add_events(2)
        assert world.run().appended == 2
        check_all_is_there(world)


def test_tiles_that_do_not_lead_to_the_committed_root_are_not_appended_to() -> None:
    world = World()
    world.add_events(3)
    world.run()
    del world.store.versions[str(world.meta.rows[COMMIT]["staging"])]
    world.store.tamper("ledger/tile/0/000.p/3", bytes(96))
    world.add_events(1)
    with pytest.raises(IntegrityError, match="committed root"):
        world.run()
    assert world.meta.rows[COMMIT]["size"] == 3


def test_a_remembered_edge_that_is_not_the_committed_ones_is_not_appended_to() -> None:
    world, other = World(), World()
    other.add_events(5)
    stale = other.sequencer()
    stale.run()
    world.made = 100
    world.add_events(5)
    sequencer = world.sequencer()
    sequencer.run()
    sequencer._known = stale._known
    world.add_events(2)
    assert sequencer.run().appended == 2
    check_all_is_there(world)


def test_a_tile_that_lies_there_with_other_bytes_stops_publication_and_loses_nothing() -> None:
    world = World()
    world.run()
    world.store.put("ledger/tile/0/000.p/2", b"planted")
    world.add_events(2)
    with pytest.raises(IntegrityError):
        world.run()
    assert len(world.outbox()) == 2
    assert world.live().size == 0
    del world.store.versions["ledger/tile/0/000.p/2"]
    settle(world)
    check_all_is_there(world)


@pytest.mark.parametrize("planted", ["garbage", "another ledger's", "forged"])
def test_a_live_checkpoint_that_is_not_ours_is_reported_and_written_again(planted: str) -> None:
    world = World()
    world.add_events(3)
    world.run()
    text = {"another ledger's": "elsewhere\n9\n", "forged": f"{ORIGIN}\n9\n"}.get(planted, "")
    note = f"{text}{'A' * 43}=\n\n— x AAAAAAAA\n".encode() if text else b"garbage"
    world.store.put("ledger/checkpoint", note)
    done = world.run()
    assert done.findings
    assert world.live().size == 3
    check_all_is_there(world)


def test_a_live_checkpoint_that_a_slow_sequencer_set_back_is_repaired_by_the_next_run() -> None:
    world = World()
    world.add_events(3)
    world.run()
    earlier = world.object("checkpoint")
    world.add_events(3)
    world.run()
    world.store.put("ledger/checkpoint", earlier)
    world.run()
    assert world.live().size == 6
    check_all_is_there(world)


# Witnesses


def test_a_silent_witness_holds_up_nothing_and_cosigns_when_it_is_back() -> None:
    world = World()
    world.run()
    world.witnesses.silent = True
    for _ in range(3):
        world.add_events(2)
        done = world.run()
        assert done.lacking == {WITNESS: "no answer"}
    assert world.live().size == 6
    assert not world.outbox()
    world.witnesses.silent = False
    assert world.run().lacking == {}
    assert world.witnesses.asked[-1] == (0, 6)
    check_all_is_there(world)


def test_a_witness_is_asked_from_where_it_stands_also_by_a_new_process() -> None:
    world = World()
    world.add_events(2)
    world.run()
    for _ in range(3):
        world.add_events(2)
        world.run()
    assert world.witnesses.asked == [(0, 0), (0, 2), (2, 4), (4, 6), (6, 8)]


def test_a_size_that_is_remembered_wrongly_is_corrected_by_the_witness_itself() -> None:
    world = World()
    world.add_events(300)
    world.run()
    world.meta.rows[COMMIT]["witnessed"] = {WITNESS: 17}
    world.add_events(2)
    assert world.run().lacking == {}
    assert world.witnesses.asked[-2:] == [(17, 302), (300, 302)]


@pytest.mark.parametrize("witnessed", [{}, {WITNESS: -1}, {WITNESS: "x"}, {WITNESS: 10**9}, {"other": 3}])
def test_what_the_row_says_of_witnesses_is_a_hint_that_may_be_wrong(witnessed: dict[str, Any]) -> None:
    world = World()
    world.add_events(3)
    world.run()
    world.meta.rows[COMMIT]["witnessed"] = witnessed
    world.add_events(1)
    assert world.run().lacking == {}
    check_all_is_there(world)


def test_a_witness_sees_no_checkpoint_before_it_is_committed() -> None:
    world = World()
    world.run()
    sizes = []
    cosign = world.witnesses.cosign

    def watched(note: bytes, asked: Any) -> Any:
        sizes.append((int(note.split(b"\n")[1]), world.meta.rows[COMMIT]["size"]))
        return cosign(note, asked)

    world.witnesses.cosign = watched  # type: ignore[method-assign]
    world.add_events(4)
    world.run()
    assert sizes == [(4, 4)]


def test_a_witness_that_has_seen_another_ledger_of_our_name_refuses_and_is_reported() -> None:
    world = World()
    world.add_events(5)
    world.run()
    for keep in (dict(world.witness_meta.rows),):
        forked = World()
        forked.signer, forked.log_key = world.signer, world.log_key
        forked.witnesses, forked.witness_key = world.witnesses, world.witness_key
        forked.made = 50
        forked.add_events(7)
        done = forked.run()
        assert WITNESS in done.lacking
        assert forked.live().size == 7
        assert [s.name for s in open_note(forked.object("checkpoint"), [world.log_key, world.witness_key]).verified] == [ORIGIN]
        assert world.witness_meta.rows == keep


def test_a_key_that_signed_before_the_present_one_is_still_believed_for_what_it_signed() -> None:
    world = World()
    world.add_events(3)
    world.run()
    former = world.log_key
    world.signer = LocalNoteSigner("second")
    with pytest.raises(IntegrityError):
        world.run()
    sequencer = world.sequencer()
    sequencer._former = (former,)
    world.add_events(1)
    assert sequencer.run().size == 4
    assert Checkpoint.parse(open_note(world.object("checkpoint"), [Verifier.of(ORIGIN, world.signer.public_key())]).text).size == 4


def test_a_clock_that_runs_ahead_does_not_stop_the_ledger_when_it_is_set_right() -> None:
    world = World()
    world.clock.at += timedelta(days=2)
    world.add_events(1)
    world.run()
    world.clock.at -= timedelta(days=2)
    world.add_events(1)
    assert world.run().appended == 1
    check_all_is_there(world)


# Events that a table writer makes up


def forged(world: World, kind: str, subject: str, sequence: int, data: dict[str, Any]) -> None:
    event = Event(kind, subject, sequence, world.clock.now(), registry_principal("mallory"), data)
    world.meta.transact([outbox_put(event)])


@pytest.mark.parametrize("sequence", [0, 1, 2, 7])
def test_an_event_of_a_person_that_no_row_bears_out_never_enters_the_ledger(sequence: int) -> None:
    world = World()
    add_person(world.meta, "erin", ["erin"], name="", by=registry_principal("test"), at=world.clock.now())
    world.run()
    size = len(check_leaves(world))
    forged(world, "person.changed", "person/erin", sequence, {"logins": ["mallory"], "ssh_keys": []})
    forged(world, "person.changed", "person/nobody", 1, {"logins": ["mallory"], "ssh_keys": []})
    done = world.sequencer().run()
    assert len(check_leaves(world)) == size
    # The first revision is in the ledger already, with other bytes.
    assert done.conflicts == 2
    assert not [k for k in world.meta.rows if k.partition == "OUTBOX"]
    reasons = [str(row["reason"]) for key, row in world.meta.rows.items() if key.partition == "CONFLICT"]
    assert any("no row bears out person.changed 1 of person/nobody" in reason for reason in reasons)


def test_an_event_about_access_that_no_row_bears_out_never_enters_the_ledger() -> None:
    world = World()
    told: Any = {"reason": "asked for", "by": registry_principal("test"), "at": world.clock.now()}
    give_grant(world.meta, "login/scoring", Grant("consumer", "registry"), **told)
    place_model(world.meta, "a", Placement({"tier": "high"}), **told)
    world.run()
    size = len(check_leaves(world))
    made_up = {"role": "admin", "scope": "registry", "until": "", "reason": "x"}
    # The same time and number as the grant's own event, under the other kind.
    forged(world, "grant.withdrawn", "grant/login/scoring", 1, {**made_up, "role": "consumer"})
    forged(world, "grant.given", "grant/login/scoring", 2, made_up)
    forged(world, "grant.given", "grant/login/mallory", 1, made_up)
    forged(world, "model.placed", "placed/a", 2, Placement({"tier": "low"}).to_item())
    forged(world, "access.published", "access", 1, {"name": "p", "number": 1, "sha256": "", "previous": "", "reason": "x"})
    assert world.sequencer().run().conflicts == 5
    assert len(check_leaves(world)) == size


def test_a_root_that_was_never_published_never_enters_the_ledger() -> None:
    world = World()
    forged(world, "root.published", "root", 1, {"trusted_root_sha256": "ab" * 32})
    assert world.sequencer().run().conflicts == 1
    world.meta.transact([Put(Key("ROOT"), {"versions": {"targets": 1}, "trusted_root_sha256": "cd" * 32})])
    forged(world, "root.published", "root", 1, {"trusted_root_sha256": "ab" * 32})
    forged(world, "root.published", "root", 2, {"trusted_root_sha256": "ab" * 32})
    assert world.sequencer().run().conflicts == 2
    forged(world, "root.published", "root", 1, {"trusted_root_sha256": "cd" * 32})
    assert world.sequencer().run().conflicts == 0
    assert len(check_leaves(world)) == 1


def test_what_is_refused_does_not_hold_up_what_stands_beside_it() -> None:
    world = World()
    forged(world, "person.changed", "person/nobody", 1, {})
    add_person(world.meta, "erin", ["erin"], name="", by=registry_principal("test"), at=world.clock.now())
    add_person(world.meta, "erin", ["erin-2"], name="", by=registry_principal("test"), at=world.clock.now())
    done = world.sequencer().run()
    assert (done.appended, done.conflicts) == (2, 1)


def check_leaves(world: World) -> list[bytes]:
    row = world.meta.rows.get(COMMIT)
    return list(LedgerReader(world.store).leaves(0, int(row["size"]))) if row else []
