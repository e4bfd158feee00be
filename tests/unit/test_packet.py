"""The decision packet: frozen once when the approval opens, read back checked, and shown as a page that cannot act."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.approvals import ApprovalPolicy
from attestry.domain.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError, UnavailableError
from attestry.domain.stages import Stage, Standing, Status
from attestry.evidence.canonical import canonical_bytes
from attestry.evidence.packet import FIELDS, MAX_PACKET_BYTES, Packet, packet_key
from attestry.evidence.packet_page import render_page
from attestry.ports import Delete, Key, Put, Update
from attestry.usecases.freeze_packet import freeze_packet, open_findings
from attestry.usecases.packet import load_packet, show_packet
from attestry.usecases.records import pointer_key, version_key
from tests.approvals import GATES, METRICS, MODEL, ApprovalWorld
from tests.flow import Flow
from tests.unit.manifest_samples import COMPLETE, changed
from tests.versions import AT, ERIN, make_version, session


@pytest.fixture
def world() -> ApprovalWorld:
    return ApprovalWorld()


def test_the_packet_says_what_a_decision_rests_on(world):
    version = world.waiting()
    content = world.packet().content
    assert (content["model"], content["number"], content["version_digest"]) == (MODEL, 1, version.version_digest)
    assert content["candidate"] == version.candidate
    assert content["submitter"]["person"] == "dana"
    assert content["about"]["risk_tier"] == "high"
    assert (content["metrics"], content["gates"]) == (METRICS, [dict(g) for g in GATES])
    assert content["policy"] == {"automatic": False, "roles": ["approver"], "count": 1, "signed": False}
    assert content["policy_sha256"] == ApprovalPolicy.from_item(content["policy"]).digest
    assert content["lineage"]["code"]["clean"] is True
    assert content["lineage"]["hyperparameters"] == COMPLETE["training"]["hyperparameters"]
    assert set(content["lineage"]["data_sets"]) == {"training", "holdout"}
    assert [r["rows"] for r in content["records"]] == [{"holdout": 143}]
    assert content["deployment"]["capture_rate"] == 0.5


def test_the_packet_of_a_whole_pipeline_run_names_its_data_code_and_records():
    flow = Flow()
    version = flow.register_example()
    flow.to_approval(version)
    head = flow.head(version)
    content = load_packet(flow.store, head).content
    assert [(r["stage"], r["outcome"]) for r in content["records"]] == [(s, "SUCCEEDED") for s in ("PROCESSING", "TRAINING", "VALIDATION")]
    assert content["lineage"]["data_sets"]["training"] == head.dataset("training").digest
    assert content["lineage"]["source_data"][0]["sha256"] == head.datasets[0].files[0].sha256
    assert content["lineage"]["environment"]["archive_sha256"]
    assert content["records"][0]["rows"] == {"train": 1, "holdout": 1}


def test_changes_that_are_not_committed_are_named(world):
    dirty = {**COMPLETE["source"], "dirty": {"diff_sha256": "dd" * 32}}
    world.waiting(manifest=changed("source", dirty))
    code = world.packet().content["lineage"]["code"]
    assert (code["clean"], code["diff_sha256"]) == (False, "dd" * 32)
    assert "not committed" in render_page(world.packet()).decode()


def test_the_difference_is_to_the_version_that_is_deployed_and_names_it(world):
    world.deployed(1, manifest=changed("training.hyperparameters.C", 0.5))
    world.waiting(2)
    packet = world.packet(2)
    assert packet.compared_with == "credit-risk@1"
    assert packet.content["compared_with"]["version_digest"] == world.head(1).version_digest
    rows = {(d["section"], d["field"]): (d["before"], d["after"]) for d in packet.content["differences"]}
    assert rows["hyperparameters", "C"] == (0.5, 0.1)


def test_without_a_deployed_version_there_is_nothing_to_compare_with(world):
    world.waiting()
    assert world.packet().compared_with == ""
    assert world.packet().content["differences"] == []


def test_open_findings_are_in_the_packet_and_closed_ones_are_not(world):
    rows = {
        "FINDING#b": {"what": "a row without an event", "where": "VERSION#x", "opened": "2026-01-02T00:00:00Z", "found": {"a": 1}},
        "FINDING#a": {"what": "closed before", "closed": "2026-01-01T00:00:00Z"},
        "FINDING#c": {"gsi_pk": "FINDINGS"},
        "OTHER": {"what": "no finding"},
    }
    world.meta.transact([Put(Key("FINDINGS#credit-risk#1", sort), row) for sort, row in rows.items()])
    world.waiting()
    found = world.packet().content["findings"]
    assert [f["id"] for f in found] == ["c", "b"]
    assert found[1]["found"] == '{"a": 1}'
    assert open_findings(world.meta, MODEL, 2) == []
    assert "Open findings: 2" in render_page(world.packet()).decode()


def test_the_packet_is_written_once_retained_and_named_by_head_transition_event_and_notification(world):
    version = world.waiting()
    digest = version.packet["sha256"]
    for end in ("json", "html"):
        objects = world.store.versions[f"{version.folder}/evidence/packet-{version.transition:06d}.{end}"]
        assert [o.retained for o in objects] == [True]
    stored = world.store.read(version.packet["key"], version.packet["version_id"], max_bytes=1 << 20)
    assert hashlib.sha256(stored).hexdigest() == digest
    opened = world.events()[-1]
    assert (opened["kind"], opened["data"]["evidence"]) == ("stage.started", digest)
    assert opened["data"]["policy_sha256"] == world.packet().content["policy_sha256"]
    assert world.statement(version.transition).predicate["evidence"] == digest
    message = world.notifier.messages[0][1]
    assert message["packet_sha256"] == digest
    assert message["packet"].startswith("attestry packet credit-risk@1")


@pytest.mark.parametrize("kind", ["before", "after"])
def test_an_opening_that_is_cut_off_at_any_call_is_finished_by_a_retry(kind):
    tried = 0
    for point in range(1, 60):
        world = ApprovalWorld()
        world.deployed(1)
        world.judged(2)
        token = world.pipeline.wait_for_token(world.head(2).execution_id)
        world.faults.clear()
        getattr(world.faults, f"fail_{kind}")(point)
        try:
            world.open(2, token)
        except UnavailableError:
            tried += 1
            world.faults.clear()
            # Time has passed, and another version is deployed by now: what was frozen before stays.
            world.meta.transact([Delete(pointer_key(MODEL, "production"))])
            world.open(2, token)
        else:
            break
        head = world.head(2)
        assert (head.stage, head.status, head.token) == (Stage.APPROVAL, Status.RUNNING, token)
        assert load_packet(world.store, head).sha256 == head.packet["sha256"]
        assert all(len(versions) == 1 for versions in world.store.versions.values())
        opened = [e for e in world.events() if e["kind"] == "stage.started"]
        assert [e["data"]["evidence"] for e in opened] == [head.packet["sha256"]]
        assert world.notifier.messages, "a lost notification is sent by the retry"
        assert world.decide(number=2).version.standing is Standing.APPROVED
    assert tried >= 10


def test_a_retry_uses_the_packet_that_a_killed_try_left_although_the_deployed_version_has_changed(world):
    world.deployed(1)
    version = world.judged(2)
    left = freeze_packet(world.meta, world.store, version, AT - timedelta(minutes=5))
    world.meta.transact([Update(pointer_key(MODEL, "production"), {"number": 2})])
    world.open(2)
    assert world.head(2).packet["sha256"] == left.packet.sha256
    assert world.packet(2).compared_with == "credit-risk@1"


def test_what_lies_in_the_packets_place_but_is_not_of_this_opening_is_not_used(world):
    version = world.judged()
    content = dict(freeze_packet(world.meta, world.store, version, AT).packet.content)
    key = packet_key(version.folder, version.transition + 1)
    for forged in (
        canonical_bytes({**content, "metrics": {"roc_auc_score": "0.999"}}),
        canonical_bytes({**content, "number": 2}),
        canonical_bytes({**content, "policy": {**content["policy"], "signed": True}}),
        b"{}",
        b"",
    ):
        world.store.tamper(key, forged)
        with pytest.raises((IntegrityError, InvalidInputError)):
            world.open()
        assert world.head().stage is Stage.VALIDATION


def test_a_page_that_was_put_in_place_of_ours_stops_the_opening(world):
    version = world.judged()
    world.store.put_new(f"{version.folder}/evidence/packet-{version.transition + 1:06d}.html", b"<p>all is well</p>")
    with pytest.raises(IntegrityError):
        world.open()
    assert world.head().stage is Stage.VALIDATION


@pytest.mark.parametrize("what", ["json", "head"])
def test_a_packet_that_was_changed_by_hand_is_neither_shown_nor_decided_on(world, what):
    version = world.waiting()
    forged = canonical_bytes({**world.packet().content, "metrics": {"roc_auc_score": "0.999"}})
    if what == "json":
        world.store.tamper(version.packet["key"], forged)
    else:
        kept = world.store.put_new(f"{version.folder}/evidence/packet-000099.json", forged)
        place = {**version.packet, "key": kept.key, "version_id": kept.version_id, "sha256": kept.sha256, "transition": 99}
        world.meta.transact([Update(version_key(MODEL, 1), {"packet": place})])
    with pytest.raises(IntegrityError, match="not the one that was frozen"):
        show_packet(world.meta, world.store, MODEL, 1)
    with pytest.raises(IntegrityError, match="not the one that was frozen"):
        world.decide()


def test_a_policy_that_was_weakened_after_the_packet_was_frozen_stops_the_decision(world):
    version = world.waiting(policy=ApprovalPolicy(False, ("approver",), 2))
    weaker = {**version.approval_policy, "count": 1}
    world.meta.transact([Update(version_key(MODEL, 1), {"approval_policy": weaker})])
    with pytest.raises(IntegrityError, match="not the one in its decision packet"):
        world.decide()


def test_the_packet_of_another_version_does_not_serve(world):
    world.waiting()
    world.waiting(2)
    world.meta.transact([Update(version_key(MODEL, 2), {"packet": dict(world.head(1).packet)})])
    with pytest.raises(IntegrityError, match="not the one that was frozen"):
        world.decide(number=2)


def test_nothing_is_decided_on_without_a_packet(world):
    make_version(world.meta, stage=Stage.APPROVAL, status=Status.RUNNING)
    with pytest.raises(ConflictError, match="no decision packet"):
        world.decide()


def test_a_second_token_freezes_no_second_packet(world):
    world.judged()
    world.open()
    first = world.head().packet
    world.open()
    assert world.head().packet == first
    assert sum("/packet-" in key for key in world.store.versions) == 2


def test_the_packet_is_shown_as_exactly_the_digested_text(world):
    version = world.waiting()
    shown = show_packet(world.meta, world.store, MODEL, 1)
    assert hashlib.sha256(shown["content"].encode()).hexdigest() == shown["sha256"] == version.packet["sha256"]
    page = world.store.fetch(shown["page"]["url"])
    assert hashlib.sha256(page).hexdigest() == shown["page"]["sha256"]
    assert page == render_page(Packet.parse(shown["content"].encode()))


def test_a_version_without_a_packet_says_when_there_will_be_one(world):
    with pytest.raises(NotFoundError, match="there is no version credit-risk@9"):
        show_packet(world.meta, world.store, MODEL, 9)
    world.judged()
    with pytest.raises(NotFoundError, match="frozen when its approval opens"):
        show_packet(world.meta, world.store, MODEL, 1)


class TestFormat:
    @pytest.mark.parametrize("name", FIELDS)
    def test_each_field_is_required_and_of_its_type(self, world, name):
        world.waiting()
        content = dict(world.packet().content)
        for spoiled in ({k: v for k, v in content.items() if k != name}, {**content, name: None}, {**content, name: True}):
            with pytest.raises(InvalidInputError):
                Packet.make(spoiled)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda raw: raw + b"\n",
            lambda raw: b" " + raw,
            lambda raw: raw.replace(b'"format":1', b'"format":2'),
            lambda raw: raw.replace(b'"format":1', b'"format":1,"format":1'),
            lambda raw: raw.replace(b'"number":1', b'"number":01'),
            lambda raw: raw.replace(b'"number":1', b'"number":0'),
            lambda raw: raw[:-1] + b',"zzz":1}',
            lambda raw: json.dumps(json.loads(raw)).encode(),
            lambda raw: raw[:-1],
            lambda raw: b"[]",
            lambda raw: raw + b" " * MAX_PACKET_BYTES,
        ],
    )
    def test_a_document_that_the_registry_would_not_have_written_is_refused(self, world, spoil):
        world.waiting()
        with pytest.raises(InvalidInputError):
            Packet.parse(spoil(world.packet().raw))

    @given(st.binary(max_size=200))
    def test_arbitrary_bytes_are_no_packet(self, data):
        with pytest.raises(InvalidInputError):
            Packet.parse(data)


class Page(HTMLParser):
    """What a browser would make of the page: tags with attributes, and text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '" onmouseover="x',
    "&lt;b&gt;",
    "\u202eevil",
    "a\x00b",
    "\x1b[2J",
)


def spoiled(value: Any, text: str) -> Any:
    """The value with every text in it replaced."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [spoiled(v, text) for v in value]
    if isinstance(value, dict):
        return {k: spoiled(v, text) for k, v in value.items()}
    return value


class TestPage:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_no_text_of_a_submitter_can_act_or_change_what_stands_beside_it(self, world, text):
        world.deployed(1, manifest=changed("training.hyperparameters.C", 0.5))
        world.meta.transact([Put(Key("FINDINGS#credit-risk#2", "FINDING#1"), {"what": text, "where": text})])
        world.waiting(2)
        content = copy.deepcopy(dict(world.packet(2).content))
        names = ("model", "version_digest", "candidate", "policy_sha256")
        hostile = {k: v if k in names else spoiled(v, text) for k, v in content.items()}
        page = render_page(Packet.make(hostile))
        harmless = render_page(Packet.make({k: v if k in names else spoiled(v, "word") for k, v in content.items()}))
        assert [tag for tag, _ in Page(page).tags] == [tag for tag, _ in Page(harmless).tags]
        assert {tag for tag, _ in Page(page).tags} & {"script", "img", "iframe", "link", "form", "object"} == set()
        assert not any(name.startswith("on") for _, attributes in Page(page).tags for name in attributes)
        assert not any(c in page.decode() for c in "\u202e\x00\x1b")

    def test_the_page_loads_nothing(self, world):
        world.waiting()
        page = render_page(world.packet()).decode()
        assert "default-src 'none'" in page
        assert not [a for _, attributes in Page(page.encode()).tags for a in attributes if a in ("src", "href", "srcset")]
        assert "url(" not in page
        assert "@import" not in page

    def test_the_page_says_where_attestation_and_ledger_place_of_a_decision_will_be_found(self, world):
        world.waiting()
        packet = world.packet()
        page = re.sub(r"<[^>]+>", "", render_page(packet).decode())
        assert f"attestry bundle {packet.reference} -o version.zip" in page
        assert f"The event says evidence {packet.sha256}" in page

    def test_the_page_shows_digest_gates_people_and_policy(self, world):
        world.waiting(policy=ApprovalPolicy(False, ("approver",), 2, signed=True))
        text = " ".join(" ".join(Page(render_page(world.packet())).words).split())
        wanted = (
            world.packet().sha256,
            "credit-risk@1",
            "high risk",
            "0.93",
            "wanted at least 0.9",
            "dana",
            "2 different persons",
            "own signature",
        )
        for part in wanted:
            assert part in text

    def test_an_unproven_submitter_is_named_as_such(self, world):
        world.waiting(submitter=session("scientist", "by-hand"))
        assert "unproven when this was frozen" in render_page(world.packet()).decode()

    def test_the_same_packet_gives_the_same_page(self, world):
        world.waiting()
        assert render_page(world.packet()) == render_page(Packet.parse(world.packet().raw))


def test_a_decision_that_names_the_packet_it_was_made_on_is_taken(world):
    digest = world.waiting().packet["sha256"]
    assert world.decide(ERIN, packet_sha256=digest).complete
