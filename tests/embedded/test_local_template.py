"""The pure parts of the embedded AWS: filtering templates, resolving and comparing them, and refusing what is not expected."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestry.local import patch_iam, patching
from attestry.local.parity import Difference, Outcome, Parity, unevaluated_conditions
from attestry.local.resolve import ANYTHING, Resolver, difference
from attestry.local.template import filter_template

TLS = {"Effect": "Deny", "Action": "s3:*", "Principal": "*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
ALLOW = {"Sid": "Read", "Effect": "Allow", "Action": "s3:GetObject", "Principal": "*", "Resource": "*"}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Type": "AWS::S3::BucketPolicy", "Properties": {"Bucket": "b", "PolicyDocument": {"Statement": list(statements)}}}


def test_an_unknown_resource_goes_with_the_dependencies_on_it() -> None:
    template = {"Resources": {"Log": {"Type": "AWS::EC2::FlowLog"}, "Topic": {"Type": "AWS::SNS::Topic", "DependsOn": ["Log"]}}}

    filtered = filter_template(template, {"AWS::EC2::FlowLog"})

    assert filtered.template == {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    assert [(gone.resource, gone.part) for gone in filtered.removals] == [("Log", "resource")]
    assert "Log" in template["Resources"]


@pytest.mark.parametrize(
    "need", [{"Ref": "Log"}, {"Fn::GetAtt": ["Log", "Id"]}, {"Fn::Sub": "x-${Log.Id}"}, {"Fn::Join": ["", [{"Ref": "Log"}]]}]
)
def test_an_unknown_resource_that_another_needs_is_an_error(need: Any) -> None:
    template = {"Resources": {"Log": {"Type": "AWS::EC2::FlowLog"}, "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"Name": need}}}}

    with pytest.raises(ValueError, match=r"Topic needs Log of type AWS::EC2::FlowLog"):
        filter_template(template, {"AWS::EC2::FlowLog"})


def test_only_the_rule_against_plain_http_leaves_a_policy() -> None:
    other = {**TLS, "Condition": {"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "false"}}}

    filtered = filter_template({"Resources": {"P": policy(TLS, ALLOW, other)}}, set())

    assert filtered.template["Resources"]["P"] == policy(ALLOW, other)
    assert [gone.part for gone in filtered.removals] == ["PolicyDocument.Statement[0]"]


def test_a_policy_of_that_rule_alone_goes_as_a_whole() -> None:
    filtered = filter_template({"Resources": {"P": policy(TLS), "B": {"Type": "AWS::S3::Bucket", "DependsOn": "P"}}}, set())

    assert filtered.template["Resources"] == {"B": {"Type": "AWS::S3::Bucket"}}


def test_intrinsic_functions_are_resolved_with_what_was_deployed() -> None:
    resolver = Resolver({"Key": {"Type": "AWS::KMS::Key"}, "Queue": {"Type": "AWS::SQS::Queue"}}, {"Key": "k-1", "Queue": "http://h/0/q"})

    assert resolver.resolve({"A": {"Fn::GetAtt": ["Key", "Arn"]}}) == {"A": "arn:aws:kms:us-east-1:000000000000:key/k-1"}
    assert resolver.resolve([{"Fn::Join": ["/", ["x", {"Ref": "Key"}]]}]) == ["x/k-1"]
    assert resolver.resolve({"Fn::Sub": "${AWS::Region}:${Queue.Arn}"}) == "us-east-1:arn:aws:sqs:us-east-1:000000000000:q"
    assert resolver.resolve({"Fn::GetAtt": ["Gone", "Arn"]}) is ANYTHING


@pytest.mark.parametrize(
    ("expected", "found", "where"),
    [
        ({"A": 1}, {"A": "1", "B": 2}, None),
        ({"A": True}, {"A": "true"}, None),
        ({"A": 0}, {"A": 0.0}, None),
        ({"A": ["x"]}, {"A": "x"}, None),
        ({"A": ["x", "y"]}, {"A": ["y", "x"]}, None),
        ({"A": ANYTHING}, {"A": "anything"}, None),
        ({"A": ANYTHING}, {}, "A"),
        ({"A": {"B": 1}}, {"A": {"B": 2}}, "A.B"),
        ({"A": [{"B": 1}]}, {"A": [{"B": 2}]}, "A[0]"),
        ({"A": {"B": 1}}, {"A": None}, "A"),
    ],
)
def test_a_difference_is_what_the_template_states_and_the_resource_lacks(expected: Any, found: Any, where: str | None) -> None:
    assert difference(expected, found) == where


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(JSON)
def test_nothing_differs_from_itself(document: Any) -> None:
    assert difference(document, document) is None


def test_a_condition_key_without_a_value_is_listed() -> None:
    known = {**ALLOW, "Condition": {"StringLike": {"s3:prefix": "x", "aws:PrincipalTag/team": "y"}}}
    unknown = {**ALLOW, "Condition": {"StringEquals": {"aws:SourceVpce": "v"}}}

    found = list(unevaluated_conditions({"Resources": {"P": policy(known, unknown)}}))

    assert [entry.part for entry in found] == ["PolicyDocument.Statement[Read] aws:SourceVpce"]


def test_the_list_of_differences_survives_the_file() -> None:
    parity = Parity((Difference("A", "T", "P", Outcome.SET, "r"), Difference("B", "T", "P", Outcome.OFFLINE, "s")), 7)

    assert Parity.from_json(parity.to_json()) == parity
    assert "1 set afterwards through the API, 1 checked offline" in parity.summary()


def test_variables_stand_for_literal_text() -> None:
    values = {"aws:username": "d*na", "aws:PrincipalTag/team": "imaging"}

    compiled = patch_iam.pattern("arn:x/${aws:username}/?/${aws:PrincipalTag/team}*", values.get)
    assert compiled is not None
    assert compiled.fullmatch("arn:x/d*na/1/imaging-2")
    assert not compiled.fullmatch("arn:x/dana/1/imaging")
    assert patch_iam.pattern("${aws:absent}", values.get) is None
    assert patch_iam.expand("${aws:absent, 'nobody'}-${*}", values.get) == "nobody-*"
    assert patch_iam.expand("x-${aws:absent}", values.get) is None


@given(st.text(), st.text())
def test_a_resource_without_variables_or_wildcards_matches_itself_only(resource: str, other: str) -> None:
    text = resource.translate(dict.fromkeys(map(ord, "*?$")))
    compiled = patch_iam.pattern(text, {}.get)

    assert compiled is not None
    assert compiled.fullmatch(text)
    assert bool(compiled.fullmatch(other)) == (other == text)


def test_a_patch_refuses_a_function_that_it_was_not_written_for() -> None:
    owner = types.ModuleType("owner")
    owner.work = lambda: 1  # type: ignore[attr-defined]

    with pytest.raises(patching.PatchError, match=r"owner\.work is not the function"):
        patching.replace(owner, "work", "0" * 16, lambda original: original)
    with pytest.raises(patching.PatchError, match=r"has no owner\.gone"):
        patching.replace(owner, "gone", "0" * 16, lambda original: original)


@pytest.mark.parametrize("text", ["a", "bb"])
def test_a_patch_refuses_a_text_in_which_its_passage_is_not_exactly_once(text: str) -> None:
    owner = types.ModuleType("owner")
    owner.script = text  # type: ignore[attr-defined]

    with pytest.raises(patching.PatchError):
        patching.replace_text(owner, "script", [("b", "c")])


def test_another_release_of_the_emulator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patching, "EMULATOR_VERSION", "9.9.9")

    with pytest.raises(patching.PatchError, match=r"9\.9\.9 is needed"):
        patching.check_version()
