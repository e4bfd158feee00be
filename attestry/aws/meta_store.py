"""The meta store over one DynamoDB table.

Concurrency rests on condition expressions alone: every write carries the condition that makes it safe, and a transaction
carries a client token, so that a lost answer can be asked again without writing twice.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from attestry.aws.errors import error_code, translate
from attestry.aws.expressions import Expression, single_put, transact_item, update_request
from attestry.aws.rows import check_row_size, row_bytes, unmarshal_row
from attestry.domain.errors import ConditionFailedError, InvalidInputError, UnavailableError
from attestry.ports import Delete, Item, Key, Put, Update, Write

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import KeysAndAttributesTypeDef

MAX_TRANSACTION_WRITES: Final = 100
MAX_TRANSACTION_BYTES: Final = 4 * 1024 * 1024
INDEX: Final = "by_collection"
_READ_BATCH = 100
_TRIES = 6
_FIRST_PAUSE = 0.025
_LONGEST_PAUSE = 0.8


class DynamoMetaStore:
    """`attestry.ports.MetaStore` over a table with keys `pk`, `sk` and an index `by_collection` (`gsi_pk`, `gsi_sk`)."""

    def __init__(self, client: DynamoDBClient, table_name: str) -> None:
        self._client = client
        self._table = table_name

    def get(self, key: Key) -> Item | None:
        """Return the row with its `pk` and `sk`, or None."""
        try:
            answer = self._client.get_item(TableName=self._table, Key=_wire_key(key), ConsistentRead=True)
        except (BotoCoreError, ClientError) as error:
            raise translate(error, f"read the row {_name(key)}") from error
        return unmarshal_row(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Sequence[Key], *, only: Sequence[str] = ()) -> dict[Key, Item]:
        """Return the rows that exist, in one round trip for up to 100 keys."""
        unique, rows = list(dict.fromkeys(keys)), {}
        for start in range(0, len(unique), _READ_BATCH):
            for row in self._read_batch(unique[start : start + _READ_BATCH], only):
                rows[Key(row["pk"], row["sk"])] = row
        return rows

    def _read_batch(self, keys: Sequence[Key], only: Sequence[str]) -> Iterator[Item]:
        how: KeysAndAttributesTypeDef = {"Keys": [_wire_key(k) for k in keys], "ConsistentRead": True}
        if only:
            expression = Expression()
            how |= {"ProjectionExpression": expression.projection(only), "ExpressionAttributeNames": expression.names}
        request = {self._table: how}
        for pause in _pauses():
            try:
                answer = self._client.batch_get_item(RequestItems=request)
            except (BotoCoreError, ClientError) as error:
                raise translate(error, f"read {len(keys)} rows") from error
            yield from (unmarshal_row(r) for rows in answer.get("Responses", {}).values() for r in rows)
            left = answer.get("UnprocessedKeys") or {}
            if not left:
                return
            request = {self._table: {**how, "Keys": list(left[self._table]["Keys"])}}
            time.sleep(pause)
        raise UnavailableError(f"the table left {len(request[self._table]['Keys'])} of {len(keys)} rows unread after {_TRIES} tries")

    def query(
        self,
        partition: str,
        *,
        prefix: str = "",
        after: str | None = None,
        before: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        only: Sequence[str] = (),
    ) -> list[Item]:
        """Return the rows of a partition in order of their sort key."""
        if prefix and (after is not None or before is not None):
            raise ValueError("a query takes a prefix or places to go on from, not both")
        if "" in (after, before):
            raise ValueError("the place to go on from must not be empty")
        if after is not None and before is not None and after >= before:
            return []
        condition, values = "#p = :p", {":p": {"S": partition}}
        expression = Expression()
        shown = {"ProjectionExpression": expression.projection(only)} if only else {}
        names = {"#p": "pk", **expression.names}
        if prefix or after is not None or before is not None:
            term, bounds = _range(prefix, after, before)
            condition, names["#s"], values = f"{condition} AND {term}", "sk", values | bounds
        request = {
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ConsistentRead": True,
            **shown,
        }
        both = after is not None and before is not None
        # A range takes in its ends, and the upper one is not wanted.
        rows = self._pages(request, f"query the rows of {partition}", newest_first, limit + 1 if both and limit else limit)
        return [row for row in rows if row["sk"] != before][:limit] if both else rows

    def list_collection(
        self, collection: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> list[Item]:
        """Return rows by their `gsi_pk`, ordered by `gsi_sk`. Eventually consistent."""
        condition, names, values = "#p = :p", {"#p": "gsi_pk"}, {":p": {"S": collection}}
        if after:
            condition += f" AND #s {'<' if newest_first else '>'} :s"
            names["#s"], values[":s"] = "gsi_sk", {"S": after}
        request = {
            "IndexName": INDEX,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
        return self._pages(request, f"list the collection {collection}", newest_first, limit)

    def _pages(self, request: dict[str, Any], act: str, newest_first: bool, limit: int | None) -> list[Item]:
        rows: list[Item] = []
        request = {**request, "TableName": self._table, "ScanIndexForward": not newest_first}
        while limit is None or len(rows) < limit:
            if limit is not None:
                request["Limit"] = limit - len(rows)
            try:
                answer = self._client.query(**request)
            except (BotoCoreError, ClientError) as error:
                raise translate(error, act) from error
            rows += [unmarshal_row(r) for r in answer["Items"]]
            if "LastEvaluatedKey" not in answer:
                break
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return rows

    def transact(self, writes: Sequence[Write]) -> None:
        """Apply all writes or none, at most 100.

        One write alone goes as PutItem, UpdateItem or DeleteItem, which costs half of a transaction of one.

        Raises:
            ConditionFailedError: a condition did not hold, or other transactions stayed in the way; nothing was written.
            UnavailableError: the outcome is unknown; the caller reads before it tries again.
            InvalidInputError: more than 100 writes, a row of more than 400 KB, or more than 4 MB in all.
        """
        check_writes(writes)
        if len(writes) == 1 and isinstance(writes[0], (Put, Update, Delete)):
            self._write_one(writes[0])
        elif writes:
            self._transact(writes)

    def _write_one(self, write: Put | Update | Delete) -> None:
        name = _name(write.key)
        try:
            if isinstance(write, Put):
                self._client.put_item(**single_put(self._table, write))
            elif isinstance(write, Update):
                self._client.update_item(**update_request(self._table, write))
            else:
                condition = Expression()
                self._client.delete_item(TableName=self._table, Key=_wire_key(write.key), **condition.condition_arguments(write.when))
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise translate(error, f"write the row {name}") from error
            if error.response["ResponseMetadata"].get("RetryAttempts", 0):
                # An earlier try may have taken effect, its answer lost; a plain write has no client token to tell by.
                raise UnavailableError(
                    f"it is unknown whether the row {name} was written: a try had no answer, and the next found its condition unmet"
                ) from error
            raise ConditionFailedError(f"the condition on the row {name} did not hold", (0,)) from error
        except BotoCoreError as error:
            raise translate(error, f"write the row {name}") from error

    def _transact(self, writes: Sequence[Write]) -> None:
        items: list[Any] = [transact_item(self._table, w) for w in writes]
        token = str(uuid.uuid4())
        reasons: list[str] = []
        for pause in _pauses():
            try:
                self._client.transact_write_items(TransactItems=items, ClientRequestToken=token)
            except ClientError as error:
                code = error_code(error)
                if code not in (
                    "TransactionCanceledException",
                    "TransactionInProgressException",
                    "TransactionConflictException",
                ):
                    raise translate(error, f"write {len(writes)} rows") from error
                reasons = [r.get("Code", "None") for r in error.response.get("CancellationReasons", [])] or [code]
                _raise_unless_worth_retrying(writes, reasons, error)
            except BotoCoreError as error:
                raise translate(error, f"write {len(writes)} rows") from error
            else:
                return
            time.sleep(pause)
        if "TransactionInProgressException" in reasons:
            raise UnavailableError(f"a transaction of {len(writes)} rows is still in progress after {_TRIES} tries")
        raise ConditionFailedError(f"other transactions on the same rows were in the way {_TRIES} times; nothing was written")


def _range(prefix: str, after: str | None, before: str | None) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the condition on the sort key, and its values."""
    if prefix:
        return "begins_with(#s, :s)", {":s": {"S": prefix}}
    if after is not None and before is not None:
        # The next text after one is that with a NUL at its end.
        return "#s BETWEEN :s AND :t", {":s": {"S": after + "\0"}, ":t": {"S": before}}
    return ("#s > :s", {":s": {"S": after}}) if after is not None else ("#s < :s", {":s": {"S": before or ""}})


def check_writes(writes: Sequence[Write]) -> None:
    """Check the limits of a transaction, which the emulator does not enforce.

    Raises:
        InvalidInputError: more than 100 writes, a row of more than 400 KB, or more than 4 MB in all.
        ValueError: two writes of one row, or keys in an item that are not the row's.
    """
    if len(writes) > MAX_TRANSACTION_WRITES:
        raise InvalidInputError.of(
            "",
            "transaction_writes",
            f"{len(writes)} rows would change in one transaction; the limit is {MAX_TRANSACTION_WRITES}",
        )
    keys = [w.key for w in writes]
    if len(set(keys)) != len(keys):
        raise ValueError(f"a transaction writes each row once: {', '.join(_name(k) for k in keys)}")
    total = 0
    for write in writes:
        row = write.item if isinstance(write, Put) else write.changes if isinstance(write, Update) else {}
        if isinstance(write, Update) and not row:
            raise ValueError(f"the update of {_name(write.key)} changes nothing; a condition alone is a Check")
        if ("pk" in row and row["pk"] != write.key.partition) or ("sk" in row and row["sk"] != write.key.sort):
            raise ValueError(f"the item written to {_name(write.key)} carries another row's key")
        key = {"pk": write.key.partition, "sk": write.key.sort}
        total += check_row_size({**row, **key}, _name(write.key)) + row_bytes({**write.when.equals, **write.when.differs})
    if total > MAX_TRANSACTION_BYTES:
        raise InvalidInputError.of(
            "", "transaction_size", f"one transaction would write {total} bytes; the limit is {MAX_TRANSACTION_BYTES}"
        )


def _raise_unless_worth_retrying(writes: Sequence[Write], reasons: Sequence[str], error: ClientError) -> None:
    failed = [i for i, reason in enumerate(reasons) if reason == "ConditionalCheckFailed"]
    if failed:
        names = ", ".join(_name(writes[i].key) for i in failed)
        raise ConditionFailedError(f"the condition on {names} did not hold; nothing was written", failed) from error
    if any(
        r
        not in (
            "None",
            "TransactionConflict",
            "TransactionConflictException",
            "TransactionInProgressException",
            "ThrottlingError",
            "ProvisionedThroughputExceeded",
        )
        for r in reasons
    ):
        raise translate(error, f"write {len(writes)} rows") from error


def _pauses() -> Iterator[float]:
    """Yield the pauses after each try, in seconds: exponential with full jitter."""
    for attempt in range(_TRIES):
        yield random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))  # noqa: S311 - spreads retries, keeps no secret


def _wire_key(key: Key) -> dict[str, Any]:
    return {"pk": {"S": key.partition}, "sk": {"S": key.sort}}


def _name(key: Key) -> str:
    return f"{key.partition}/{key.sort}"
