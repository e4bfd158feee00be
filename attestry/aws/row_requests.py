"""Sends rows to DynamoDB as the adapter wrote them.

What `attestry.aws.rows` and `attestry.aws.expressions` make is a request in DynamoDB's JSON already, binary values apart. The SDK would
look at each attribute of each row and key again, to write the same, and work out for each request where the service is. Signing,
sending, trying again and reading the answer are left to it.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from botocore.serialize import JSONSerializer


class RowSerializer(JSONSerializer):
    """The SDK's serialiser of the protocol that DynamoDB speaks; the body is the parameters as they are."""

    def serialize_to_request(self, parameters: Any, operation_model: Any) -> Any:
        """Return a request, without its place."""
        request = super().serialize_to_request({}, operation_model)
        request["body"] = json.dumps(parameters, default=_base64).encode()
        return request


def send_rows_as_written(client: Any) -> None:
    """Have a client of DynamoDB send requests as they are, to where it was made for; not for a client that others use as well."""
    client._serializer = RowSerializer()
    # The rules that it would be found by at each request give the same for a client of one region.
    client._ruleset_resolver = None


def _base64(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    raise TypeError(f"a request holds texts, numbers, lists, mappings and bytes, not {type(value).__name__}")
