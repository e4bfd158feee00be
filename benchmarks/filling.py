"""Rows by the hundred thousand into a table: BatchWriteItem over several connections, signed and authorised like any call.

botocore takes each value of each row apart, in Python, which takes as long as the server takes to put it; here a call's body is made in C.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from attestry.aws.rows import marshal_row
from attestry.ports import Item

__all__ = ["write"]

_BATCH = 25
_AT_ONCE, _WAITING = 4, 16
_SERVICE = "dynamodb"
_HEADERS = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.BatchWriteItem"}
_OK = 200


def write(session: Any, table: str, rows: Iterable[Item]) -> int:
    """Put rows into a table, in any order, and return how many.

    Args:
        session: boto3's, of whoever may write.
        table: its name.
        rows: as the adapters write them.

    Raises:
        RuntimeError: a call was refused.
    """
    endpoint = session.client(_SERVICE).meta.endpoint_url
    signer = SigV4Auth(session.get_credentials().get_frozen_credentials(), _SERVICE, session.region_name)
    connections = urllib3.PoolManager(maxsize=_AT_ONCE, block=True)

    def put(batch: list[Item]) -> int:
        left: Any = {table: [{"PutRequest": {"Item": marshal_row(row)}} for row in batch]}
        while left:
            body = json.dumps({"RequestItems": left}, default=lambda told: base64.b64encode(told).decode())
            request = AWSRequest("POST", endpoint, headers=_HEADERS, data=body.encode())
            signer.add_auth(request)
            answer = connections.request("POST", endpoint, headers=dict(request.headers.items()), body=body.encode())
            if answer.status != _OK:
                raise RuntimeError(f"BatchWriteItem was answered {answer.status}: {answer.data[:500]!r}")
            left = json.loads(answer.data).get("UnprocessedItems")
        return len(batch)

    count, waiting, begun = 0, iter(rows), deque[Future[int]]()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        while batch := list(islice(waiting, _BATCH)):
            begun.append(threads.submit(put, batch))
            if len(begun) > _WAITING:
                count += begun.popleft().result()
        return count + sum(one.result() for one in begun)
