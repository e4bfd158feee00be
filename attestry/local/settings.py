"""What is fixed about the embedded AWS, and where a data directory keeps what."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from attestry.local.errors import DataDirectoryError
from attestry.local.patching import EMULATOR_VERSION

HOST = "127.0.0.1"
REGION = "us-east-1"
ACCOUNT = "000000000000"
DEFAULT_PORT = 4580
FORMAT = 1
API_URL_PARAMETER = "/attestry/api-url"


@dataclass(frozen=True)
class DataDirectory:
    """A data directory: everything that one embedded AWS keeps.

    Attributes:
        path: the absolute path.
    """

    path: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> DataDirectory:
        """Return the directory at a path, which need not exist."""
        return cls(Path(path).expanduser().resolve())

    @property
    def state(self) -> Path:
        """Rows, roles, rules and the rest, written when the server stops."""
        return self.path / "state"

    @property
    def objects(self) -> Path:
        """Objects of all buckets, written at once."""
        return self.path / "s3"

    @property
    def scratch(self) -> Path:
        """Temporary files of the functions; emptied at every start."""
        return self.path / "tmp"

    @property
    def log(self) -> Path:
        """What the server and the functions print."""
        return self.path / "server.log"

    @property
    def lock(self) -> Path:
        """Held by the server for as long as it lives; says who holds it."""
        return self.path / "server.lock"

    @property
    def synthesis(self) -> Path:
        """What the CDK application wrote."""
        return self.path / "cdk.out"

    @property
    def deployment(self) -> Path:
        """What was deployed, and from which sources."""
        return self.path / "deployment.json"

    @property
    def parity(self) -> Path:
        """How the deployed stack differs from the synthesised template."""
        return self.path / "parity.json"

    @property
    def root(self) -> Path:
        """Keys, metadata and pin of the demo root of trust."""
        return self.path / "root"

    @property
    def aws_config(self) -> Path:
        """For `AWS_CONFIG_FILE`."""
        return self.path / "aws" / "config"

    @property
    def aws_credentials(self) -> Path:
        """For `AWS_SHARED_CREDENTIALS_FILE`."""
        return self.path / "aws" / "credentials"

    @property
    def people(self) -> Path:
        """Logins and roles of the local people."""
        return self.path / "aws" / "people.json"

    @property
    def token_key(self) -> Path:
        """The key of the stand-in for an identity provider."""
        return self.path / "aws" / "token-key.json"

    @property
    def marker(self) -> Path:
        """Says that the directory is one of ours, and holds its root key."""
        return self.path / "attestry-local.json"

    def refuse_foreign(self) -> None:
        """Check that there is nothing at the path that is not ours.

        Raises:
            DataDirectoryError: it is a file, or a directory that holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise DataDirectoryError(f"{self.path} is not a directory")
        if self.marker.exists() or not self.path.exists():
            return
        if any(entry.name != "up.lock" for entry in self.path.iterdir()):
            raise DataDirectoryError(f"{self.path} is not empty and is not a data directory of the embedded AWS; name another one")

    def prepare(self) -> RootKey:
        """Create the directory, or check that it is one of ours, and return its root key.

        Raises:
            DataDirectoryError: it holds something else, or was made by another version.
        """
        if self.marker.exists():
            return self._read()
        self.refuse_foreign()
        for folder in (self.path, self.state, self.objects, self.scratch, self.aws_config.parent):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        key = RootKey.random()
        write_private(self.marker, json.dumps({"format": FORMAT, "emulator": EMULATOR_VERSION, "key": key.key_id, "secret": key.secret}))
        return key

    def _read(self) -> RootKey:
        try:
            found = json.loads(self.marker.read_text(encoding="utf-8"))
            made_by = (int(found["format"]), str(found["emulator"]))
            key = RootKey(str(found["key"]), str(found["secret"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataDirectoryError(f"{self.marker} is damaged: {error}; remove {self.path} to start anew") from error
        if made_by != (FORMAT, EMULATOR_VERSION):
            raise DataDirectoryError(
                f"{self.path} was made with format {made_by[0]} and emulator {made_by[1]}, this release needs format {FORMAT} and emulator "
                f"{EMULATOR_VERSION}; use the release that made it, or another directory"
            )
        return key


@dataclass(frozen=True)
class RootKey:
    """The access key of the account's root on one data directory."""

    key_id: str
    secret: str

    @classmethod
    def random(cls) -> RootKey:
        """Return a new key."""
        return cls("AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)), secrets.token_urlsafe(30))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, replacing it in one step."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
