"""Models that are checked before they are used.

    model = attestry.load_model("tumour-diagnosis@champion", root="registry-root.json")
    joblib.load(model.path / "model.joblib")

Rules:
- Nothing is handed over before every byte of it has the digest that the version digest covers; files that lie here from an earlier load are
  read and compared again.
- With a pinned root (`root`, or ATTESTRY_ROOT) nothing is believed that the registry says: the version's bundle is verified on this
  machine, down to the ledger, and the version digest is the one of the bundle.
- Without one, the registry's word counts for which digest the version has and that it is approved; `checked` says so.
- A version that is not approved, or was rejected, retired or killed, is not handed over.
- The model is not loaded here: how its bytes become a model, the caller's code says. To unpickle is to run what is in the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from attestry.domain.stages import DEPLOYABLE, IN_ROLLOUT

if TYPE_CHECKING:
    from attestry.client.api import RegistryClient

ROOT_VARIABLE: Final = "ATTESTRY_ROOT"
"""Environment variable that names the pinned TUF root.json."""

CACHE: Final = Path(".attestry", "models")
CACHE_VARIABLE: Final = "ATTESTRY_MODELS"
USABLE: Final = tuple(sorted(standing.value for standing in DEPLOYABLE | IN_ROLLOUT))
"""Standings of a version that people or its gates have approved and nobody has taken out of use."""

Checked = Literal["PROVEN", "SIGNED-UNANCHORED", "REGISTRY"]

_REFERENCE = re.compile(r"(?P<model>[^@/\s]+)(?:@(?P<what>[^@/\s]+))?")


@dataclass(frozen=True)
class LoadedModel:
    """A version whose files are here and have been checked.

    Attributes:
        model: the model's name.
        number: the version's number.
        version_digest: SHA-256 of its artifact manifest, hex.
        standing: where it stood when it was asked for.
        folder: its frozen files, the artifact manifest among them.
        checked: PROVEN or SIGNED-UNANCHORED where its bundle was verified here; REGISTRY where the registry's word was taken.
    """

    model: str
    number: int
    version_digest: str
    standing: str
    folder: Path
    checked: Checked

    @property
    def path(self) -> Path:
        """Return the folder of the model's own files, as training or whoever imported it left them."""
        return self.folder / "model"

    @property
    def reference(self) -> str:
        """Return `MODEL@N`."""
        return f"{self.model}@{self.number}"


def load_model(
    reference: str,
    *,
    root: str | os.PathLike[str] | None = None,
    require: Checked | None = None,
    folder: str | os.PathLike[str] | None = None,
    environment: str = "production",
    client: RegistryClient | None = None,
) -> LoadedModel:
    """Fetch a version's files, and return where they are once everything has been checked.

    Args:
        reference: `MODEL@N`, `MODEL@ALIAS`, or `MODEL` for the version that is deployed.
        root: the TUF root.json that you pinned; by default the file that ATTESTRY_ROOT names.
        require: PROVEN or SIGNED-UNANCHORED asks for at least that; by default SIGNED-UNANCHORED with a root, and REGISTRY without.
        folder: where files are kept, by version digest; by default what ATTESTRY_MODELS says, else `.attestry/models`.
        environment: whose deployed version `MODEL` means.
        client: the registry; by default the one of the usual AWS credentials.

    Raises:
        InvalidInputError: the reference cannot be read, or a proof is asked for without a root.
        NotFoundError: no such model, version or alias.
        ConflictError: the version is not approved, or was taken out of use.
        IntegrityError: the proof does not hold, or bytes are not what they were recorded to be.
        ApiError, UnavailableError: the registry refused, or did not answer.
    """
    from attestry.client.imports import download_version

    pin = _pin(root)
    if require in ("PROVEN", "SIGNED-UNANCHORED") and pin is None:
        raise InvalidInputError.of("root", "required", f"a proof takes the root.json that you pinned; name it, or set {ROOT_VARIABLE}")
    if client is None:
        from attestry.client.api import RegistryClient

        client = RegistryClient()
    model, number = _resolve(client, reference, environment)
    if pin is None:
        digest, standing, checked = _by_registry(client, model, number)
    else:
        digest, standing, checked = _by_proof(client, model, number, pin, require or "SIGNED-UNANCHORED")
    if standing not in USABLE:
        raise ConflictError(f"{model}@{number} stands {standing} and is not handed over; usable is what stands {', '.join(USABLE)}")
    kept = Path(folder or os.environ.get(CACHE_VARIABLE) or CACHE) / digest
    download_version(client, model, number, kept, version_digest=digest)
    return LoadedModel(model, number, digest, standing, kept, checked)


def _pin(root: str | os.PathLike[str] | None) -> bytes | None:
    named = root or os.environ.get(ROOT_VARIABLE)
    if not named:
        return None
    try:
        return Path(named).read_bytes()
    except OSError as error:
        raise InvalidInputError.of("root", "readable", f"{named} cannot be read: {error.strerror}") from error


def _resolve(client: RegistryClient, reference: str, environment: str) -> tuple[str, int]:
    """Return the model and the number that a reference means now."""
    read = _REFERENCE.fullmatch(reference)
    if read is None:
        raise InvalidInputError.of("reference", "form", f"{reference!r:.80} is none of MODEL@N, MODEL@ALIAS and MODEL")
    model, what = read["model"], read["what"]
    if what is None:
        numbers = [p["number"] for p in client.model(model)["deployed"] if p["environment"] == environment]
        if not numbers or numbers[0] is None:
            raise NotFoundError(f"no version of {model} is deployed in {environment}")
        return model, int(numbers[0])
    if what.isascii() and what.isdigit():
        return model, int(what)
    alias = client.call("GET", f"/v1/models/{quote(model, safe='')}/aliases/{quote(what, safe='')}")
    return model, int(alias["number"])


def _by_registry(client: RegistryClient, model: str, number: int) -> tuple[str, str, Checked]:
    version: Mapping[str, Any] = client.version(model, number)
    if not version.get("approved"):
        raise ConflictError(f"{model}@{number} is not approved, so it is not handed over")
    return str(version["version_digest"]), str(version["standing"]), "REGISTRY"


def _by_proof(client: RegistryClient, model: str, number: int, pin: bytes, require: Checked) -> tuple[str, str, Checked]:
    import tempfile

    from attestry.client.download import download_files
    from attestry.evidence.bundle import read_bundle
    from attestry.evidence.verification import verify_bundle

    answer = client.version_bundle(model, number)
    with tempfile.TemporaryDirectory(prefix="attestry-bundle-") as folder:
        file = {"path": "bundle.zip", "sha256": answer["sha256"], "size": answer["size"], "url": answer["url"]}
        data = download_files([file], Path(folder), http=client.http)[0].path.read_bytes()
    verification = verify_bundle(data, pin=pin)
    verdict = verification.verdict.value
    if verdict == "PROVEN":
        checked: Checked = "PROVEN"
    elif verdict == "SIGNED-UNANCHORED" and require != "PROVEN":
        checked = "SIGNED-UNANCHORED"
    else:
        raise IntegrityError(f"{model}@{number} is {verdict}: {verification.reason}", details={"verdict": verdict})
    index = read_bundle(data).index
    if (index.model, index.number) != (model, number):
        raise IntegrityError(f"the registry answered with the evidence of {index.model}@{index.number}, not of {model}@{number}")
    return index.version_digest, str(verification.facts["standing_now"]), checked
