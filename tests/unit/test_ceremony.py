"""The key ceremony: keys as files, two holders on two machines, rotation, revocation, other holders; and the demo root."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attestry.aws.logging import configure_logging
from attestry.cli.main import make_app
from attestry.cli.root import VARIABLE
from attestry.client.ceremony import drafted_root, first_metadata, holders_of, missing, next_targets, seal, sign
from attestry.client.root_key_files import is_encrypted, load_public, load_signer, make_key, public_path
from attestry.client.root_steps import PIN, change_of, published_files, read_folder
from attestry.domain.errors import AttestryError, ConflictError, InvalidInputError, NotFoundError
from attestry.evidence.tuf_metadata import verify_metadata
from attestry.local.demo_root import make_demo_root
from tests.root_api import RootRegistry
from tests.root_of_trust import NOW, People, a_trusted_root
from tests.unit.client_double import ApiDouble, Told

SECRET = b"correct horse battery"

# Keys as files


def test_a_private_key_is_readable_by_its_owner_alone_and_is_never_written_over_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.key"
    public = make_key(path, SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_public(public_path(path)) == public
    assert b"PRIVATE" not in public_path(path).read_bytes()
    with pytest.raises(ConflictError):
        make_key(path, SECRET)
    assert load_signer(path, SECRET).public_key == public


def test_an_encrypted_key_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    make_key(tmp_path / "k", SECRET)
    make_key(tmp_path / "plain", None)
    assert is_encrypted(tmp_path / "k")
    assert not is_encrypted(tmp_path / "plain")
    for passphrase in (b"wrong", None):
        with pytest.raises(InvalidInputError):
            load_signer(tmp_path / "k", passphrase)
    with pytest.raises(NotFoundError):
        load_signer(tmp_path / "none", None)


def test_a_key_of_another_kind_or_no_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "junk").write_bytes(b"junk")
    for name in ("ec", "junk"):
        with pytest.raises(InvalidInputError):
            load_signer(tmp_path / name, None)


def test_a_public_key_under_another_id_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "a", None)
    make_key(tmp_path / "b", None)
    mine, theirs = (json.loads(public_path(tmp_path / n).read_text()) for n in "ab")
    for value in ({**mine, "keyid": theirs["keyid"]}, {**mine, "keyval": {"public": "zz"}}, {**mine, "more": 1}, [], {"keyid": "x"}):
        (tmp_path / "x").write_text(json.dumps(value))
        with pytest.raises(InvalidInputError):
            load_public(tmp_path / "x")


# Drafts and signatures


def test_a_draft_tells_how_many_signatures_it_lacks() -> None:
    people = People()
    files = first_metadata(a_trusted_root(), [h.public_key for h in people.holders], threshold=2, sealer=people.sealer.public_key, at=NOW)
    assert missing(files) == {"1.root.json": 2, "1.targets.json": 2}
    assert sign(files, people.holders[0]) == ["1.root.json", "1.targets.json"]
    assert sign(files, people.holders[0]) == []
    assert sign(files, people.sealer) == []
    assert sign(files, People().holders[0]) == []
    assert missing(files) == {"1.root.json": 1, "1.targets.json": 1}
    with pytest.raises(ConflictError, match="missing"):
        seal(files, people.sealer, at=NOW)
    assert sign(files, people.holders[2]) == ["1.root.json", "1.targets.json"]
    assert missing(files) == {}
    assert sign(files, people.holders[1]) == []
    with pytest.raises(InvalidInputError, match="does not sign snapshot"):
        seal(files, people.holders[0], at=NOW)


def test_thresholds_and_keys_that_make_no_two_persons_are_refused() -> None:
    people = People()
    publics = [h.public_key for h in people.holders]
    for holders, threshold, sealer in (
        (publics, 1, people.sealer.public_key),
        (publics[:1], 2, people.sealer.public_key),
        ([publics[0], publics[0]], 2, people.sealer.public_key),
        (publics, 2, publics[0]),
        (publics, 4, people.sealer.public_key),
    ):
        with pytest.raises(InvalidInputError):
            first_metadata(a_trusted_root(), holders, threshold=threshold, sealer=sealer, at=NOW)


def test_a_draft_without_its_parts_is_told_so() -> None:
    people = People()
    files = people.begin(a_trusted_root())
    with pytest.raises(InvalidInputError):
        missing({n: d for n, d in files.items() if n != "1.root.json"})
    with pytest.raises(InvalidInputError):
        drafted_root({n: d for n, d in files.items() if not n.endswith("trusted_root.json")})


# The embedded registry's demo root


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> RootRegistry:
    return RootRegistry(monkeypatch)


def test_the_demo_root_is_made_once_and_says_what_it_is(registry: RootRegistry, tmp_path: Path) -> None:
    told: list[str] = []
    pin = make_demo_root(registry, tmp_path / "root", at=NOW, say=told.append)
    assert told[0].startswith("DEMO ROOT")
    verified = verify_metadata(pin.read_bytes(), published_files(registry))
    assert verified.trusted_root.demo
    assert len(verified.trusted_root.keys) == len(registry.deployed) + 1
    for name in ("holder-1.key", "holder-2.key", "sealer.key"):
        assert stat.S_IMODE((tmp_path / "root" / name).stat().st_mode) == 0o600
    assert make_demo_root(registry, tmp_path / "root", at=NOW, say=told.append) == pin
    assert len(told) == 1


def test_the_demo_root_follows_a_deployment_and_is_signed_again_before_it_expires(registry: RootRegistry, tmp_path: Path) -> None:
    told: list[str] = []
    pin = make_demo_root(registry, tmp_path, at=NOW, say=told.append).read_bytes()
    registry.replace_key("record_stage")
    registry.clock.at = later = NOW + timedelta(days=10)
    make_demo_root(registry, tmp_path, at=later, say=told.append)
    verified = verify_metadata(pin, published_files(registry))
    assert verified.versions["targets"] == 2
    ends = [s.end for s in verified.trusted_root.signers if s.name == "record_stage"]
    assert ends == ["2026-03-11T13:00:00.000000Z", None]
    registry.clock.at = later = NOW + timedelta(days=300)
    make_demo_root(registry, tmp_path, at=later, say=told.append)
    verified = verify_metadata(pin, published_files(registry))
    assert verified.versions["timestamp"] == 3
    assert len(told) == 3


def test_a_demo_root_whose_keys_are_gone_is_not_replaced(registry: RootRegistry, tmp_path: Path) -> None:
    make_demo_root(registry, tmp_path / "one", at=NOW, say=print)
    registry.replace_key("gate")
    with pytest.raises(AttestryError):
        make_demo_root(registry, tmp_path / "two", at=NOW, say=print)


# The command line

Run = Callable[..., Any]


@pytest.fixture
def run(registry: RootRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Run]:
    from datetime import UTC, datetime

    # Functions log to what standard output is at first; it must not be the command line's.
    configure_logging(None)
    registry.clock.at = datetime.now(UTC)
    api = ApiDouble()
    for route in ("GET /v1/root", "GET /v1/root/keys", "POST /v1/root"):
        api.functions[route] = lambda body, route=route: Told(*reversed(registry.call(route, body)))
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    settings = {
        "ATTESTRY_API_URL": api.url,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        VARIABLE: SECRET.decode(),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    app = make_app()

    def invoke(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, ["--json", "root", *arguments])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    yield invoke
    api.close()


@pytest.fixture
def begun(run: Run) -> Path:
    """A root that two holders and an admin made."""
    for name in ("one", "two", "three", "sealer"):
        run("key", f"{name}.key")
    holders = [part for name in ("one", "two", "three") for part in ("--holder", f"{name}.key.pub.json")]
    run("init", "c", *holders, "--sealer", "sealer.key", "--sign-with", "one.key", "--sign-with", "two.key", "--yes")
    return Path("c")


def test_two_holders_on_two_machines_make_a_root(run: Run, registry: RootRegistry) -> None:
    for name in ("one", "two", "sealer"):
        run("key", f"{name}.key")
    holders = ["--holder", "one.key.pub.json", "--holder", "two.key.pub.json"]
    told = run("init", "mine", *holders, "--sealer", "sealer.key", "--sign-with", "one.key", "--yes")
    assert told["published"] is False
    assert told["missing"] == {"1.root.json": 1, "1.targets.json": 1}
    assert registry.call("GET /v1/root")[0] == 404
    assert run("publish", "mine", "--sealer", "sealer.key")["missing"] == told["missing"]

    shutil.copytree("mine", "theirs")
    assert run("sign", "theirs", "--key", "one.key", "--yes", code=1)["error"]["code"] == "invalid_input"
    told = run("sign", "theirs", "--key", "two.key", "--yes")
    assert told["missing"] == {}

    told = run("publish", "theirs", "--sealer", "sealer.key")
    assert told["published"] is True
    assert (told["threshold"], len(told["holders"]), told["demo"]) == (2, 2, False)
    shown = run("show", "--save", "saved")
    assert shown["trusted_root_sha256"] == told["trusted_root_sha256"]
    pin = Path("saved", PIN).read_bytes()
    assert pin == Path("theirs", PIN).read_bytes()
    assert verify_metadata(pin, read_folder(Path("saved"))).fingerprint == shown["first_root_sha256"]


def test_nothing_is_signed_before_somebody_has_confirmed_the_fingerprints(run: Run) -> None:
    for name in ("one", "two", "sealer"):
        run("key", f"{name}.key")
    holders = ["--holder", "one.key.pub.json", "--holder", "two.key.pub.json"]
    told = run("init", "c", *holders, "--sealer", "sealer.key", "--sign-with", "one.key", code=1)
    assert told["error"]["field"] == "yes"
    assert not Path("c").exists()


def test_one_holder_alone_makes_no_root_outside_a_demo(run: Run) -> None:
    for name in ("one", "sealer"):
        run("key", f"{name}.key")
    told = run("init", "c", "--holder", "one.key.pub.json", "--sealer", "sealer.key", "--threshold", "1", "--yes", code=1)
    assert told["error"]["field"] == "threshold"


def test_a_key_of_the_deployment_is_rotated(run: Run, registry: RootRegistry, begun: Path) -> None:
    assert run("rotate", "r", "--yes") == {"changed": False}
    registry.replace_key("decide")
    registry.replace_key("gate")
    told = run("rotate", "r", "--key", "decide", "--sign-with", "one.key", "--yes")
    assert told["missing"] == {"2.targets.json": 1}
    assert [k.label for k in change_of(read_folder(Path("r")), published_files(registry)).added] == ["decide"]
    run("sign", "r", "--key", "three.key", "--yes")
    told = run("publish", "r", "--sealer", "sealer.key")
    assert [k["name"] for k in told["keys"] if k["end"]] == ["decide"]
    assert told["versions"]["targets"] == 2
    assert (begun / PIN).read_bytes() == (Path("r") / PIN).read_bytes()
    assert run("rotate", "x", "--key", "nobody", "--yes", code=1)["error"]["rule"] == "label"


def test_a_stolen_key_is_revoked_from_a_time_in_the_past_on(run: Run, registry: RootRegistry, begun: Path) -> None:
    key = next(k for k in run("show")["keys"] if k["name"] == "register")
    arguments = ("--key", key["fingerprint"][:12], "--since", "2026-01-01T10:00:00+02:00", "--yes")
    told = run("revoke", "v", *arguments, "--sign-with", "one.key", "--sign-with", "three.key", "--sealer", "sealer.key")
    ended = next(k for k in told["keys"] if k["name"] == "register")
    # It cannot end before it began.
    assert ended["end"] == max("2026-01-01T08:00:00.000000Z", key["start"])
    assert run("revoke", "w", *arguments, code=1)["error"]["rule"] == "ended"
    bad = ("--key", key["fingerprint"][:12], "--since", "yesterday")
    assert run("revoke", "w", *bad, code=1)["error"]["rule"] == "rfc3339"


def test_a_holder_who_lost_their_key_is_replaced_by_the_others(run: Run, registry: RootRegistry, begun: Path) -> None:
    run("key", "four.key")
    lost = load_public(Path("three.key.pub.json")).keyid
    arguments = ("--dismiss", lost[:16], "--appoint", "four.key.pub.json", "--yes")
    told = run("holders", "h", *arguments, "--sign-with", "one.key", "--sign-with", "four.key")
    assert told["missing"] == {"2.root.json": 1}
    told = run("sign", "h", "--key", "two.key", "--yes")
    told = run("publish", "h", "--sealer", "sealer.key")
    assert told["versions"] == {"root": 2, "timestamp": 2, "snapshot": 2, "targets": 2}
    assert lost not in told["holders"]
    holders, threshold, _ = holders_of(published_files(registry))
    assert (len(holders), threshold) == (3, 2)
    assert verify_metadata((begun / PIN).read_bytes(), published_files(registry)).versions["root"] == 2
    told = run("rotate", "s", "--yes")
    assert told == {"changed": False}
    run("key", "other.key")
    arguments = ("--appoint-sealer", "other.key.pub.json", "--sign-with", "one.key", "--sign-with", "two.key", "--yes")
    assert run("holders", "t", *arguments, "--sealer", "sealer.key", code=1)["error"]["rule"] == "sealer"
    told = run("publish", "t", "--sealer", "other.key")
    assert told["sealer"] == load_public(Path("other.key.pub.json")).keyid
    assert told["versions"]["root"] == 3
    assert run("holders", "k", "--dismiss", "zz", "--yes", code=1)["error"]["rule"] == "holder"


def test_metadata_is_renewed_by_the_sealer_alone(run: Run, registry: RootRegistry, begun: Path) -> None:
    told = run("renew", "n", "--sealer", "sealer.key")
    assert told["versions"] == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}
    assert run("renew", "m", "--sealer", "one.key", code=1)["error"]["rule"] == "sealer"


def test_a_ceremony_begins_in_a_folder_of_its_own(run: Run, begun: Path) -> None:
    told = run("init", "c", "--holder", "one.key.pub.json", "--sealer", "sealer.key", "--yes", code=1)
    assert told["error"]["code"] == "conflict"


def test_a_swapped_published_root_is_noticed_by_who_shows_it(run: Run, registry: RootRegistry, begun: Path) -> None:
    from attestry.usecases.root import ROOT_KEY

    row = dict(registry.meta.rows[ROOT_KEY])
    row["files"] = {**row["files"], "trusted_root.json": a_trusted_root().to_bytes()}
    registry.meta.rows[ROOT_KEY] = row
    assert run("show", code=5)["error"]["code"] == "integrity"


def test_a_short_passphrase_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "short")
    assert run("key", "x.key", code=1)["error"]["rule"] == "length"
    assert not Path("x.key").exists()


def test_next_targets_are_signed_by_the_holders_again() -> None:
    people = People()
    files = people.begin(a_trusted_root())
    following = next_targets(files, drafted_root(files), at=NOW)
    assert missing(following) == {"2.targets.json": 2}
