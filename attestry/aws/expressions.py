"""Condition and update expressions of DynamoDB from the ports' `When` and `Update`.

All names and values go through placeholders, so that no attribute's name can clash with a reserved word or carry
syntax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attestry.aws.rows import marshal, marshal_row
from attestry.ports import Check, Delete, Key, Put, Update, When, Write


class Expression:
    """Collects the placeholders of one request."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        """Return the placeholder of an attribute's name."""
        for placeholder, known in self.names.items():
            if known == attribute:
                return placeholder
        placeholder = f"#n{len(self.names)}"
        self.names[placeholder] = attribute
        return placeholder

    def value(self, value: Any) -> str:
        """Return the placeholder of a value."""
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = marshal(value)
        return placeholder

    def condition(self, when: When) -> str:
        """Return the condition expression, empty where anything goes."""
        parts = []
        if when.exists is not None:
            parts.append(f"attribute_{'exists' if when.exists else 'not_exists'}({self.name('pk')})")
        for attribute, wanted in when.equals.items():
            name = self.name(attribute)
            if wanted is None:
                # A null counts as absent: a whole-row write stores None as null, an update removes the attribute.
                parts.append(f"(attribute_not_exists({name}) OR attribute_type({name}, {self.value('NULL')}))")
            else:
                parts.append(f"{name} = {self.value(wanted)}")
        for attribute, unwanted in when.differs.items():
            name = self.name(attribute)
            if unwanted is None:
                parts.append(f"(attribute_exists({name}) AND NOT attribute_type({name}, {self.value('NULL')}))")
            else:
                parts.append(f"(attribute_not_exists({name}) OR {name} <> {self.value(unwanted)})")
        parts += [f"NOT contains({self.name(attribute)}, {self.value(item)})" for attribute, item in when.lacks.items()]
        return " AND ".join(parts)

    def projection(self, attributes: Sequence[str]) -> str:
        """Return the projection expression of some attributes and of the key."""
        return ", ".join(self.name(attribute) for attribute in dict.fromkeys(("pk", "sk", *attributes)))

    def update(self, changes: Mapping[str, Any]) -> str:
        """Return the update expression: None removes, everything else is set."""
        sets = [f"{self.name(a)} = {self.value(v)}" for a, v in changes.items() if v is not None]
        removes = [self.name(a) for a, v in changes.items() if v is None]
        return " ".join(
            part for part in (f"SET {', '.join(sets)}" if sets else "", f"REMOVE {', '.join(removes)}" if removes else "") if part
        )

    def arguments(self) -> dict[str, Any]:
        """Return the placeholders as request parameters; DynamoDB refuses empty ones."""
        names = {"ExpressionAttributeNames": self.names} if self.names else {}
        values = {"ExpressionAttributeValues": self.values} if self.values else {}
        return {**names, **values}

    def condition_arguments(self, when: When) -> dict[str, Any]:
        """Return the request parameters of a condition."""
        text = self.condition(when)
        return {**({"ConditionExpression": text} if text else {}), **self.arguments()}


def single_put(table: str, put: Put) -> dict[str, Any]:
    """Return the parameters of a PutItem, also those of a Put within a transaction."""
    row = marshal_row({**put.item, "pk": put.key.partition, "sk": put.key.sort})
    return {"TableName": table, "Item": row, **Expression().condition_arguments(put.when)}


def update_request(table: str, update: Update) -> dict[str, Any]:
    """Return the parameters of an UpdateItem, also those of an Update within a transaction."""
    expression = Expression()
    changes = {k: v for k, v in update.changes.items() if k not in ("pk", "sk")}
    text = expression.update(changes)
    return {
        "TableName": table,
        "Key": _wire_key(update.key),
        "UpdateExpression": text,
        **expression.condition_arguments(update.when),
    }


def transact_item(table: str, write: Write) -> dict[str, Any]:
    """Return one write of a transaction."""
    if isinstance(write, Put):
        return {"Put": single_put(table, write)}
    if isinstance(write, Update):
        return {"Update": update_request(table, write)}
    request: dict[str, Any] = {
        "TableName": table,
        "Key": _wire_key(write.key),
        **Expression().condition_arguments(write.when),
    }
    if isinstance(write, Delete):
        return {"Delete": request}
    if isinstance(write, Check):
        if "ConditionExpression" not in request:
            raise ValueError(f"the check of {write.key.partition}/{write.key.sort} has no condition")
        return {"ConditionCheck": request}
    raise TypeError(f"not a write: {write!r}")


def _wire_key(key: Key) -> dict[str, Any]:
    return {"pk": {"S": key.partition}, "sk": {"S": key.sort}}
