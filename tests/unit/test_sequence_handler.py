"""The function of the sequencer, its witnesses behind functions, and its key in KMS."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestry.aws.errors import ConfigurationError
from attestry.aws.settings import Settings, WitnessSetting
from attestry.aws.signer import KmsNoteSigner
from attestry.aws.witnesses import LambdaWitnesses
from attestry.aws.world import World as AwsWorld
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence.note import Algorithm, Checkpoint, open_note, sign_note, vkey
from attestry.evidence.tlog import RightEdge, consistency_proof, leaf_hash
from attestry.ports import Key, WitnessRequest
from attestry.usecases.ledger_head import COMMIT
from lambdas import sequence
from lambdas import witness as witness_function
from tests.fakes import LocalNoteSigner, MemoryFunctions
from tests.unit.ledger_world import ORIGIN, WITNESS, World, check

EDGE, TILES = RightEdge().append([leaf_hash(bytes([n])) for n in range(9)])


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> World:
    """A ledger whose witness is asked through its function's handler."""
    world = World()
    monkeypatch.setattr(witness_function, "witness", lambda: world.witnesses.witness)
    return world


@pytest.fixture
def functions(ledger: World) -> MemoryFunctions:
    return MemoryFunctions({"witness": lambda event: witness_function.handler(event, None)})


def setting(world: World, **changes: Any) -> WitnessSetting:
    return WitnessSetting(**{"name": WITNESS, "function": "witness", "vkey": world.witness_key.vkey(), "outside": False, **changes})


@pytest.fixture
def handled(ledger: World, functions: MemoryFunctions, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsWorld]:
    aws = AwsWorld(Settings({"ATTESTRY_LEDGER_ORIGIN": ORIGIN, "ATTESTRY_TELL_FUNCTION": "tell"}))
    witnesses = LambdaWitnesses(functions, [setting(ledger, vkey="")])
    ports = {"meta": ledger.meta, "store": ledger.store, "ledger_signer": ledger.signer, "witnesses": witnesses, "clock": ledger.clock}
    aws.__dict__.update(ports, functions=functions)
    monkeypatch.setattr(sequence, "world", aws)
    sequence.sequencer.cache_clear()
    yield aws
    sequence.sequencer.cache_clear()


def metrics(out: str) -> dict[str, Any]:
    return next(json.loads(line) for line in out.splitlines() if "LedgerLeaves" in line)


def test_a_run_appends_is_cosigned_and_counts(handled: AwsWorld, ledger: World, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.add_events(3)
    done = sequence.handler({"Records": [{"anything": 1}]}, None)
    assert (done["appended"], done["size"], done["lacking"]) == (3, 3, {})
    assert len(check(ledger).leaves) == 3
    opened = open_note(ledger.object("checkpoint"), [ledger.log_key, ledger.witness_key])
    assert {s.name for s in opened.verified} == {ORIGIN, WITNESS}
    counted = metrics(capsys.readouterr().out)
    assert (counted["LedgerLeaves"], counted["LedgerConflicts"], counted["LedgerUnwitnessed"]) == ([3.0], [0.0], [0.0])


def test_what_is_set_aside_and_who_is_silent_is_counted(
    handled: AwsWorld, ledger: World, functions: MemoryFunctions, capsys: pytest.CaptureFixture[str]
) -> None:
    functions.handlers.clear()
    (raw,) = ledger.add_events(1)
    ledger.put_row(raw, sk="0")
    done = sequence.handler({}, None)
    assert (done["malformed"], list(done["lacking"])) == (1, [WITNESS])
    counted = metrics(capsys.readouterr().out)
    assert (counted["LedgerConflicts"], counted["LedgerUnwitnessed"]) == ([1.0], [1.0])


def test_a_ledger_that_was_tampered_with_fails_the_schedule_and_not_the_stream(handled: AwsWorld, ledger: World) -> None:
    ledger.add_events(1)
    sequence.handler({}, None)
    ledger.meta.rows[COMMIT]["size"] = 7
    with pytest.raises(IntegrityError):
        sequence.handler({}, None)
    assert sequence.handler({"Records": []}, None)["error"]["code"] == "integrity"


def test_audited_acts_that_cannot_be_taken_up_do_not_stop_the_ledger(handled: AwsWorld, ledger: World) -> None:
    row = {"pk": "LEDGER", "sk": "AUDIT", "number": 1, "rev": 1, "pending": {"object": "x", "sha256": "y"}}
    ledger.meta.rows[Key("LEDGER", "AUDIT")] = row
    ledger.add_events(1)
    assert sequence.handler({}, None)["appended"] == 1


# Witnesses behind functions


def read(level: int, index: int, width: int) -> bytes:
    return next(raw for tile, raw in TILES.items() if (tile.level, tile.index, tile.width) == (level, index, width))


def checkpoint(world: World) -> bytes:
    text = Checkpoint(ORIGIN, 9, EDGE.root()).to_text()
    return sign_note(text, ORIGIN, world.signer.public_key(), world.signer.sign_ed25519)


def ask(functions: MemoryFunctions, witness: WitnessSetting, note: bytes, request: WitnessRequest | None = None) -> Any:
    return LambdaWitnesses(functions, [witness]).cosign(note, {witness.name: request or WitnessRequest(0)})[witness.name]


@pytest.mark.parametrize("known", [True, False])
def test_a_witness_cosigns_through_its_function(ledger: World, functions: MemoryFunctions, known: bool) -> None:
    answer = ask(functions, setting(ledger) if known else setting(ledger, vkey=""), checkpoint(ledger))
    assert (len(answer.lines), answer.size, answer.error) == (1, None, "")


def test_a_witness_that_stands_elsewhere_says_where(ledger: World, functions: MemoryFunctions) -> None:
    ask(functions, setting(ledger), checkpoint(ledger))
    answer = ask(functions, setting(ledger), checkpoint(ledger), WitnessRequest(4, tuple(consistency_proof(read, 4, 9))))
    assert (answer.lines, answer.size) == ((), 9)


def test_a_refusal_is_told_with_its_status(ledger: World, functions: MemoryFunctions) -> None:
    note = sign_note("elsewhere\n1\n" + "A" * 43 + "=\n", ORIGIN, ledger.signer.public_key(), ledger.signer.sign_ed25519)
    answer = ask(functions, setting(ledger), note)
    assert answer.lines == ()
    assert "404" in answer.error


ANSWERS = {
    "nothing": None,
    "a list": [],
    "no status": {"body": "x"},
    "a status that is a text": {"statusCode": "200", "body": "x"},
    "no body": {"statusCode": 200},
    "an empty body": {"statusCode": 200, "body": ""},
    "no line": {"statusCode": 200, "body": "hello\n"},
    "another's line": {"statusCode": 200, "body": f"— other {base64.b64encode(bytes(76)).decode()}\n"},
    "no base64": {"statusCode": 200, "body": "%%%", "isBase64Encoded": True},
    "no size": {"statusCode": 409, "body": "many\n"},
    "a huge size": {"statusCode": 409, "body": "9" * 30 + "\n"},
    "control characters": {"statusCode": 500, "body": "\x1b[31m" * 1000},
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("known", [True, False])
def test_whatever_a_witness_answers_is_an_answer_without_lines(ledger: World, name: str, known: bool) -> None:
    functions = MemoryFunctions({"witness": lambda event: ANSWERS[name]})
    answer = ask(functions, setting(ledger) if known else setting(ledger, vkey=""), checkpoint(ledger))
    assert answer.lines == ()
    assert answer.error
    assert answer.error.isprintable()
    assert len(answer.error) < 500


def test_a_line_under_a_known_witness_that_it_did_not_sign_is_not_taken(ledger: World) -> None:
    forged = base64.b64encode(ledger.witness_key.key_id + bytes(7) + b"\1" * 65).decode()
    functions = MemoryFunctions({"witness": lambda event: {"statusCode": 200, "body": f"— {WITNESS} {forged}\n"}})
    answer = ask(functions, setting(ledger), checkpoint(ledger))
    assert answer.lines == ()
    assert "does not verify" in answer.error


def test_one_witness_that_fails_does_not_keep_the_others_from_answering(ledger: World, functions: MemoryFunctions) -> None:
    both = LambdaWitnesses(functions, [setting(ledger), WitnessSetting("gone", "no-such-function")])
    answers = both.cosign(checkpoint(ledger), {name: WitnessRequest(0) for name in both.names})
    assert len(answers[WITNESS].lines) == 1
    assert "no such function" in answers["gone"].error


@pytest.mark.parametrize(
    "changes",
    [{"vkey": "nonsense"}, {"name": "other"}, {"vkey": vkey(WITNESS, bytes(32))}, {"vkey": vkey("w", bytes(32), Algorithm.COSIGNATURE)}],
)
def test_a_key_that_is_not_its_witness_own_is_refused(ledger: World, functions: MemoryFunctions, changes: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        LambdaWitnesses(functions, [setting(ledger, **changes)])


def test_two_witnesses_of_one_name_are_refused(ledger: World, functions: MemoryFunctions) -> None:
    with pytest.raises(ConfigurationError):
        LambdaWitnesses(functions, [setting(ledger), setting(ledger)])


# Settings


def test_witnesses_are_read_from_the_environment() -> None:
    told = [{"name": "w", "function": "f", "vkey": "", "outside": True}]
    assert Settings({"ATTESTRY_WITNESSES": json.dumps(told)}).witnesses == (WitnessSetting("w", "f", "", True),)
    assert Settings({}).witnesses == ()
    assert Settings({"ATTESTRY_LEDGER_FORMER_KEYS": '["k"]'}).ledger_former_keys == ("k",)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"name":"w"}]', '[{"name":"w","function":"f","more":1}]'])
def test_witnesses_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        _ = Settings({"ATTESTRY_WITNESSES": text}).witnesses


# KMS


class KmsDouble:
    """KMS as far as a signer of notes asks it: signs raw messages of at most 4,096 bytes."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self.asked: list[dict[str, Any]] = []

    def sign(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        assert len(request["Message"]) <= 4096
        return {"Signature": self.key.sign(request["Message"])}

    def get_public_key(self, KeyId: str) -> dict[str, Any]:  # noqa: N803 - the name of the API's parameter
        self.asked.append({"KeyId": KeyId})
        return {"PublicKey": self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)}


def test_kms_signs_notes_raw_and_is_asked_for_its_public_key_once() -> None:
    kms = KmsDouble(ed25519.Ed25519PrivateKey.generate())
    signer = KmsNoteSigner(kms, "arn")  # type: ignore[arg-type]  # a double of the client
    sign_note("a\n", "log", signer.public_key(), signer.sign_ed25519)
    assert signer.public_key() == kms.key.public_key().public_bytes_raw()
    assert kms.asked == [
        {"KeyId": "arn"},
        {"KeyId": "arn", "Message": b"a\n", "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"},
    ]


@pytest.mark.parametrize("size", [4097, 100_000])
def test_a_message_that_kms_does_not_sign_raw_is_refused_before_it_is_asked(size: int) -> None:
    kms = KmsDouble(None)
    with pytest.raises(InvalidInputError):
        KmsNoteSigner(kms, "arn").sign_ed25519(b"x" * size)  # type: ignore[arg-type]  # a double of the client
    assert not kms.asked


def test_a_key_of_another_kind_signs_no_notes() -> None:
    signer = KmsNoteSigner(KmsDouble(ec.generate_private_key(ec.SECP256R1())), "arn")  # type: ignore[arg-type]  # a double of the client
    with pytest.raises(ConfigurationError):
        signer.public_key()


def test_the_ledgers_key_in_memory_has_kms_limit_too() -> None:
    with pytest.raises(InvalidInputError):
        LocalNoteSigner().sign_ed25519(b"x" * 4097)
