"""Sign a decision packet, or a validation record, with a person's own SSH key, by the `ssh-keygen` of their machine.

The private key stays where it is: a file, an agent, or whatever `ssh-keygen` can use. A passphrase is asked for by `ssh-keygen` itself.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from attestry.domain.errors import AttestryError
from attestry.evidence.ssh_signature import NAMESPACE, approval_message

PROGRAM: Final = "ssh-keygen"


class SigningError(AttestryError):
    """The key on this machine gave no signature; nothing was sent."""

    code = "signing"
    status = 400


def sign_packet(packet_sha256: str, key: Path, *, namespace: str = NAMESPACE) -> str:
    """Return the armored signature over a digest: of a packet, or in the namespace of records of a validation record.

    Args:
        packet_sha256: the digest, hex.
        key: file of the private key, or of the public one where an agent holds the private one.
        namespace: what the signature is for.

    Raises:
        SigningError: `ssh-keygen` is not there, or made no signature.
    """
    path = key.expanduser()
    if not path.is_file():
        raise SigningError(f"there is no key file {path}; make one: {PROGRAM} -t ed25519 -f {path}")
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are ours; nothing passes through a shell
            [PROGRAM, "-Y", "sign", "-n", namespace, "-f", str(path)],
            input=approval_message(packet_sha256),
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise SigningError(f"{PROGRAM} is needed to sign, and it cannot be run: {error.strerror or error}") from error
    if done.returncode != 0 or not done.stdout:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SigningError(f"{PROGRAM} made no signature with {path}: {told[-1] if told else f'exit code {done.returncode}'}")
    return done.stdout.decode("ascii", "replace")
