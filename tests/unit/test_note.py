"""Signed notes, checkpoints and cosignatures: the standard's own examples, round trips, and everything that is not one to the letter."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import AttestryError, IntegrityError, InvalidInputError
from attestry.evidence.note import (
    MAX_NOTE_BYTES,
    Algorithm,
    Checkpoint,
    Signature,
    Verifier,
    add_signatures,
    cosign,
    open_note,
    parse_note,
    parse_signature,
    parse_vkey,
    sign_note,
    verify_cosignature,
    vkey,
)
from attestry.evidence.tlog import EMPTY_ROOT

EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
"""The example of C2SP signed-note."""

GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
"""The example of Go's package golang.org/x/mod/sumdb/note."""

CHECKPOINT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


@dataclass
class KeyPair:
    name: str
    public: bytes
    sign: Callable[[bytes], bytes]

    def verifier(self, algorithm: Algorithm = Algorithm.ED25519) -> Verifier:
        return Verifier.of(self.name, self.public, algorithm)


def make_key(name: str = "log.example/one") -> KeyPair:
    key = Ed25519PrivateKey.generate()
    return KeyPair(name, key.public_key().public_bytes_raw(), key.sign)


LOG, OTHER, WITNESS = make_key(), make_key(), make_key("witness.example/w1")


def signed(text: str = CHECKPOINT) -> bytes:
    return sign_note(text, LOG.name, LOG.public, LOG.sign)


def cosigned(text: str = CHECKPOINT, at: int = 1679315147, by: KeyPair = WITNESS) -> Signature:
    return cosign(text, at, by.name, by.public, by.sign)


@pytest.mark.parametrize(("key", "note"), [(EXAMPLE_KEY, EXAMPLE_NOTE), (GO_KEY, GO_NOTE)])
def test_published_examples_verify_and_are_written_alike(key: str, note: bytes) -> None:
    verifier = parse_vkey(key)
    opened = open_note(note, [verifier])
    assert verifier.vkey() == key
    assert opened.signed_by(verifier) == opened.verified[0]
    assert (opened.text + "\n" + opened.verified[0].to_line()).encode() == note


def test_a_note_opens_with_its_key_and_with_no_other() -> None:
    opened = open_note(signed(), [LOG.verifier(), OTHER.verifier()])
    assert opened.text == CHECKPOINT
    assert [s.name for s in opened.verified] == [LOG.name]
    with pytest.raises(IntegrityError, match="no known key"):
        open_note(signed(), [OTHER.verifier()])
    with pytest.raises(IntegrityError, match="no known key"):
        open_note(signed(), [])


@given(st.integers(0, len(signed()) - 1), st.integers(1, 255))
def test_a_note_with_any_byte_changed_does_not_open_as_the_same_text(place: int, flip: int) -> None:
    note = signed()
    changed = note[:place] + bytes([note[place] ^ flip]) + note[place + 1 :]
    with pytest.raises(AttestryError):
        open_note(changed, [LOG.verifier()])


def test_signatures_of_unknown_keys_are_kept_apart_and_mean_nothing() -> None:
    note = add_signatures(signed(), [cosigned(), Signature("x", b"abcd", b"post-quantum" * 300)])
    opened = open_note(note, [LOG.verifier()])
    assert [s.name for s in opened.unverified] == [WITNESS.name, "x"]
    assert opened.signed_by(WITNESS.verifier(Algorithm.COSIGNATURE)) is None


def test_a_wrong_signature_by_a_known_key_voids_a_note_that_another_key_signed() -> None:
    forged = Signature(OTHER.name, OTHER.verifier().key_id, b"\1" * 64)
    with pytest.raises(IntegrityError, match="does not verify"):
        open_note(add_signatures(signed(), [forged]), [LOG.verifier(), OTHER.verifier()])


def test_a_known_key_that_signed_twice_voids_the_note() -> None:
    note = signed()
    line = note.splitlines(keepends=True)[-1]
    with pytest.raises(IntegrityError, match="twice"):
        open_note(note + line, [LOG.verifier()])


def test_a_signature_under_the_name_and_id_of_another_key_does_not_verify() -> None:
    impostor = make_key(LOG.name)
    line = Signature(LOG.name, LOG.verifier().key_id, impostor.sign(CHECKPOINT.encode()))
    with pytest.raises(IntegrityError, match="does not verify"):
        open_note(f"{CHECKPOINT}\n{line.to_line()}".encode(), [LOG.verifier()])


def broken_notes() -> dict[str, bytes]:
    note = EXAMPLE_NOTE
    text, line = note.split(b"\n\n")
    name, encoded = line.decode().removeprefix("— ").rstrip("\n").split(" ")
    raw = base64.b64decode(encoded)
    loose = encoded[:-2] + chr(ord(encoded[-2]) + 1) + "="
    assert base64.b64decode(loose) == raw
    return {
        "nothing": b"",
        "no signature": text + b"\n\n",
        "no empty line": text + b"\n" + line,
        "no newline at the end": note[:-1],
        "carriage returns": note.replace(b"\n", b"\r\n"),
        "a tab": note.replace(b"This is", b"This\tis"),
        "a null": note.replace(b"This is", b"This\0is"),
        "not UTF-8": note.replace(b"This", b"\xff\xfe"),
        "a hyphen for the dash": note.replace("—".encode(), b"-"),
        "two spaces": note.replace(b"foo U", b"foo  U"),
        "no name": note.replace(name.encode() + b" ", b""),
        "a plus in the name": note.replace(name.encode(), b"a+b"),
        "a no-break space in the name": note.replace(name.encode(), "a\u00a0b".encode()),
        "base64 with other trailing bits": note.replace(encoded.encode(), loose.encode()),
        "base64 without padding": note.replace(encoded.encode(), encoded.rstrip("=").encode()),
        "base64 of the web": note.replace(encoded.encode(), base64.urlsafe_b64encode(b"\xfb\xff" + raw)),
        "an ID alone": note.replace(encoded.encode(), base64.b64encode(raw[:4])),
        "text behind the signatures": note + b"more\n",
        "an empty line behind the signatures": note + b"\n",
        "a line separator within the signatures": note.replace(b"foo U", "foo\u2028U".encode()),
        "too many signatures": note + line * 100,
        "too large": b"x" * MAX_NOTE_BYTES + note,
    }


@pytest.mark.parametrize("name", broken_notes())
def test_what_is_no_note_to_the_letter_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_note(broken_notes()[name])
    with pytest.raises(InvalidInputError):
        open_note(broken_notes()[name], [parse_vkey(EXAMPLE_KEY)])


def test_empty_lines_in_the_text_belong_to_it() -> None:
    text = "a\n\nb\n"
    opened = open_note(signed(text), [LOG.verifier()])
    assert opened.text == text


@pytest.mark.parametrize("text", ["", "no newline", "bell\a\n"])
def test_a_text_that_no_note_can_carry_is_not_signed(text: str) -> None:
    with pytest.raises(InvalidInputError):
        signed(text)


def test_a_signer_that_returns_another_keys_signature_is_found_out() -> None:
    with pytest.raises(IntegrityError):
        sign_note(CHECKPOINT, LOG.name, LOG.public, OTHER.sign)
    with pytest.raises(IntegrityError):
        cosign(CHECKPOINT, 1, WITNESS.name, WITNESS.public, OTHER.sign)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+530d903a",
        EXAMPLE_KEY.replace("530d903a", "530D903A"),
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("example", "examplf"),
        EXAMPLE_KEY.replace("+AekyeR", "+BekyeR"),
        EXAMPLE_KEY[:-4],
        EXAMPLE_KEY + "=",
        EXAMPLE_KEY + "\n",
        " " + EXAMPLE_KEY,
        EXAMPLE_KEY.replace("example.com/foo", ""),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_vkey(text)


def test_keys_of_cosignatures_have_another_id_than_those_of_signatures() -> None:
    plain, timed = vkey(LOG.name, LOG.public), vkey(LOG.name, LOG.public, Algorithm.COSIGNATURE)
    assert parse_vkey(plain).key_id != parse_vkey(timed).key_id
    assert parse_vkey(timed).algorithm is Algorithm.COSIGNATURE


@pytest.mark.parametrize(("name", "key"), [("", LOG.public), ("a b", LOG.public), ("a+b", LOG.public), ("a\nb", LOG.public), ("a", b"x")])
def test_what_is_no_name_or_key_makes_no_verifier(name: str, key: bytes) -> None:
    with pytest.raises(InvalidInputError):
        Verifier.of(name, key)


def test_the_standards_checkpoint_is_read_and_written_alike() -> None:
    checkpoint = Checkpoint.parse(CHECKPOINT)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.to_text() == CHECKPOINT
    extended = Checkpoint.parse(CHECKPOINT + "more\n")
    assert extended.extensions == ("more",)
    assert extended.to_text() == CHECKPOINT + "more\n"
    assert Checkpoint.parse(Checkpoint("o", 0, EMPTY_ROOT).to_text()).size == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        CHECKPOINT[:-1],
        CHECKPOINT + "\n",
        "\n" + CHECKPOINT,
        CHECKPOINT.replace("20852163", "020852163"),
        CHECKPOINT.replace("20852163", "+20852163"),
        CHECKPOINT.replace("20852163", "2085_2163"),
        CHECKPOINT.replace("20852163", "٢"),
        CHECKPOINT.replace("20852163", "9223372036854775808"),
        CHECKPOINT.replace("20852163", "-1"),
        CHECKPOINT.replace("20852163", " 1"),
        CHECKPOINT.replace("CsUY", "Cs\tUY"),
        CHECKPOINT.replace("q2I=", "q2J="),
        CHECKPOINT.replace("CsUY", ""),
        CHECKPOINT.replace("\n2", "\r\n2"),
        "origin\n5\n",
    ],
)
def test_what_is_no_checkpoint_to_the_letter_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Checkpoint.parse(text)


def test_a_checkpoint_whose_parts_its_text_cannot_carry_is_not_written() -> None:
    for checkpoint in (
        Checkpoint("a\nb", 1, EMPTY_ROOT),
        Checkpoint("", 1, EMPTY_ROOT),
        Checkpoint("a", -1, EMPTY_ROOT),
        Checkpoint("a", 1, b""),
    ):
        with pytest.raises(InvalidInputError):
            checkpoint.to_text()


def test_a_cosignature_tells_when_and_verifies_within_the_note_and_alone() -> None:
    key = WITNESS.verifier(Algorithm.COSIGNATURE)
    line = parse_signature(cosigned().to_line())
    assert verify_cosignature(CHECKPOINT, line, key) == line.timestamp == 1679315147
    opened = open_note(add_signatures(signed(), [line]), [LOG.verifier(), key])
    assert [s.name for s in opened.verified] == [LOG.name, WITNESS.name]


def test_a_cosignature_over_another_text_time_or_by_another_key_does_not_verify() -> None:
    key, line = WITNESS.verifier(Algorithm.COSIGNATURE), cosigned()
    later = Signature(line.name, line.key_id, (1679315148).to_bytes(8, "big") + line.raw[8:])
    other = make_key(WITNESS.name).verifier(Algorithm.COSIGNATURE)
    for text, signature, verifier in (
        (CHECKPOINT.replace("20852163", "20852164"), line, key),
        (CHECKPOINT, later, key),
        (CHECKPOINT, line, other),
        (CHECKPOINT, line, WITNESS.verifier()),
        (CHECKPOINT, Signature(line.name, line.key_id, line.raw[8:]), key),
        (CHECKPOINT, Signature(line.name, line.key_id, line.raw + b"\0"), key),
    ):
        with pytest.raises(IntegrityError):
            verify_cosignature(text, signature, verifier)


def test_a_plain_signature_does_not_pass_for_a_cosignature_nor_the_reverse() -> None:
    plain = Signature(WITNESS.name, WITNESS.verifier(Algorithm.COSIGNATURE).key_id, WITNESS.sign(CHECKPOINT.encode()))
    with pytest.raises(IntegrityError):
        open_note(add_signatures(signed(), [plain]), [LOG.verifier(), WITNESS.verifier(Algorithm.COSIGNATURE)])
    timed = Signature(LOG.name, LOG.verifier().key_id, cosigned(by=LOG).raw)
    with pytest.raises(IntegrityError):
        open_note(f"{CHECKPOINT}\n{timed.to_line()}".encode(), [LOG.verifier()])


def test_a_cosignature_without_a_time_is_refused() -> None:
    with pytest.raises(IntegrityError):
        cosigned(at=0)


def test_what_is_no_checkpoint_is_not_cosigned() -> None:
    with pytest.raises(InvalidInputError):
        cosigned("anything\n")


def test_a_newer_line_of_a_key_takes_the_place_of_its_older_one() -> None:
    note = add_signatures(add_signatures(signed(), [cosigned(at=5)]), [cosigned(at=9)])
    opened = open_note(note, [LOG.verifier(), WITNESS.verifier(Algorithm.COSIGNATURE)])
    assert [s.timestamp for s in opened.verified] == [None, 9]
