"""The witness: which checkpoints it cosigns, what it answers to the others, and that it never cosigns a fork."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.aws.meta_store import DynamoMetaStore
from attestry.aws.settings import WitnessSetting
from attestry.aws.witnesses import LambdaWitnesses
from attestry.domain.errors import ConditionFailedError, ForbiddenError, InvalidInputError, NotFoundError, UnavailableError
from attestry.evidence.note import Algorithm, Checkpoint, Verifier, add_signatures, open_note, parse_note, parse_signature, sign_note, vkey
from attestry.evidence.tlog import EMPTY_ROOT, consistency_proof, leaf_hash, tree_root
from attestry.ports import Key, WitnessAnswer, WitnessRequest, Write
from attestry.usecases.witness import (
    CheckpointConflictError,
    CheckpointRequest,
    InconsistentCheckpointError,
    Witness,
    read_logs,
)
from lambdas import witness as function
from tests.fakes import Faults, FixedClock, Killed, LocalNoteSigner, MemoryFunctions, MemoryMetaStore

ORIGIN = "attestry/123456789012/eu-central-1/attestry"
NAME = "attestry-witness/123456789012"
ROW = Key(f"LOG#{ORIGIN}")


class Log:
    """A log that signs whatever it is told to."""

    def __init__(self, signer: LocalNoteSigner, leaves: Sequence[bytes] = (), origin: str = ORIGIN) -> None:
        self.signer = signer
        self.origin = origin
        self.hashes = [leaf_hash(leaf) for leaf in leaves]

    def read_tile(self, level: int, index: int, width: int) -> bytes:
        step = 256**level
        roots = [tree_root(self.hashes[i * step : (i + 1) * step]) for i in range(index * 256, index * 256 + width)]
        return b"".join(roots)

    def note(self, size: int, *, root: bytes | None = None, extensions: tuple[str, ...] = ()) -> bytes:
        checkpoint = Checkpoint(self.origin, size, root or tree_root(self.hashes[:size]), extensions)
        return sign_note(checkpoint.to_text(), self.origin, self.signer.public_key(), self.signer.sign_ed25519)

    def request(self, old: int, size: int, **changes: Any) -> bytes:
        return CheckpointRequest(old, tuple(consistency_proof(self.read_tile, old, size)), self.note(size, **changes)).to_body()


class Scene:
    """A witness of one log."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.meta = MemoryMetaStore(self.faults)
        self.signer = LocalNoteSigner("witness", self.faults)
        self.clock = FixedClock()
        log_signer = LocalNoteSigner("log")
        self.log = Log(log_signer, [b"leaf %d" % i for i in range(600)])
        self.fork = Log(log_signer, [b"leaf %d" % i for i in range(7)] + [b"other %d" % i for i in range(593)])
        self.logs = {ORIGIN: (Verifier.of(ORIGIN, log_signer.public_key()),)}
        self.witness = Witness(self.meta, self.signer, self.clock, NAME, self.logs)
        self.verifier = Verifier.of(NAME, self.signer.public_key(), Algorithm.COSIGNATURE)

    def recorded(self) -> tuple[int, str] | None:
        row = self.meta.rows.get(ROW)
        return (row["size"], row["root"]) if row else None

    def cosign(self, old: int, size: int) -> str:
        return self.witness.add_checkpoint(self.log.request(old, size))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_first_checkpoint_of_a_known_log_is_cosigned(scene: Scene) -> None:
    line = scene.cosign(0, 5)
    note = add_signatures(scene.log.note(5), [parse_signature(line)])
    opened = open_note(note, [*scene.logs[ORIGIN], scene.verifier])
    signature = opened.signed_by(scene.verifier)
    assert signature is not None
    assert signature.timestamp == int(scene.clock.now().timestamp())


@pytest.mark.parametrize(("old", "new"), [(1, 2), (5, 5), (5, 600), (255, 256), (256, 257), (511, 600), (7, 8)])
def test_a_checkpoint_that_extends_the_recorded_one_is_cosigned_and_recorded(scene: Scene, old: int, new: int) -> None:
    scene.cosign(0, old)
    scene.cosign(old, new)
    assert scene.recorded() == (new, tree_root(scene.log.hashes[:new]).hex())


def test_the_empty_log_is_cosigned(scene: Scene) -> None:
    scene.cosign(0, 0)
    scene.cosign(0, 3)
    assert scene.recorded() == (3, tree_root(scene.log.hashes[:3]).hex())


def test_the_record_holds_the_logs_signature_and_nobody_elses(scene: Scene) -> None:
    noise = scene.signer.sign_ed25519(b"noise")
    stranger = parse_signature(f"— stranger {base64.b64encode(b'abcd' + noise).decode()}\n")
    scene.witness.add_checkpoint(CheckpointRequest(0, (), add_signatures(scene.log.note(5), [stranger])).to_body())
    note = scene.meta.rows[ROW]["note"].encode()
    assert note == scene.log.note(5)
    assert [s.name for s in parse_note(note)[1]] == [ORIGIN]


def test_a_log_that_is_not_known_is_not_found(scene: Scene) -> None:
    stranger = Log(scene.log.signer, [b"x"], origin="elsewhere/log")
    with pytest.raises(NotFoundError):
        scene.witness.add_checkpoint(stranger.request(0, 1))


def test_a_checkpoint_that_the_log_did_not_sign_is_forbidden(scene: Scene) -> None:
    mallory = Log(LocalNoteSigner("mallory"), [b"leaf 0"])
    with pytest.raises(ForbiddenError):
        scene.witness.add_checkpoint(mallory.request(0, 1))
    assert scene.recorded() is None


def test_a_signature_of_the_logs_key_over_another_text_is_forbidden(scene: Scene) -> None:
    note = scene.log.note(5).replace(b"\n5\n", b"\n6\n")
    with pytest.raises(ForbiddenError):
        scene.witness.add_checkpoint(CheckpointRequest(0, (), note).to_body())


def test_a_wrong_signature_in_the_logs_name_spoils_a_right_one(scene: Scene) -> None:
    good = scene.log.note(5)
    wrong = scene.log.note(6).splitlines(keepends=True)[-1]
    for note in (good + wrong, good.removesuffix(good.splitlines(keepends=True)[-1]) + wrong + good.splitlines(keepends=True)[-1]):
        with pytest.raises(ForbiddenError):
            scene.witness.add_checkpoint(CheckpointRequest(0, (), note).to_body())


def test_a_cosignature_by_the_logs_key_does_not_pass_for_its_signature(scene: Scene) -> None:
    key = scene.log.signer
    text = Checkpoint(ORIGIN, 5, tree_root(scene.log.hashes[:5])).to_text()
    verifier = Verifier.of(ORIGIN, key.public_key())
    raw = key.sign_ed25519(f"cosignature/v1\ntime 1\n{text}".encode())
    line = f"— {ORIGIN} {base64.b64encode(verifier.key_id + raw).decode()}\n"
    with pytest.raises(ForbiddenError):
        scene.witness.add_checkpoint(CheckpointRequest(0, (), f"{text}\n{line}".encode()).to_body())


def test_while_a_log_changes_its_key_either_key_signs(scene: Scene) -> None:
    after = Log(LocalNoteSigner("second"), [])
    after.hashes = scene.log.hashes
    scene.logs[ORIGIN] = (*scene.logs[ORIGIN], Verifier.of(ORIGIN, after.signer.public_key()))
    scene.cosign(0, 5)
    scene.witness.add_checkpoint(after.request(5, 9))
    assert scene.recorded() == (9, tree_root(scene.log.hashes[:9]).hex())


def test_an_old_size_above_the_checkpoints_is_bad_input(scene: Scene) -> None:
    scene.cosign(0, 9)
    with pytest.raises(InvalidInputError, match="above"):
        scene.witness.add_checkpoint(CheckpointRequest(9, (), scene.log.note(5)).to_body())


@pytest.mark.parametrize(("old", "recorded"), [(1, 0), (4, 5), (6, 5), (0, 5)])
def test_another_old_size_than_the_recorded_one_is_a_conflict_that_tells_it(scene: Scene, old: int, recorded: int) -> None:
    if recorded:
        scene.cosign(0, recorded)
    with pytest.raises(CheckpointConflictError) as refused:
        scene.cosign(old, 20)
    assert refused.value.size == recorded
    assert scene.recorded() == ((recorded, tree_root(scene.log.hashes[:recorded]).hex()) if recorded else None)


def test_a_second_checkpoint_of_one_size_is_a_conflict(scene: Scene) -> None:
    scene.cosign(0, 20)
    with pytest.raises(CheckpointConflictError) as refused:
        scene.witness.add_checkpoint(scene.fork.request(20, 20))
    assert refused.value.size == 20
    assert scene.recorded() == (20, tree_root(scene.log.hashes[:20]).hex())


def test_the_same_checkpoint_again_is_cosigned_again_at_its_time(scene: Scene) -> None:
    scene.cosign(0, 20)
    scene.clock.at = datetime(2026, 1, 3, tzinfo=UTC)
    assert parse_signature(scene.cosign(20, 20)).timestamp == int(datetime(2026, 1, 3, tzinfo=UTC).timestamp())


def test_a_checkpoint_of_a_rewritten_log_is_not_cosigned_whatever_the_proof(scene: Scene) -> None:
    scene.cosign(0, 20)
    for proof in (consistency_proof(scene.fork.read_tile, 20, 30), consistency_proof(scene.log.read_tile, 20, 30), []):
        with pytest.raises(InconsistentCheckpointError):
            scene.witness.add_checkpoint(CheckpointRequest(20, tuple(proof), scene.fork.note(30)).to_body())
    assert scene.recorded() == (20, tree_root(scene.log.hashes[:20]).hex())


@pytest.mark.parametrize("spoil", [lambda p: p[:-1], lambda p: [*p, p[0]], lambda p: p[::-1], lambda p: [bytes(32), *p[1:]]])
def test_a_wrong_proof_is_refused(scene: Scene, spoil: Callable[[list[bytes]], list[bytes]]) -> None:
    scene.cosign(0, 20)
    proof = spoil(consistency_proof(scene.log.read_tile, 20, 33))
    with pytest.raises(InconsistentCheckpointError):
        scene.witness.add_checkpoint(CheckpointRequest(20, tuple(proof), scene.log.note(33)).to_body())


def test_a_proof_from_the_empty_tree_is_empty(scene: Scene) -> None:
    with pytest.raises(InconsistentCheckpointError):
        scene.witness.add_checkpoint(CheckpointRequest(0, (bytes(32),), scene.log.note(5)).to_body())


def test_a_checkpoint_of_size_0_has_the_root_of_the_empty_tree(scene: Scene) -> None:
    with pytest.raises(InconsistentCheckpointError):
        scene.witness.add_checkpoint(CheckpointRequest(0, (), scene.log.note(0, root=bytes(32))).to_body())
    assert scene.log.note(0) == scene.log.note(0, root=EMPTY_ROOT)


def test_a_checkpoint_too_long_for_the_key_is_bad_input_and_is_not_recorded(scene: Scene) -> None:
    with pytest.raises(InvalidInputError, match="3800"):
        scene.witness.add_checkpoint(
            CheckpointRequest(0, (), sign_long(scene.log)).to_body(),
        )
    assert scene.recorded() is None


def sign_long(log: Log) -> bytes:
    text = Checkpoint(ORIGIN, 5, tree_root(log.hashes[:5]), ("x" * 3900,)).to_text()
    return sign_note(text, ORIGIN, log.signer.public_key(), log.signer.sign_ed25519)


NOTE = b"origin\n1\n" + base64.b64encode(bytes(32)) + b"\n\n\xe2\x80\x94 origin " + base64.b64encode(bytes(68)) + b"\n"
HASH = base64.b64encode(bytes(range(32)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        NOTE,
        b"old 1\n",
        b"old 1\n\n",
        b"old 01\n\n" + NOTE,
        b"old +1\n\n" + NOTE,
        b"old -1\n\n" + NOTE,
        b"old  1\n\n" + NOTE,
        b"old 1 \n\n" + NOTE,
        b"old 1\r\n\r\n" + NOTE,
        b"OLD 1\n\n" + NOTE,
        b"old \xd9\xa1\n\n" + NOTE,
        b"old 9223372036854775808\n\n" + NOTE,
        b"old 1\nnot base64\n\n" + NOTE,
        b"old 1\n" + HASH[:-4] + b"\n\n" + NOTE,
        b"old 1\n" + HASH + b" \n\n" + NOTE,
        b"old 1\n" + HASH.rstrip(b"=") + b"\n\n" + NOTE,
        b"old 1\n" + base64.b64encode(bytes(31)) + b"\n\n" + NOTE,
        b"old 1\n" + (HASH + b"\n") * 64 + b"\n" + NOTE,
        b"old 1\n\n\n" + NOTE,
        b"old 1\n\n" + NOTE.replace(b"\n1\n", b"\n01\n"),
        b"old 1\n\n" + NOTE.replace(b"\n1\n", b"\n9223372036854775808\n"),
        b"old 1\n\n" + NOTE[:-1],
        b"old 1\n\n" + NOTE.replace(b"origin\n1", b"origin\x00\n1"),
        b"old 1\n\n" + NOTE + b"x" * 200_000,
    ],
)
def test_what_is_no_request_to_the_letter_is_bad_input(scene: Scene, body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        scene.witness.add_checkpoint(body)
    assert not scene.meta.rows


def test_a_request_is_read_as_it_was_written() -> None:
    request = CheckpointRequest(7, (bytes(32), bytes(range(32))), NOTE)
    assert CheckpointRequest.parse(request.to_body()) == request


def test_nothing_is_signed_before_the_record_is_written(scene: Scene) -> None:
    scene.faults.fail_before(method="transact", error=Killed())
    with pytest.raises(Killed):
        scene.cosign(0, 5)
    assert "LocalNoteSigner.sign_ed25519" not in scene.faults.calls
    assert scene.recorded() is None


def test_where_the_outcome_of_the_write_is_unknown_nothing_is_signed(scene: Scene) -> None:
    scene.faults.fail_after(method="transact")
    with pytest.raises(UnavailableError):
        scene.cosign(0, 5)
    assert "LocalNoteSigner.sign_ed25519" not in scene.faults.calls


def test_after_a_crash_between_record_and_answer_the_log_asks_once_more_and_is_cosigned(scene: Scene) -> None:
    scene.cosign(0, 5)
    scene.faults.fail_before(method="sign_ed25519", error=Killed())
    with pytest.raises(Killed):
        scene.cosign(5, 9)
    with pytest.raises(CheckpointConflictError) as told:
        scene.cosign(5, 9)
    assert parse_signature(scene.cosign(told.value.size, 9)).is_by(scene.verifier)


def test_after_a_crash_no_other_checkpoint_of_the_recorded_size_is_cosigned(scene: Scene) -> None:
    scene.faults.fail_before(method="sign_ed25519", error=Killed())
    with pytest.raises(Killed):
        scene.cosign(0, 20)
    with pytest.raises(CheckpointConflictError):
        scene.witness.add_checkpoint(scene.fork.request(20, 20))
    with pytest.raises(CheckpointConflictError):
        scene.witness.add_checkpoint(scene.fork.request(0, 20))


class ContendedMetaStore(MemoryMetaStore):
    """Refuses the first writes as DynamoDB does when another transaction is in the way."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    def transact(self, writes: Sequence[Write]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConditionFailedError("another transaction was in the way")
        super().transact(writes)


@pytest.mark.parametrize(("refusals", "cosigned"), [(1, True), (4, True), (5, False)])
def test_a_write_that_was_refused_without_a_change_is_tried_again_a_few_times(scene: Scene, refusals: int, cosigned: bool) -> None:
    witness = Witness(ContendedMetaStore(refusals), scene.signer, scene.clock, NAME, scene.logs)
    if cosigned:
        assert witness.add_checkpoint(scene.log.request(0, 5))
    else:
        with pytest.raises(UnavailableError):
            witness.add_checkpoint(scene.log.request(0, 5))


class SlowMetaStore(MemoryMetaStore):
    """Lets all readers read before anybody writes."""

    def __init__(self, readers: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(readers)
        self.waiting = readers

    def transact(self, writes: Sequence[Write]) -> None:
        if self.waiting > 0:
            self.waiting -= 1
            self.barrier.wait(10)
        super().transact(writes)


def attempt(witness: Witness, body: bytes) -> int | None:
    """Return the size on record when refused, None when cosigned."""
    try:
        witness.add_checkpoint(body)
    except CheckpointConflictError as error:
        return error.size
    return None


@pytest.mark.parametrize("at", [0, 7])
def test_of_two_forks_of_one_size_at_once_exactly_one_is_cosigned(scene: Scene, at: int) -> None:
    meta = SlowMetaStore(2)
    witness = Witness(meta, scene.signer, scene.clock, NAME, scene.logs)
    if at:
        meta.waiting = 0
        witness.add_checkpoint(scene.log.request(0, at))
        meta.waiting = 2
    before = scene.faults.calls.count("LocalNoteSigner.sign_ed25519")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda log: attempt(witness, log.request(at, 20)), (scene.log, scene.fork)))
    assert sorted(answers, key=str) == [20, None]
    assert scene.faults.calls.count("LocalNoteSigner.sign_ed25519") == before + 1
    winner = (scene.log, scene.fork)[answers.index(None)]
    assert meta.rows[ROW]["root"] == tree_root(winner.hashes[:20]).hex()


def test_a_slower_smaller_checkpoint_never_rolls_the_record_back(scene: Scene) -> None:
    meta = SlowMetaStore(2)
    witness = Witness(meta, scene.signer, scene.clock, NAME, scene.logs)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda size: attempt(witness, scene.log.request(0, size)), (20, 30)))
    assert answers.count(None) == 1
    assert meta.rows[ROW]["size"] == (20, 30)[answers.index(None)]


def test_sixteen_clients_with_forks_of_every_size_get_cosignatures_of_one_history_alone(scene: Scene) -> None:
    cosigned: list[tuple[int, bytes]] = []

    def push(log: Log) -> None:
        size = 0
        for step in range(8, 40, 4):
            refused = attempt(scene.witness, CheckpointRequest(size, tuple(proof(log, size, step)), log.note(step)).to_body())
            if refused is None:
                cosigned.append((step, tree_root(log.hashes[:step])))
            size = step if refused is None else refused

    def proof(log: Log, old: int, new: int) -> list[bytes]:
        return consistency_proof(log.read_tile, old, new) if old <= new else []

    def run(log: Log) -> None:
        try:
            push(log)
        except (InconsistentCheckpointError, InvalidInputError, UnavailableError):
            return

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(run, [scene.log, scene.fork] * 8))
    assert cosigned
    histories = [{(s, tree_root(log.hashes[:s])) for s in range(8, 40, 4)} for log in (scene.log, scene.fork)]
    assert any(set(cosigned) <= history for history in histories)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=12))
def test_whatever_is_asked_in_whatever_order_all_that_is_cosigned_is_one_growing_log(asked: list[tuple[bool, int, int, bool]]) -> None:
    scene, last = Scene(), (0, EMPTY_ROOT)
    for forked, old, size, honest in asked:
        log = scene.fork if forked else scene.log
        start = last[0] if honest else old
        proof = consistency_proof(log.read_tile, start, size) if start <= size else []
        try:
            scene.witness.add_checkpoint(CheckpointRequest(start, tuple(proof), log.note(size)).to_body())
        except (CheckpointConflictError, InconsistentCheckpointError, InvalidInputError):
            continue
        assert size >= last[0]
        assert tree_root(log.hashes[: last[0]]) == last[1]
        last = (size, tree_root(log.hashes[:size]))
    assert scene.recorded() in (None, (last[0], last[1].hex()))


def test_the_logs_of_a_witness_are_verifier_keys_or_keys_to_look_up() -> None:
    public = LocalNoteSigner().public_key()
    text = json.dumps({"a": vkey("a", public), "b": "arn:aws:kms:eu-central-1:1:key/x", "c": [vkey("c", public), vkey("c2", public)]})
    logs = read_logs(text, lambda arn: public if arn.endswith("/x") else b"")
    assert [[v.name for v in verifiers] for verifiers in logs.values()] == [["a"], ["b"], ["c", "c2"]]


@pytest.mark.parametrize("text", ["", "[]", '{"a":1}', '{"a":[]}', '{"a":"nonsense"}', '{"a":[1]}'])
def test_logs_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        read_logs(text, lambda _: bytes(32))


@pytest.fixture
def served(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(function, "witness", lambda: scene.witness)
    return scene


def post(body: bytes, *, encoded: bool = False, method: str = "POST", path: str = "/add-checkpoint") -> dict[str, Any]:
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.7"}, "requestId": "r1"},
        "body": base64.b64encode(body).decode() if encoded else body.decode(),
        "isBase64Encoded": encoded,
    }
    return function.handler(event, None)


@pytest.mark.parametrize("encoded", [False, True])
def test_the_function_answers_a_signature_line(served: Scene, encoded: bool) -> None:
    answer = post(served.log.request(0, 5), encoded=encoded)
    assert answer["statusCode"] == 200
    parse_signature(answer["body"]).check(Checkpoint(ORIGIN, 5, tree_root(served.log.hashes[:5])).to_text(), served.verifier)


def test_the_function_tells_the_recorded_size_as_the_protocol_has_it(served: Scene) -> None:
    post(served.log.request(0, 5))
    answer = post(served.log.request(0, 9))
    assert (answer["statusCode"], answer["body"], answer["headers"]["content-type"]) == (409, "5\n", "text/x.tlog.size")
    fork = post(served.fork.request(5, 5, root=bytes(32)))
    assert (fork["statusCode"], fork["body"], fork["headers"]["content-type"]) == (409, "5\n", "text/x.tlog.size")


def test_the_functions_statuses_are_those_of_the_protocol(served: Scene) -> None:
    post(served.log.request(0, 20))
    wrong = CheckpointRequest(20, (bytes(32),), served.log.note(30)).to_body()
    asked = {
        400: b"nonsense",
        403: Log(LocalNoteSigner("mallory"), [b"x"] * 30).request(20, 30),
        404: Log(served.log.signer, [b"x"], origin="elsewhere").request(0, 1),
        422: wrong,
    }
    assert {status: post(body)["statusCode"] for status, body in asked.items()} == {status: status for status in asked}


def test_a_body_that_is_not_the_base64_it_is_said_to_be_is_bad_input(served: Scene) -> None:
    event = {"rawPath": "/add-checkpoint", "requestContext": {"http": {"method": "POST"}}, "body": "???", "isBase64Encoded": True}
    assert function.handler(event, None)["statusCode"] == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/add-checkpoint"), ("POST", "/"), ("POST", "/add-checkpoint/"), ("POST", "/sign-subtree")]
)
def test_the_function_serves_one_route(served: Scene, method: str, path: str) -> None:
    assert post(b"", method=method, path=path)["statusCode"] == 404


@pytest.mark.parametrize("event", [{}, {"requestContext": None}, {"requestContext": {"http": None}}])
def test_an_event_of_no_request_is_an_answer_too(served: Scene, event: dict[str, Any]) -> None:
    assert function.handler(event, None)["statusCode"] == 404


def test_a_key_or_table_that_does_not_answer_is_503_and_a_fault_of_ours_500(served: Scene) -> None:
    served.faults.fail_before(method="sign_ed25519")
    assert post(served.log.request(0, 5))["statusCode"] == 503
    served.faults.fail_before(method="get", error=RuntimeError("a secret"))
    answer = post(served.log.request(5, 9))
    assert answer["statusCode"] == 500
    assert "secret" not in answer["body"]


def test_the_sequencers_client_and_the_function_understand_each_other(served: Scene) -> None:
    functions = MemoryFunctions({"witness": lambda event: function.handler(event, None)})
    client = LambdaWitnesses(functions, [WitnessSetting(NAME, "witness", served.verifier.vkey())])

    def ask(log: Log, old: int, size: int) -> WitnessAnswer:
        proof = tuple(consistency_proof(log.read_tile, old, size))
        return client.cosign(log.note(size), {NAME: WitnessRequest(old, proof)})[NAME]

    assert len(ask(served.log, 0, 5).lines) == 1
    assert ask(served.log, 0, 9).size == 5
    assert ask(served.fork, 5, 5).lines
    assert len(ask(served.log, 5, 20).lines) == 1
    assert (ask(served.fork, 20, 20).lines, ask(served.fork, 20, 20).size) == ((), 20)
    assert "422" in ask(served.fork, 20, 33).error


def test_the_function_makes_its_witness_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "ATTESTRY_WITNESS_TABLE": "witness",
        "ATTESTRY_WITNESS_KEY": "arn:aws:kms:eu-central-1:123456789012:key/w",
        "ATTESTRY_WITNESS_NAME": NAME,
        "ATTESTRY_WITNESS_LOGS": json.dumps({ORIGIN: vkey(ORIGIN, LocalNoteSigner().public_key())}),
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    function.witness.cache_clear()
    made = function.witness()
    function.witness.cache_clear()
    assert isinstance(made._meta, DynamoMetaStore)
    assert list(made._logs) == [ORIGIN]
