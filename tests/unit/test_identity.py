"""Identity: a principal is what the platform authenticated; a session name is a person only where a trust policy vouches for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.domain.errors import ConflictError, InvalidInputError, UnprovenIdentityError
from attestry.domain.principal import ROLES, Principal, identify, principal_from_request_context
from attestry.usecases.people import add_person, list_people
from attestry.usecases.records import OUTBOX, person_of
from tests.fakes import MemoryMetaStore
from tests.versions import ACCOUNT, AT, ERIN, session

OWN = {"account": ACCOUNT, "prefix": "attestry", "method": "test", "address": "192.0.2.1"}


def test_a_session_of_a_registry_role_is_its_session_name_in_that_role():
    principal = identify(f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-approver/erin", "AROA:erin", **OWN)
    assert (principal.login, principal.roles) == ("erin", ("approver",))


def test_an_iam_user_is_its_name_without_a_registry_role():
    principal = identify(f"arn:aws:iam::{ACCOUNT}:user/team/erin", "AIDA", **OWN)
    assert (principal.login, principal.roles) == ("erin", ())


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:sts::{ACCOUNT}:assumed-role/SharedAdmin/erin",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-superuser/erin",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-approver-x/erin",
        "arn:aws:sts::999999999999:assumed-role/attestry-approver/erin",
        "arn:aws:iam::999999999999:user/erin",
        f"arn:aws:sts::{ACCOUNT}:federated-user/erin",
        f"arn:aws:iam::{ACCOUNT}:root",
    ],
)
def test_a_name_that_nobody_vouches_for_does_not_pass_for_a_person(arn):
    meta = MemoryMetaStore()
    add_person(meta, "erin", ["erin"], name="", by=ERIN, at=AT)
    principal = person_of(meta, identify(arn, "x", **OWN))
    assert principal.login == arn
    assert principal.person is None
    assert principal.roles == ()


@given(st.text(max_size=60), st.text(max_size=30))
def test_no_role_is_read_from_an_arn_that_is_not_a_registry_roles_session(arn, name):
    principal = identify(f"{arn}:assumed-role/{name}", "u", **OWN)
    assert not principal.roles or arn == f"arn:aws:sts::{ACCOUNT}"


def test_the_principal_of_a_request_is_read_from_the_request_context():
    context = {
        "authorizer": {
            "iam": {"userArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/attestry-scientist/dana", "userId": "AROA:dana", "accountId": ACCOUNT}
        },
        "http": {"sourceIp": "203.0.113.9"},
    }
    principal = principal_from_request_context(context, account=ACCOUNT, prefix="attestry")
    assert (principal.login, principal.roles, principal.address, principal.method) == (
        "dana",
        ("scientist",),
        "203.0.113.9",
        "AWS_IAM SigV4",
    )


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"authorizer": {}},
        {"authorizer": {"iam": None}},
        {"authorizer": {"iam": {"userArn": "", "userId": ""}}},
        {"authorizer": {"jwt": {"claims": {"sub": "erin"}}}},
    ],
)
def test_a_request_without_an_iam_identity_has_no_principal(context):
    with pytest.raises(UnprovenIdentityError):
        principal_from_request_context(context, account=ACCOUNT, prefix="attestry")


@pytest.mark.parametrize("role", ROLES)
def test_a_principal_survives_being_stored(role):
    principal = session(role, "someone", person="p")
    assert Principal.from_item(principal.to_item()) == principal


def test_a_login_belongs_to_one_person_for_good():
    meta = MemoryMetaStore()
    add_person(meta, "erin", ["erin"], name="Erin", by=ERIN, at=AT)
    with pytest.raises(ConflictError, match="belongs to another person"):
        add_person(meta, "frank", ["frank", "erin"], name="", by=ERIN, at=AT)
    assert [p.person for p in list_people(meta)] == ["erin"]


def test_adding_a_person_twice_changes_nothing_and_logins_can_be_added():
    meta = MemoryMetaStore()
    add_person(meta, "erin", ["erin"], name="Erin", by=ERIN, at=AT)
    add_person(meta, "erin", ["erin"], name="Erin", by=ERIN, at=AT)
    assert len(meta.query(OUTBOX)) == 1
    person = add_person(meta, "erin", ["erin-admin"], name="", by=ERIN, at=AT)
    assert person.logins == ("erin", "erin-admin")
    assert person_of(meta, session("approver", "erin-admin")).person == "erin"


@pytest.mark.parametrize("person", ["", "Erin", "a b", "x" * 64, "../x", "-x"])
def test_a_persons_id_out_of_form_is_refused(person):
    with pytest.raises(InvalidInputError):
        add_person(MemoryMetaStore(), person, ["l"], name="", by=ERIN, at=AT)


@pytest.mark.parametrize("logins", [[], [""], ["a\nb"], ["x" * 257]])
def test_logins_out_of_form_are_refused(logins):
    with pytest.raises(InvalidInputError):
        add_person(MemoryMetaStore(), "erin", logins, name="", by=ERIN, at=AT)
