"""Legal hold and disposal on the embedded AWS: two roles, the locks of S3, and what is left as proof."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from attestry.domain.custody import is_payload
from attestry.domain.version import Version
from tests.embedded.flows import Answer, Registry, refusal

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

MODEL = "kept-and-gone"


@dataclass(frozen=True)
class Kept:
    """A killed version, on which a legal hold stood and was lifted, and which was disposed of.

    Attributes:
        version: the version at its end.
        free: key of a captured payload, which no lock keeps.
        held: of that payload, while the hold stood: whether S3 says so, and what S3 answered to who disposes.
        refused: answers to a disposal under the hold, and to one that the admin confirmed.
        answers: of placing, lifting, asking and confirming.
        locked: keys of payload that are still there.
    """

    version: Version
    free: str
    held: tuple[str, str]
    refused: tuple[Answer, ...]
    answers: tuple[Answer, ...]
    locked: tuple[str, ...]


@pytest.fixture(scope="module")
def kept(registry: Registry) -> Kept:
    registry.call("admin", "POST", "/v1/people", {"person": "admin", "logins": ["admin"]})
    model, number = registry.made(registry.small_project(model=MODEL))
    path, reason = f"/v1/models/{model}/versions/{number}", {"reason": "case 4711"}
    free = f"{registry.head(model, number).folder}/predictions/payloads/none/000000000001.request"
    at = registry.aws("s3").put_object(Bucket=registry.bucket, Key=free, Body=b"{}", IfNoneMatch="*")["VersionId"]
    placed = registry.call("erin", "POST", f"{path}/legal-hold", reason)
    head = registry.aws("s3").head_object(Bucket=registry.bucket, Key=free, VersionId=at)
    deleting = registry.aws("s3", registry.as_function("custody")).delete_object
    held = (str(head.get("ObjectLockLegalHoldStatus")), refusal(deleting, Bucket=registry.bucket, Key=free, VersionId=at))
    assert registry.call("admin", "POST", f"{path}/kill", reason).status == 200
    under_hold = registry.call("admin", "POST", f"{path}/disposal", reason)
    lifted = registry.call("admin", "POST", f"{path}/legal-hold", {**reason, "lift": True})
    asked = registry.call("admin", "POST", f"{path}/disposal", reason)
    own = registry.call("admin", "POST", f"{path}/disposal", {**reason, "confirm": True})
    confirmed = registry.call("erin", "POST", f"{path}/disposal", {**reason, "confirm": True})
    left = tuple(key for key in registry.keys(f"models/{model}/{number}-") if is_payload(key, model, number))
    answers = (placed, lifted, asked, confirmed)
    return Kept(registry.head(model, number), free, held, (under_hold, own), answers, left)


def test_a_legal_hold_stands_on_the_objects_and_s3_refuses_who_disposes(kept: Kept) -> None:
    assert kept.held[0] == "ON"
    assert kept.held[1].startswith("AccessDenied")


def test_a_disposal_is_refused_under_a_hold_and_to_who_asked_for_it(kept: Kept) -> None:
    assert [answer.status for answer in kept.refused] == [409, 403]


def test_the_acts_are_answered_with_what_stands_after_them(kept: Kept) -> None:
    assert [answer.status for answer in kept.answers] == [200, 200, 202, 202]
    placed, lifted, asked, confirmed = (answer.body for answer in kept.answers)
    assert (placed["legal_hold"]["by"], lifted["legal_hold"]) == ("erin", {})
    assert (asked["disposal"]["state"], confirmed["disposal"]["state"]) == ("requested", "ended")
    assert all(body["complete"] for body in (placed, lifted, asked, confirmed))


def test_what_no_lock_keeps_is_gone_and_what_one_keeps_is_told(kept: Kept, registry: Registry) -> None:
    assert kept.free not in kept.locked
    assert kept.version.disposal["objects"] >= 1
    # Frozen files and data are under the registry's own Object Lock for a year.
    assert kept.version.disposal["left"] == len(kept.locked) > 0
    (listed,) = registry.keys(f"{kept.version.folder}/evidence/disposals/")
    assert kept.free in registry.aws("s3").get_object(Bucket=registry.bucket, Key=listed)["Body"].read().decode()


def test_each_act_is_a_move_of_the_version(kept: Kept, registry: Registry) -> None:
    acts = ["legal_hold.placed", "version.killed", "legal_hold.lifted", "disposal.requested", "disposal.confirmed"]
    assert registry.kinds(kept.version.model, kept.version.number)[-7:] == [*acts, "version.disposed", "disposal.ended"]
