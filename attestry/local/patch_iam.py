"""Patch: policy variables and `aws:PrincipalArn` in policy evaluation.

What AWS does (IAM User Guide, "IAM policy elements: variables and tags" and "AWS global condition context keys") and the
emulator does not:
- `${aws:username}`, `${aws:userid}`, `${aws:PrincipalTag/key}` and every other single-valued key of the request context
  are replaced in `Resource`, `NotResource` and in the values of `Condition`; `${key, 'default'}` gives a default, and
  `${*}`, `${?}`, `${$}` are the characters themselves. What takes the place of a variable is literal text: a wildcard in
  a tag's value matches only itself. A variable that is not in the context matches nothing.
- `aws:PrincipalArn` of a role session is the ARN of the role, not of the session.

It holds for identity, bucket, key, session and trust policies, since all of them are evaluated by the same functions.
Not covered: documents without `Version: 2012-10-17`, in which AWS takes `${...}` literally.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attestry.local.patching import load, replace

_VARIABLE = re.compile(r"\$\{\s*([^},]+?)\s*(?:,\s*'([^']*)'\s*)?\}")
_LITERALS = {"*", "?", "$"}

Lookup = Callable[[str], str | None]


def _variable(match: re.Match[str], lookup: Lookup) -> str | None:
    name, default = match.group(1), match.group(2)
    if name in _LITERALS:
        return name
    value = lookup(name)
    return default if value is None else value


def expand(text: str, lookup: Lookup) -> str | None:
    """Replace the policy variables of a condition value.

    Args:
        text: the value as the policy states it.
        lookup: gives the value of a context key, or None where the request has no single value for it.

    Returns:
        The text, or None when a variable has no value.
    """
    values = [_variable(match, lookup) for match in _VARIABLE.finditer(text)]
    if any(value is None for value in values):
        return None
    remaining = iter(values)
    return _VARIABLE.sub(lambda _: str(next(remaining)), text)


def pattern(text: str, lookup: Lookup) -> re.Pattern[str] | None:
    """Compile a resource pattern whose variables stand for literal text, its own `*` and `?` for wildcards.

    Args:
        text: the resource as the policy states it.
        lookup: gives the value of a context key, or None where the request has no single value for it.

    Returns:
        The pattern, or None when a variable has no value.
    """
    parts: list[str] = []
    end = 0
    for match in _VARIABLE.finditer(text):
        value = _variable(match, lookup)
        if value is None:
            return None
        parts += [_wildcards(text[end : match.start()]), re.escape(value)]
        end = match.end()
    return re.compile("".join([*parts, _wildcards(text[end:])]), re.DOTALL)


def _wildcards(text: str) -> str:
    return "".join(".*" if char == "*" else "." if char == "?" else re.escape(char) for char in text)


def apply() -> None:
    """Patch policy evaluation.

    Raises:
        PatchError: the emulator is not what this was written for.
    """
    evaluator = load("ministack.core.iam_evaluator")
    replace(evaluator, "_resolve_condition_key", "15e26964cd38f32c", _resolve_role_arn)
    replace(evaluator, "_first_match", "dc96ef4846c74212", lambda _: _first_match_with(evaluator))
    replace(evaluator, "_conditions_met", "15b4c24a03e3ff17", lambda original: _conditions_met_with(evaluator, original))


def _resolve_role_arn(original: Callable[..., Any]) -> Callable[..., Any]:
    def resolve(key: str, ctx: Any) -> Any:
        value = original(key, ctx)
        if key.lower() == "aws:principalarn" and isinstance(value, str) and ":assumed-role/" in value:
            return _role_arn(value)
        return value

    return resolve


def _role_arn(session_arn: str) -> str:
    iam = load("ministack.services.iam")
    _, partition, _, _, account, resource = session_arn.split(":", 5)
    name = resource.split("/")[1]
    role = iam._roles.get_scoped(account, None, name)
    return str((role or {}).get("Arn") or f"arn:{partition}:iam::{account}:role/{name}")


def _lookup(evaluator: Any, ctx: Any) -> Lookup:
    def find(key: str) -> str | None:
        value = evaluator._resolve_condition_key(key, ctx)
        return value if isinstance(value, str) else None

    return find


def _first_match_with(evaluator: Any) -> Callable[..., Any]:
    def first_match(ctx: Any, stmts: list[Any], effect: str) -> Any:
        for stmt in stmts:
            if (
                stmt.effect == effect
                and evaluator._action_matches(ctx.action, stmt.actions, stmt.not_actions)
                and _resource_matches(evaluator, ctx, stmt)
                and evaluator._conditions_met(stmt.conditions, ctx)
            ):
                return stmt
        return None

    return first_match


def _resource_matches(evaluator: Any, ctx: Any, stmt: Any) -> bool:
    def matches(resource: str) -> bool:
        if "${" not in resource:
            return bool(evaluator.fnmatch_iam_cs(ctx.resource_arn, resource))
        compiled = pattern(resource, _lookup(evaluator, ctx))
        return compiled is not None and compiled.fullmatch(ctx.resource_arn) is not None

    if stmt.resources:
        return any(matches(resource) for resource in stmt.resources)
    return not any(matches(resource) for resource in stmt.not_resources)


def _conditions_met_with(evaluator: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    def conditions_met(conditions: Any, ctx: Any) -> bool:
        if conditions and "${" in str(conditions):
            conditions = {operator: _expand_block(block, _lookup(evaluator, ctx)) for operator, block in conditions.items()}
        return bool(original(conditions, ctx))

    return conditions_met


def _expand_block(block: Any, lookup: Lookup) -> Any:
    if not isinstance(block, dict):
        return block
    expanded = {}
    for key, values in block.items():
        listed = values if isinstance(values, list) else [values]
        texts = [expand(value, lookup) if isinstance(value, str) else value for value in listed]
        expanded[key] = [text for text in texts if text is not None]
    return expanded
