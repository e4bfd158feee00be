"""An approver's own signature: what counts, and every way in which one must not."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from attestry.client.ssh_sign import SigningError, sign_packet
from attestry.domain.errors import IntegrityError, InvalidInputError
from attestry.evidence import ssh_signature
from attestry.evidence.ssh_signature import NAMESPACE, SshKey, approval_message, verify_approval
from tests.ssh_keys import SshPerson, armor, dearmor, field

PACKET, OTHER = "5a" * 32, "5b" * 32
ERIN, FRANK = SshPerson("erin"), SshPerson("frank")
KEYGEN = shutil.which("ssh-keygen")
needs_keygen = pytest.mark.skipif(KEYGEN is None, reason="ssh-keygen is not on this machine")


def verify(armored: bytes, packet: str = PACKET, keys: tuple[str, ...] = (ERIN.public,)) -> SshKey:
    return verify_approval(armored, packet, keys)


def test_a_signature_by_a_registered_key_over_the_packet_counts() -> None:
    assert verify(ERIN.sign(PACKET)).text == ERIN.public


def test_sha256_within_the_signature_is_accepted_too() -> None:
    assert verify(ERIN.sign(PACKET, hash=b"sha256")).text == ERIN.public


def test_one_of_several_registered_keys_is_enough() -> None:
    assert verify(ERIN.sign(PACKET), keys=(FRANK.public, ERIN.public)).text == ERIN.public


def test_a_signature_by_a_key_that_is_not_registered_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not registered"):
        verify(FRANK.sign(PACKET))


def test_a_signature_over_another_packet_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not over the packet"):
        verify(ERIN.sign(OTHER))


@pytest.mark.parametrize("message", [PACKET.encode(), PACKET.encode() + b"\r\n", PACKET.upper().encode() + b"\n", b"", b"approve\n"])
def test_a_signature_over_other_bytes_than_digest_and_line_feed_is_refused(message: bytes) -> None:
    with pytest.raises(IntegrityError, match="not over the packet"):
        verify(ERIN.sign(PACKET, message=message))


@pytest.mark.parametrize("namespace", [b"file", b"git", b"", b"attestry-approval ", b"Attestry-Approval", b"attestry-approval\x00"])
def test_a_signature_of_another_namespace_is_refused(namespace: bytes) -> None:
    with pytest.raises(IntegrityError, match="namespace"):
        verify(ERIN.sign(PACKET, namespace=namespace))


def test_a_namespace_that_was_changed_after_signing_is_refused() -> None:
    blob = dearmor(ERIN.sign(PACKET, namespace=b"file"))
    forged = armor(blob.replace(field(b"file"), field(NAMESPACE.encode())))
    with pytest.raises(IntegrityError, match="not over the packet"):
        verify(forged)


def test_a_key_that_was_put_in_place_of_the_signers_is_refused() -> None:
    forged = armor(dearmor(FRANK.sign(PACKET)).replace(FRANK.blob, ERIN.blob))
    with pytest.raises(IntegrityError, match="not over the packet"):
        verify(forged)


@pytest.mark.parametrize("name", [b"md5", b"sha1", b"sha384"])
def test_other_hashes_are_refused_although_the_library_would_take_them(name: bytes) -> None:
    with pytest.raises(InvalidInputError, match="neither SHA-256 nor SHA-512"):
        verify(ERIN.sign(PACKET, hash=name))


def test_a_hash_that_fails_within_the_library_is_refused_before_it() -> None:
    blob = dearmor(ERIN.sign(PACKET)).replace(field(b"sha512"), field(b"shake_128"))
    with pytest.raises(InvalidInputError, match="neither"):
        verify(armor(blob))


@pytest.mark.parametrize("index", range(len(dearmor(ERIN.sign(PACKET)))))
def test_no_bit_of_a_signature_can_be_flipped(index: int) -> None:
    blob = bytearray(dearmor(ERIN.sign(PACKET)))
    blob[index] ^= 1
    with pytest.raises((InvalidInputError, IntegrityError)):
        verify(armor(bytes(blob)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.replace(b"\n", b"\r\n"),
        lambda s: s + b"\n",
        lambda s: b"\n" + s,
        lambda s: s.rstrip(b"\n"),
        lambda s: s + s,
        lambda s: armor(dearmor(s), 76),
        lambda s: armor(dearmor(s), 64),
        lambda s: armor(dearmor(s) + b"\x00"),
        lambda s: armor(dearmor(s)[:-1]),
        lambda s: s.replace(b"-----END", b"=\n-----END"),
        lambda s: s.replace(b"SSH SIGNATURE", b"PGP SIGNATURE"),
        lambda s: b"\xff" + s,
        lambda s: dearmor(s),
        lambda s: b"",
        lambda s: armor(b"SSHSIG"),
        lambda s: armor(b""),
        lambda s: armor(b"A" * 2000),
    ],
)
def test_what_ssh_keygen_would_not_write_is_refused(spoil) -> None:
    with pytest.raises(InvalidInputError, match="no SSH signature that can be accepted"):
        verify(spoil(ERIN.sign(PACKET)))


def test_a_reserved_field_with_content_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="more than a signature"):
        verify(ERIN.sign(PACKET, reserved=b"x"))


def test_another_version_of_the_format_is_refused() -> None:
    blob = bytearray(dearmor(ERIN.sign(PACKET)))
    blob[9] = 2
    with pytest.raises(InvalidInputError, match="version"):
        verify(armor(bytes(blob)))


@given(st.binary(max_size=600))
def test_arbitrary_bytes_never_pass_and_never_crash(data: bytes) -> None:
    for armored in (data, armor(data), armor(b"SSHSIG\x00\x00\x00\x01" + data)):
        with pytest.raises((InvalidInputError, IntegrityError)):
            verify(armored)


@pytest.mark.parametrize("digest", ["", "5a" * 31, "5A" * 32, "5a" * 32 + "\n", "g" * 64])
def test_what_is_signed_is_a_digest(digest: str) -> None:
    with pytest.raises(InvalidInputError):
        approval_message(digest)


def test_a_public_key_is_read_with_or_without_its_comment() -> None:
    assert SshKey.parse(ERIN.public) == SshKey.parse(f"{ERIN.public} erin@laptop of hers\n")


def of_another_kind() -> list[str]:
    p256 = ec.generate_private_key(ec.SECP256R1()).public_key()
    rsa_key = rsa.generate_private_key(65537, 2048).public_key()
    return [key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() for key in (p256, rsa_key)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        f"ssh-ed25519 {ERIN.public.split()[1][:-4]}",
        f"ssh-rsa {ERIN.public.split()[1]}",
        f"{ERIN.public}\n{FRANK.public}",
        f'command="x" {ERIN.public}',
        "sk-ssh-ed25519@openssh.com AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbg==\n-----END OPENSSH PRIVATE KEY-----\n",
        *of_another_kind(),
    ],
)
def test_what_is_no_ed25519_public_key_is_refused(line: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        SshKey.parse(line)
    assert refused.value.problems[0].rule == "ssh_key"


def ssh_text(point: bytes) -> str:
    import base64

    return f"ssh-ed25519 {base64.b64encode(field(b'ssh-ed25519') + field(point)).decode()}"


@pytest.mark.parametrize("point", sorted(ssh_signature._SMALL_ORDER))
@pytest.mark.parametrize("sign", [0, 0x80])
def test_a_key_under_which_anybody_can_sign_is_refused(point: bytes, sign: int) -> None:
    with pytest.raises(InvalidInputError, match="anybody can sign"):
        SshKey.parse(ssh_text(bytes((*point[:31], point[31] | sign))))


def test_such_keys_do_let_anybody_sign() -> None:
    """The list is no superstition: under several of them, a signature made of nothing passes the library's check."""
    passed = set()
    for point in ssh_signature._SMALL_ORDER:
        for nonce in ssh_signature._SMALL_ORDER:
            for number in range(16):
                try:
                    Ed25519PublicKey.from_public_bytes(point).verify(nonce + bytes(32), b"approve %d" % number)
                except (InvalidSignature, ValueError):
                    continue
                passed.add(point)
    assert len(passed) >= 4


@needs_keygen
def test_ssh_keygen_itself_makes_what_is_accepted_and_accepts_what_our_tests_make(tmp_path: Path) -> None:
    key = tmp_path / "id"
    subprocess.run([str(KEYGEN), "-q", "-t", "ed25519", "-N", "", "-C", "erin's key", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text()
    signed = sign_packet(PACKET, key)
    found = verify_approval(signed.encode(), PACKET, [public])
    listed = subprocess.run([str(KEYGEN), "-lf", str(key) + ".pub"], check=True, capture_output=True, text=True).stdout
    assert found.fingerprint == listed.split()[1]
    (tmp_path / "sig").write_bytes(ERIN.sign(PACKET))
    (tmp_path / "allowed").write_text(f"erin {ERIN.public}\n")
    command = [str(KEYGEN), "-Y", "verify", "-f", "allowed", "-I", "erin", "-n", NAMESPACE, "-s", "sig"]
    for message, code in ((approval_message(PACKET), 0), (approval_message(OTHER), 255)):
        assert subprocess.run(command, cwd=tmp_path, input=message, capture_output=True, check=False).returncode == code


@needs_keygen
def test_a_key_that_is_not_there_or_not_a_key_gives_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match="no key file"):
        sign_packet(PACKET, tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(SigningError, match="made no signature"):
        sign_packet(PACKET, tmp_path / "text")


def test_without_ssh_keygen_the_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "id").write_text("key")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SigningError, match="ssh-keygen is needed"):
        sign_packet(PACKET, tmp_path / "id")


def test_the_fingerprint_is_that_of_the_wire_form() -> None:
    import base64

    digest = base64.b64encode(hashlib.sha256(ERIN.blob).digest()).decode().rstrip("=")
    assert SshKey.parse(ERIN.public).fingerprint == f"SHA256:{digest}"
