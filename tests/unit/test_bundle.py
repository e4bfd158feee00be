"""Bundles: one zip with one form, whatever is tried with it, and what the registry puts in."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from typing import Any

import pytest

from attestry.aws.settings import Settings
from attestry.aws.world import World
from attestry.domain.errors import ForbiddenError, InvalidInputError, NotFoundError
from attestry.evidence.bundle import INDEX, MAX_FILE_BYTES, BundleIndex, read_bundle, write_bundle
from attestry.evidence.canonical import canonical_bytes
from attestry.usecases.bundle import BundleMaker, hand_out, require_payload_reader
from lambdas import bundle as bundle_function
from tests.evidence_world import CONSUMER, ERIN, EvidenceWorld, rewrite
from tests.fakes import MemoryObjectStore
from tests.versions import session

VERSION = BundleIndex("version", "credit-risk@3", "credit-risk", 3, "ab" * 32, "2026-01-02T03:04:05.000000Z")
FILES = {"README.md": b"read me", "ledger/checkpoint": b"note", "version/manifest.json": b"{}"}


@pytest.fixture(scope="module")
def world() -> EvidenceWorld:
    world = EvidenceWorld()
    world.deploy()
    return world


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def by_zipfile(files: list[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    """A zip as any program writes it."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", compression) as archive:
        for name, body in files:
            archive.writestr(name, body)
        archive.comment = comment
    return raw.getvalue()


def with_index(files: dict[str, bytes], index: bytes) -> bytes:
    """A bundle of the right form around any index."""
    raw = write_bundle(VERSION, files)
    own = entries(raw)[INDEX]
    assert len(own) == len(index), "the trick needs an index of the same length"
    crc = struct.pack("<I", zipfile.crc32(own)), struct.pack("<I", zipfile.crc32(index))
    return raw.replace(own, index).replace(crc[0], crc[1])


class TestForm:
    def test_what_was_written_is_read_back(self):
        bundle = read_bundle(write_bundle(VERSION, FILES))
        assert bundle.index == VERSION
        assert bundle.files == FILES
        assert bundle.names("ledger/") == ["ledger/checkpoint"]

    def test_the_same_files_in_any_order_give_the_same_bytes(self):
        assert write_bundle(VERSION, FILES) == write_bundle(VERSION, dict(reversed(FILES.items())))

    def test_any_program_can_read_it(self):
        data = write_bundle(VERSION, FILES)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == sorted([*FILES, INDEX])
            assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}

    def test_the_index_lists_every_file_with_its_digest(self):
        index = json.loads(entries(write_bundle(VERSION, FILES))[INDEX])
        assert index["files"] == {n: {"sha256": hashlib.sha256(b).hexdigest(), "size": len(b)} for n, b in FILES.items()}

    @pytest.mark.parametrize("made", ["bundle that any program wrote", "compressed", "commented"])
    def test_another_zip_of_the_same_files_is_refused(self, made):
        files = sorted(entries(write_bundle(VERSION, FILES)).items())
        other = {
            "bundle that any program wrote": by_zipfile(files),
            "compressed": by_zipfile(files, compression=zipfile.ZIP_DEFLATED),
            "commented": by_zipfile(files, comment=b"harmless"),
        }[made]
        with pytest.raises(InvalidInputError, match=r"byte for byte|compressed"):
            read_bundle(other)

    def test_bytes_in_front_between_and_behind_are_refused(self):
        data = write_bundle(VERSION, FILES)
        for spoiled in (b"#!" + data, data + b"\0", data[:40] + b"\0" + data[40:], data + data, write_bundle(VERSION, {}) + data):
            with pytest.raises(InvalidInputError):
                read_bundle(spoiled)

    def test_a_name_that_occurs_twice_is_refused(self):
        files = sorted(entries(write_bundle(VERSION, FILES)).items())
        with pytest.warns(UserWarning, match="Duplicate"):
            doubled = by_zipfile([*files, files[-1]])
        with pytest.raises(InvalidInputError, match="twice"):
            read_bundle(doubled)

    @pytest.mark.parametrize(
        "name",
        [
            *("../x", "/etc/passwd", "ledger/../x", "ledger\\checkpoint", "ledger/Checkpoint", "ledger/leaves/1.json", "x", "a/", "C:x"),
            *("signatures/../x.sig", "signatures/A.sig", "attestations/AB.json", "root/0.root.json", "readme.md"),
        ],
    )
    def test_a_name_that_the_format_does_not_know_is_neither_written_nor_read(self, name):
        with pytest.raises(InvalidInputError):
            write_bundle(VERSION, {**FILES, name: b""})
        with pytest.raises(InvalidInputError):
            read_bundle(by_zipfile([(name, b""), *FILES.items()]))

    def test_a_bomb_is_refused_before_it_is_unpacked(self):
        bomb = by_zipfile([("README.md", bytes(MAX_FILE_BYTES * 8))], compression=zipfile.ZIP_DEFLATED)
        assert len(bomb) < 1 << 20
        with pytest.raises(InvalidInputError, match="compressed"):
            read_bundle(bomb)
        with pytest.raises(InvalidInputError, match="limit"):
            write_bundle(VERSION, {"README.md": bytes(MAX_FILE_BYTES + 1)})

    @pytest.mark.parametrize("data", [b"", b"PK", b"PK\5\6" + bytes(18), b"not a zip", bytes(100)])
    def test_what_is_no_zip_is_refused(self, data):
        with pytest.raises(InvalidInputError):
            read_bundle(data)

    def test_every_flipped_byte_is_noticed(self):
        data = write_bundle(VERSION, FILES)
        for place in range(len(data)):
            spoiled = bytearray(data)
            spoiled[place] ^= 1
            with pytest.raises(InvalidInputError):
                read_bundle(bytes(spoiled))

    def test_an_index_that_is_not_canonical_or_lies_is_refused(self):
        files = {"README.md": b"read me"}
        own = entries(write_bundle(VERSION, files))[INDEX]
        for change in (
            (b'"format":1', b'"format":2'),
            (b'"size":7', b'"size":8'),
            (b'"number":3', b'"number":4'),
            (b'{"files"', b'{"filez"'),
        ):
            with pytest.raises(InvalidInputError):
                read_bundle(with_index(files, own.replace(*change)))
        with pytest.raises(InvalidInputError):
            read_bundle(with_index(files, own.replace(b'"kind":"version"', b'"kind": "versio"')))

    @pytest.mark.parametrize(
        "change",
        [
            *({"subject": "credit-risk@4"}, {"number": 0}, {"model": "A"}, {"version_digest": "x"}, {"made": "today"}, {"kind": "other"}),
            *({"kind": "prediction"}, {"kind": "prediction", "subject": "a" * 52 + "-1", "version_digest": ""}),
        ],
    )
    def test_an_index_out_of_form_is_refused(self, change):
        with pytest.raises(InvalidInputError):
            BundleIndex(**{**vars(VERSION), **change})

    def test_a_boolean_is_no_size(self):
        one = {"README.md": b"x"}
        body = json.loads(entries(write_bundle(VERSION, one))[INDEX])
        body["files"]["README.md"]["size"] = True
        raw = canonical_bytes(body)
        with pytest.raises(InvalidInputError):
            read_bundle(by_zipfile([("README.md", b"x"), (INDEX, raw)]))


class TestMaking:
    def test_a_bundle_is_only_read_together(self, world):
        prediction = world.predict()
        world.seal()
        rows = dict(world.meta.rows)
        objects = {k: list(v) for k, v in world.store.versions.items()}
        world.bundle(prediction, payload=True)
        world.version_bundle()
        assert world.meta.rows == rows
        assert {k: list(v) for k, v in world.store.versions.items()} == objects

    def test_a_bundle_of_the_same_state_is_the_same_but_for_its_time(self, world):
        prediction = world.predict()
        world.seal()
        first, second = (read_bundle(world.bundle(prediction)) for _ in range(2))
        assert first.files == second.files
        assert first.index.made < second.index.made

    def test_the_payload_is_in_it_only_when_it_is_asked_for(self, world):
        prediction = world.predict()
        world.seal()
        without, having = (set(read_bundle(world.bundle(prediction, payload=p)).files) for p in (False, True))
        assert having - without == {"prediction/request.bin", "prediction/salt.txt", "prediction/output.json"}

    def test_the_payload_is_for_roles_that_have_a_reason(self):
        for role in ("auditor", "deployer", "admin"):
            require_payload_reader(session(role, "x", person="x"), "p-1")
        for other in (CONSUMER, ERIN, session("scientist", "x", person="x")):
            with pytest.raises(ForbiddenError, match="auditor"):
                require_payload_reader(other, "p-1")

    def test_an_expired_row_is_found_in_its_batch(self, world):
        prediction = world.predict()
        world.seal()
        before = read_bundle(world.bundle(prediction, payload=True)).files
        for key in [k for k in world.meta.rows if k.sort.startswith("R#")]:
            del world.meta.rows[key]
        assert read_bundle(world.bundle(prediction, payload=True)).files == before

    def test_events_that_wait_are_carried_as_pending(self, world):
        prediction = world.predict()
        world.collect()
        made = BundleMaker(world.meta, world.store).of_prediction(prediction, world.clock.now())
        assert made.pending == len(read_bundle(made.data).names("ledger/pending/"))
        world.sequence()

    def test_what_was_never_made_is_not_found(self, world):
        maker = BundleMaker(world.meta, world.store)
        with pytest.raises(NotFoundError):
            maker.of_prediction("a" * 52 + "-1", world.clock.now())
        with pytest.raises(NotFoundError):
            maker.of_version("no-such-model", 1, world.clock.now())
        with pytest.raises(InvalidInputError):
            maker.of_prediction("../x", world.clock.now())

    def test_an_index_row_written_by_hand_misleads_nobody(self, world):
        prediction = world.predict()
        world.seal()
        good = world.bundle(prediction)
        key = next(k for k in world.meta.rows if k.partition.startswith("LEAF#"))
        row = world.meta.rows[key]
        world.meta.rows[key] = {**row, "index": int(row["index"]) + 1}
        try:
            assert world.verify(good).verdict == "PROVEN"
            assert world.verify(world.bundle(prediction)).verdict in ("PROVEN", "INCOMPLETE")
        finally:
            world.meta.rows[key] = row

    def test_it_is_handed_out_by_a_url_under_its_digest(self, world):
        prediction = world.predict()
        world.seal()
        scratch = MemoryObjectStore()
        made = BundleMaker(world.meta, world.store).of_prediction(prediction, world.clock.now())
        answer = hand_out(scratch, made)
        assert scratch.fetch(answer["url"]) == made.data
        assert answer["sha256"] == hashlib.sha256(made.data).hexdigest()
        assert (answer["size"], answer["payload"], answer["pending"]) == (len(made.data), False, 0)
        assert list(scratch.versions) == [f"bundles/{answer['sha256']}.zip"]

    def test_an_attacker_can_rewrite_a_bundle_so_the_index_is_no_evidence(self, world):
        """What the other tests rest on: a bundle with other files and a right index is read."""
        spoiled = rewrite(world.version_bundle(), {"ledger/checkpoint": b"other"})
        assert read_bundle(spoiled).files["ledger/checkpoint"] == b"other"


class TestRoutes:
    @pytest.fixture
    def scratch(self, world, monkeypatch):
        scratch = MemoryObjectStore()
        served = World(Settings({"ATTESTRY_ACCOUNT": "123456789012"}))
        served.__dict__.update(meta=world.meta, store=world.store, scratch=scratch, clock=world.clock)
        monkeypatch.setattr(bundle_function, "world", served)
        return scratch

    def get(self, route: str, role: str = "approver", query: dict[str, str] | None = None, **parameters: str) -> tuple[int, dict[str, Any]]:
        identity = {"userArn": f"arn:aws:sts::123456789012:assumed-role/attestry-{role}/gil", "userId": "AROA:gil"}
        event = {
            "version": "2.0",
            "routeKey": route,
            "pathParameters": parameters,
            "queryStringParameters": query or {},
            "requestContext": {"requestId": "r1", "http": {"sourceIp": "192.0.2.7"}, "authorizer": {"iam": identity}},
        }
        answer = bundle_function.handler(event, None)
        return answer["statusCode"], json.loads(answer["body"])

    def test_a_prediction_and_a_version_are_answered_with_a_url(self, world, scratch):
        prediction = world.predict()
        world.seal()
        for status, body in (
            self.get("GET /v1/predictions/{id}/bundle", id=prediction),
            self.get("GET /v1/models/{model}/versions/{number}/bundle", model=world.head.model, number="1"),
        ):
            assert status == 200
            assert world.verify(scratch.fetch(body["url"])).verdict == "PROVEN"

    def test_a_payload_is_refused_to_an_approver_and_given_to_an_auditor(self, world, scratch):
        prediction = world.predict()
        world.seal()
        route, wanted = "GET /v1/predictions/{id}/bundle", {"payload": "true"}
        status, body = self.get(route, query=wanted, id=prediction)
        assert (status, body["code"]) == (403, "forbidden")
        assert not scratch.versions
        status, body = self.get(route, "auditor", wanted, id=prediction)
        assert (status, body["payload"]) == (200, True)

    def test_what_is_not_there_is_not_found(self, scratch):
        assert self.get("GET /v1/predictions/{id}/bundle", id="a" * 52 + "-1")[0] == 404
        assert self.get("GET /v1/predictions/{id}/bundle", id="x")[0] == 400
        assert self.get("GET /v1/models/{model}/versions/{number}/bundle", model="credit-risk", number="1")[0] == 404
