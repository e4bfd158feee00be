"""The sequencer: order, once, under crashes at any call, against administrators, and beside another sequencer."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from attestry.aws.rows import unmarshal
from attestry.domain.errors import IntegrityError, UnavailableError
from attestry.domain.events import MAX_EVENT_BYTES
from attestry.evidence.ledger_batch import MAX_BATCH_LEAVES, Batch, LogState
from attestry.evidence.note import Checkpoint, Verifier, open_note, sign_note
from attestry.evidence.tlog import RightEdge, leaf_hash
from attestry.ports import Delete, Key, When
from attestry.usecases.ledger_head import COMMIT, leaf_key
from tests.fakes import LocalNoteSigner
from tests.unit.ledger_world import ORIGIN, WITNESS, Process, Storm, World, check

SCENARIOS, ROUNDS = 72, 30


def logged_events(world: World) -> list[bytes]:
    return [
        json.dumps(json.loads(leaf)["event"], sort_keys=True, separators=(",", ":")).encode()
        for leaf in check(world).leaves[world.seeded :]
    ]


def settle(world: World) -> None:
    """Run without faults until there is nothing left to do."""
    for _ in range(3):
        done = world.run()
    assert not done.lacking
    assert not done.contended
    assert not world.outbox()


def check_all_is_there(world: World) -> None:
    """Check that each committed event is in the ledger once, as it was committed, and that the index says where."""
    assert sorted(logged_events(world)) == sorted(world.events.values())
    for index, event in enumerate(logged_events(world), start=world.seeded):
        row = world.meta.rows[leaf_key(json.loads(event)["id"])]
        assert row["index"] == index
    note = open_note(world.object("checkpoint"), [world.log_key, world.witness_key])
    assert {s.name for s in note.verified} == {ORIGIN, WITNESS}
    assert Checkpoint.parse(note.text).size == world.meta.rows[COMMIT]["size"]


def blow(seed: int, *, size: int = 0, rounds: int = ROUNDS) -> Storm:
    world = World()
    if size:
        world.seed(size)
    storm = Storm(world, seed)
    try:
        storm.blow(rounds)
        settle(world)
        check_all_is_there(world)
        assert len(world.conflicts()) == storm.bad
    except BaseException as error:
        error.add_note(f"seed {seed}, size {size}, rounds {rounds}")
        raise
    return storm


@pytest.mark.parametrize("part", range(4))
def test_two_sequencers_killed_thousands_of_times_lose_nothing_repeat_nothing_and_never_fork(part: int) -> None:
    storms = [blow(1000 * part + n) for n in range(SCENARIOS)]
    assert sum(s.deaths for s in storms) >= 2500
    assert sum(s.contended for s in storms) >= 20


@pytest.mark.parametrize(("size", "scenarios"), [(250, 6), (506, 6), (65530, 2), (131066, 1)])
def test_killed_sequencers_grow_a_ledger_across_the_edges_of_its_tiles(size: int, scenarios: int) -> None:
    storms = [blow(size + n, size=size) for n in range(scenarios)]
    assert all(check(s.world).leaves[size:] for s in storms)


@pytest.mark.long
@pytest.mark.parametrize("part", range(20))
def test_two_sequencers_killed_a_hundred_thousand_times(part: int) -> None:
    storms = [blow(10_000 + 1000 * part + n, size=random.Random(n).choice([0, 0, 0, 250, 506])) for n in range(2 * SCENARIOS)]
    assert sum(s.deaths for s in storms) >= 5000


def test_every_call_of_an_append_may_fail_before_or_after_it_took_effect() -> None:
    calls = Process(random.Random(0), lambda: None)
    counted = World()
    counted.run()
    counted.add_events(3)
    counted.sequencer(calls).run()
    assert calls.calls > 10
    for kind in range(3):
        for number in range(1, calls.calls + 1):
            world = World()
            world.run()
            world.add_events(3)
            process = Process(Rigged(kind), lambda: None)
            process.dies_at = number
            with pytest.raises(BaseException):  # noqa: B017, PT011 - a kill, or a lost answer
                world.sequencer(process).run()
            settle(world)
            check_all_is_there(world)


class Rigged(random.Random):
    """Never gives way, and chooses one kind of death."""

    def __init__(self, kind: int) -> None:
        super().__init__(0)
        self.kind = kind

    def random(self) -> float:
        return 0.9

    def randrange(self, *_: Any) -> int:
        return self.kind


# What an append does


def test_the_first_run_signs_the_empty_ledger_and_publishes_it_witnessed() -> None:
    world = World()
    done = world.run()
    assert (done.size, done.appended, done.lacking) == (0, 0, {})
    assert world.live() == Checkpoint(ORIGIN, 0, RightEdge().root())
    check_all_is_there(world)


def test_events_become_leaves_in_the_order_of_the_outbox_with_one_time() -> None:
    world = World()
    for _ in range(5):
        world.add_events(1)
        world.clock.advance(seconds=1)
    done = world.run()
    leaves = [json.loads(leaf) for leaf in check(world).leaves]
    assert (done.appended, done.batches, done.size) == (5, 1, 5)
    assert [leaf["event"]["data"]["n"] for leaf in leaves] == [1, 2, 3, 4, 5]
    assert len({leaf["logged"] for leaf in leaves}) == 1
    check_all_is_there(world)


def test_more_events_than_a_batch_takes_make_several_batches() -> None:
    world = World()
    world.add_events(MAX_BATCH_LEAVES + 30)
    done = world.run()
    assert (done.appended, done.batches, done.finished) == (MAX_BATCH_LEAVES + 30, 2, True)
    check_all_is_there(world)


def test_a_run_whose_time_is_up_ends_with_the_batch_that_it_began() -> None:
    world = World()
    world.run()
    world.add_events(MAX_BATCH_LEAVES + 30)
    done = world.sequencer().run(seconds=-1)
    assert (done.batches, done.finished) == (1, False)
    settle(world)
    check_all_is_there(world)


def test_the_time_of_a_batch_is_never_before_the_last_one() -> None:
    world = World()
    world.add_events(1)
    world.run()
    world.clock.advance(hours=-5)
    world.add_events(1)
    world.run()
    first, second = (json.loads(leaf)["logged"] for leaf in check(world).leaves)
    assert first == second


def test_the_time_of_the_last_batch_is_the_leafs_and_not_what_the_row_says() -> None:
    for warm in (False, True):
        world = World()
        sequencer = world.sequencer()
        world.add_events(1)
        sequencer.run()
        world.meta.rows[COMMIT]["logged"] = "2999-01-01T00:00:00.000000Z"
        world.add_events(1)
        (sequencer if warm else world.sequencer()).run()
        assert all(json.loads(leaf)["logged"] < "2027" for leaf in check(world).leaves)


def test_an_idle_run_reads_three_times_and_writes_nothing() -> None:
    world = World()
    world.add_events(3)
    world.run()
    world.meta.faults.clear()
    world.store.faults.clear()
    world.run()
    assert world.meta.faults.calls == ["MemoryMetaStore.get", "MemoryMetaStore.query"]
    assert world.store.faults.calls == ["MemoryObjectStore.read"]


def calls_of_an_append(size: int, *, warm: bool) -> list[str]:
    world = World()
    world.seed(size)
    sequencer = world.sequencer()
    if warm:
        world.add_events(1)
    sequencer.run()
    world.add_events(3)
    for port in (world.meta, world.store):
        port.faults.clear()
    sequencer.run()
    return [*world.meta.faults.calls, *world.store.faults.calls]


@pytest.mark.parametrize("warm", [True, False])
def test_an_append_makes_as_many_calls_on_a_long_ledger_as_on_a_short_one(warm: bool) -> None:
    assert sorted(calls_of_an_append(65600, warm=warm)) == sorted(calls_of_an_append(300, warm=warm))


# Bad rows


def test_an_event_that_is_logged_already_is_dropped_and_not_logged_again() -> None:
    world = World()
    (raw,) = world.add_events(1)
    world.run()
    world.put_row(raw)
    done = world.run()
    assert (done.duplicates, done.appended) == (1, 0)
    settle(world)
    check_all_is_there(world)


def another_content(raw: bytes, *, at: str | None = None) -> bytes:
    event = json.loads(raw)
    event["data"] = {"n": -1}
    event["at"] = at or event["at"]
    return json.dumps(event, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("at_once", [True, False])
def test_another_content_under_a_logged_id_is_set_aside_and_reported(at_once: bool) -> None:
    world = World()
    (raw,) = world.add_events(1)
    if not at_once:
        world.run()
    world.put_row(another_content(raw, at="2027-01-01T00:00:00.000000Z"))
    done = world.run()
    assert done.conflicts == 1
    assert [row["event"] for row in world.conflicts()] == [another_content(raw, at="2027-01-01T00:00:00.000000Z")]
    settle(world)
    check_all_is_there(world)


def malformed_rows() -> dict[str, Callable[[World, bytes], Any]]:
    def change(world: World, raw: bytes, **fields: Any) -> None:
        event = {**json.loads(raw), **fields}
        world.put_row(json.dumps({k: v for k, v in event.items() if v != "gone"}, sort_keys=True, separators=(",", ":")).encode(), sk="0")

    return {
        "no event": lambda w, r: w.put_row(r, sk="0", event=None),
        "a text": lambda w, r: w.put_row(r, sk="0", event=r.decode()),
        "no JSON": lambda w, r: w.put_row(r, sk="0", event=b"\xff"),
        "a list": lambda w, r: w.put_row(r, sk="0", event=b"[]"),
        "spaces": lambda w, r: w.put_row(r, sk="0", event=r.replace(b":", b": ", 1)),
        "a name twice": lambda w, r: w.put_row(r, sk="0", event=r.replace(b'{"at"', b'{"a":1,"a":1,"at"')),
        "too long": lambda w, r: change(w, r, data={"x": "y" * MAX_EVENT_BYTES}),
        "the longest row": lambda w, r: w.put_row(r, sk="0" * 1000, event=b"x" * 390_000),
        "nested too deep": lambda w, r: w.put_row(r, sk="0", event=b"[" * 100_000),
        "another ID in the row": lambda w, r: w.put_row(r, id="0" * 64),
        "another ID in the event": lambda w, r: change(w, r, id="0" * 64),
        "the key of another event": lambda w, r: w.put_row(r, sk="0#" + "0" * 32),
        "another format": lambda w, r: change(w, r, format=2),
        "a field too many": lambda w, r: change(w, r, more=1),
        "a field too few": lambda w, r: change(w, r, principal="gone"),
        "a sequence that is no number": lambda w, r: change(w, r, sequence=True),
        "a newline in the kind": lambda w, r: change(w, r, kind="version.tested\nmodel@1", subject="1"),
        "a time that is none": lambda w, r: change(w, r, at="2026-13-01T00:00:00.000000Z"),
    }


@pytest.mark.parametrize("name", malformed_rows())
def test_a_row_that_is_no_event_is_set_aside_and_holds_up_nothing(name: str) -> None:
    world = World()
    (spare,) = World().add_events(1)
    malformed_rows()[name](world, spare)
    world.made = 1
    world.add_events(2)
    done = world.run()
    assert (done.malformed, done.appended) == (1, 2)
    assert len(world.conflicts()) == 1
    check_all_is_there(world)
    assert not world.outbox()


def test_a_number_that_no_row_of_ours_holds_does_not_stop_the_reading_of_rows() -> None:
    assert unmarshal({"N": "1.5"}) == "1.5"
    assert unmarshal({"N": "-12"}) == -12


def test_hundreds_of_bad_rows_before_the_good_ones_do_not_hide_them() -> None:
    world = World()
    for n in range(600):
        world.meta.rows[Key("OUTBOX", f"0{n:04d}")] = {"pk": "OUTBOX", "sk": f"0{n:04d}", "event": b"bad"}
    world.add_events(2)
    done = world.run()
    assert (done.malformed, done.appended) == (600, 2)
    check_all_is_there(world)


def test_an_outbox_row_that_is_changed_while_its_event_is_logged_is_kept_and_reported() -> None:
    world = World()
    world.run()
    (raw,) = world.add_events(1)
    process = Process(Rigged(0), lambda: None)
    sequencer = world.sequencer(process)

    def edit() -> None:
        world.put_row(another_content(raw))

    put = world.store.put
    world.store.put = lambda *a, **k: (edit(), put(*a, **k))[1]  # type: ignore[method-assign]  # somebody edits while it is published
    sequencer.run()
    world.store.put = put  # type: ignore[method-assign]
    done = world.run()
    assert done.conflicts == 1
    check_all_is_there(world)


# Administrators


@pytest.mark.parametrize("found", ["same", "other"])
def test_an_index_row_written_by_hand_makes_no_event_disappear(found: str) -> None:
    world = World()
    world.add_events(3)
    world.run()
    (raw,) = world.add_events(1)
    event_id = json.loads(raw)["id"]
    forged = {"index": 1, "sha256": "0" * 64 if found == "other" else hashlib.sha256(raw).hexdigest(), "logged": "2026-01-01T00:00:00.000000Z"}
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
