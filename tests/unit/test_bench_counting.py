"""The benchmarks count what a read is charged for, which is whole rows, and not what is read of them."""

from __future__ import annotations

from benchmarks.counting import _without_projection


def test_a_batch_is_asked_for_again_without_its_projection() -> None:
    keys = {"Keys": [{"pk": {"S": "a"}}], "ConsistentRead": True}
    shown = {"ProjectionExpression": "#n0", "ExpressionAttributeNames": {"#n0": "pk"}}
    asked = {"RequestItems": {"one": {**keys, **shown}, "other": keys}, "ReturnConsumedCapacity": "TOTAL"}
    assert _without_projection(asked) == {**asked, "RequestItems": {"one": keys, "other": keys}}


def test_a_query_keeps_the_names_that_its_condition_uses_and_no_others() -> None:
    how = {"TableName": "t", "KeyConditionExpression": "#p = :p AND #n1 > :s", "ExpressionAttributeValues": {":p": {"S": "a"}}}
    names = {"#p": "pk", "#n1": "sk", "#n10": "tags"}
    asked = {**how, "ProjectionExpression": "#n1, #n10", "ExpressionAttributeNames": names}
    assert _without_projection(asked) == {**how, "ExpressionAttributeNames": {"#p": "pk", "#n1": "sk"}}


def test_a_read_of_whole_rows_is_not_made_again() -> None:
    asked = {"TableName": "t", "Key": {"pk": {"S": "a"}}}
    assert _without_projection(asked) == asked
