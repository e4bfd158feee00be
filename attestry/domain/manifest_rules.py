"""What the manifest's fields must be to each other, beyond what a JSON Schema can say.

Each rule is a generator that reads the plain mapping, passes over what is missing or of the wrong type (the schema has
told that), and yields a finding for everything else that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from attestry.domain.cause import MAX_CHANGED
from attestry.domain.days import is_day
from attestry.domain.errors import InvalidInputError, Problem
from attestry.domain.manifest_executors import STAGES, Finding, check_environments, check_executors, check_resources
from attestry.domain.manifest_schema import describe_field, field_names, find_schema_problems, suggest
from attestry.domain.manifest_source import Path, SourceText, join_path
from attestry.domain.manifest_target import check_target
from attestry.domain.metric_parameters import parameters_of
from attestry.domain.metrics import METRIC_FUNCTIONS
from attestry.domain.names import find_broken_path_rule, fold_path
from attestry.domain.schedule import read_schedule

MAX_APPROVALS = 10
"""The most approvals that a policy may ask for in all."""


def find_problems(source: SourceText, *, draft: bool) -> list[Problem]:
    """Return everything that schema and rules have against the text's value.

    Args:
        source: a text whose value is a mapping.
        draft: allow that fields are missing which `complete_manifest` fills in.
    """
    problems = find_schema_problems(source, draft=draft)
    told = {problem.field for problem in (*problems, *source.problems)}
    for rule in _RULES:
        for path, name, message in rule(source.value):
            field = join_path(path)
            if field not in told:
                told.add(field)
                problems.append(Problem(field, name, message, source.line_of(path)))
    return problems


def split_field(name: str) -> tuple[str | int, ...]:
    """Return a dotted field name as path; `[]` becomes the index 0: `data.source[].licence` → `data, source, 0, licence`."""
    path: list[str | int] = []
    for part in name.split("."):
        key = part.removesuffix("[]")
        path.append(key)
        if key != part:
            path.append(0)
    return tuple(path)


def _check_paths(value: Any) -> Iterator[Finding]:
    """Files of the source archive are named by relative paths (`attestry.domain.names`, rule 3)."""
    fields: list[Path] = [("environment", "lock_file"), *((stage, "script") for stage in STAGES)]
    fields += [("data", "preparation", i, "script") for i, _ in _items(value, "data", "preparation")]
    for path in fields:
        text = _at(value, path, str)
        broken = find_broken_path_rule(text) if text is not None else None
        if broken is not None:
            yield path, broken.rule, broken.message


def _check_repository(value: Any) -> Iterator[Finding]:
    path: Path = ("source", "repository")
    url = _at(value, path, str)
    if url is None or "://" not in url:
        return
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or (parts.scheme in ("http", "https") and parts.username is not None)
    except ValueError:
        yield path, "pattern", "the URL cannot be read"
        return
    if secret:
        yield (path, "no_credentials", "the URL holds a user name or password; the manifest is kept for ever and read by many")


def _check_data_sources(value: Any) -> Iterator[Finding]:
    """Names and file names differ: processing finds all files in one folder."""
    names: dict[str, int] = {}
    file_names: dict[str, int] = {}
    for i, item in _items(value, "data", "source"):
        at: Path = ("data", "source", i)
        name, uri = item.get("name"), item.get("uri")
        if isinstance(name, str) and names.setdefault(name, i) != i:
            yield (*at, "name"), "unique", f"'{name}' is the name of data.source[{names[name]}] too"
        if not isinstance(uri, str):
            continue
        file_name = uri.rsplit("/", 1)[-1]
        broken = find_broken_path_rule(uri if not uri.startswith("s3://") else file_name)
        if broken is not None:
            yield (*at, "uri"), broken.rule, broken.message
        elif file_names.setdefault(fold_path(file_name), i) != i:
            yield (
                (*at, "uri"),
                "unique",
                f"has the same file name as data.source[{file_names[fold_path(file_name)]}] (NFC and case folded)",
            )
        if "version_id" in item and not uri.startswith("s3://"):
            yield (*at, "version_id"), "s3_only", "an uploaded file has no S3 version yet; leave this out"


def _check_prepared_data(value: Any) -> Iterator[Finding]:
    training, holdout = (_at(value, ("data", name, "channel"), str) for name in ("training", "holdout"))
    if training is not None and training == holdout:
        yield (("data", "holdout", "channel"), "unique", "is the training set's channel too: the hold-out must be a folder of its own")
    for name, channel in (("training", training), ("holdout", holdout)):
        if channel == "source":
            yield ("data", name, "channel"), "reserved", "'source' is the channel of the source data"
    steps: dict[str, int] = {}
    for i, item in _items(value, "data", "preparation"):
        step = item.get("name")
        if isinstance(step, str) and steps.setdefault(step, i) != i:
            yield ("data", "preparation", i, "name"), "unique", f"'{step}' is the name of data.preparation[{steps[step]}] too"


def _check_metrics(value: Any) -> Iterator[Finding]:
    task = _at(value, ("validation", "task"), str)
    has_score = _at(value, ("validation", "columns", "score"), str) is not None
    keys: dict[str, int] = {}
    for i, item in _items(value, "validation", "metrics"):
        at: Path = ("validation", "metrics", i)
        function = METRIC_FUNCTIONS.get(str(item.get("name")))
        if function is None:
            continue
        key = str(item.get("alias", function.name))
        if keys.setdefault(key, i) != i:
            yield (*at, "alias"), "unique", f"'{key}' is metric {keys[key] + 1} too; give one of them an alias"
        if task in ("classification", "regression") and function.task != task:
            yield ((*at, "name"), "task", f"'{function.name}' is a metric of {function.task}, and validation.task is {task}")
        elif function.reads == "score" and not has_score:
            yield (
                ("validation", "columns", "score"),
                "required",
                f"is missing: '{function.name}' reads scores; name the column of predict_fn's answer",
            )


def _check_metric_parameters(value: Any) -> Iterator[Finding]:
    """Metrics are called with what they take, so that it is not the evaluation, after hours of training, that refuses."""
    for i, item in _items(value, "validation", "metrics"):
        metric = str(item.get("name"))
        if metric not in METRIC_FUNCTIONS:
            continue
        at: Path = ("validation", "metrics", i, "parameters")
        known, given = parameters_of(metric), _at(item, ("parameters",), dict) or {}
        for name, parameter in known.items():
            if parameter.needed and name not in given:
                yield (*at, name), "required", f"is missing: '{metric}' takes {parameter.wanted} as '{name}'"
        for name, argument in given.items():
            if name not in known:
                hint = suggest(str(name), list(known))
                there = f" It takes: {', '.join(known)}" if known else " It takes none"
                yield (*at, name), "known_parameter", f"'{metric}' has no parameter '{name}'{hint or '.'}{there}"
            elif not known[name].accepts(argument):
                hint = suggest(argument, known[name].choices) if isinstance(argument, str) else ""
                yield (*at, name), "parameter_value", f"'{metric}' takes {known[name].wanted} as '{name}'{hint}"


def _check_gates(value: Any) -> Iterator[Finding]:
    named = [item for _, item in _items(value, "validation", "metrics")]
    known = {str(item.get("alias", item.get("name"))) for item in named}
    if any(item.get("name") not in METRIC_FUNCTIONS for item in named):
        known = set()
    for kind in ("metrics", "no_worse_than_deployed"):
        for i, item in _items(value, "gates", kind):
            metric = item.get("metric")
            if isinstance(metric, str) and known and metric not in known:
                hint = suggest(metric, sorted(known)) or ";"
                yield (
                    ("gates", kind, i, "metric"),
                    "declared",
                    f"'{metric}' is not in validation.metrics{hint} there are: {', '.join(sorted(known))}",
                )
    for i, item in _items(value, "gates", "metrics"):
        low, high = item.get("minimum"), item.get("maximum")
        if low is None and high is None:
            yield ("gates", "metrics", i, "minimum"), "required", "is missing: give a minimum, a maximum or both"
        elif _is_number(low) and _is_number(high) and _number(low) > _number(high):
            yield (("gates", "metrics", i, "maximum"), "order", f"the maximum {high} is less than the minimum {low}: nothing can pass")
    for i, item in _items(value, "gates", "no_worse_than_deployed"):
        if item.get("superior") is True and "confidence" not in item:
            yield ("gates", "no_worse_than_deployed", i, "superior"), "needs_confidence", "needs 'confidence': better by more than chance"
    for i, name in enumerate(_at(value, ("gates", "required"), list) or []):
        if isinstance(name, str) and describe_field(split_field(name)) is None:
            hint = suggest(name, field_names())
            yield ("gates", "required", i), "known_field", f"'{name}' is no field of a manifest{hint}"


_RECORD_LIMITS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(
        ("ab-test", "champion-challenger"), frozenset({"metric", "better", "p_value_at_most", "effect_at_least", "minimum_size"})
    ),
    "leakage-check": frozenset({"overlap_at_most"}),
    "schema-check": frozenset({"violations_at_most"}),
}
"""Kind of a validation record to what can be asked of it."""


def _check_records(value: Any) -> Iterator[Finding]:
    demands = list(_items(value, "gates", "records"))
    if demands and _at(value, ("approval", "automatic"), bool) is True:
        yield ("gates", "records"), "needs_people", "needs 'approval.people': an automatic approval waits for no record"
    for i, item in demands:
        known = _RECORD_LIMITS.get(str(item.get("kind")))
        if known is None:
            continue
        for name in sorted(item.keys() - known - {"kind"}):
            there = ", ".join(sorted(known))
            yield ("gates", "records", i, name), "not_with", f"is nothing that a {item['kind']} has; there are: {there}"
        if not item.keys() & (known - {"metric", "better"}):
            wanted = " or ".join(sorted(known - {"metric", "better"}))
            yield ("gates", "records", i, "kind"), "required", f"asks for nothing: give {wanted}"


def _check_approval(value: Any) -> Iterator[Finding]:
    approval = _at(value, ("approval",), dict)
    if approval is None:
        return
    automatic, people = approval.get("automatic") is True, "people" in approval
    if automatic == people:
        yield ("approval",), "one_of", "give either 'automatic: true' or 'people', not both and not neither"
    elif automatic and approval.get("signed") is True:
        yield ("approval", "signed"), "not_with", "has no meaning with 'automatic: true': there is nobody who could sign"
    elif automatic and _at(value, ("gates",), dict) is not None and not list(_items(value, "gates", "metrics")):
        yield (
            ("gates", "metrics"),
            "automatic_needs_gate",
            "automatic approval needs at least one metric gate; nobody else judges the version",
        )


def _check_people(value: Any) -> Iterator[Finding]:
    """People of the approval, and of each promotion that has one."""
    yield from _check_people_at(value, ("approval", "people"))
    for i, _ in _items(value, "deployment", "promotion"):
        yield from _check_people_at(value, ("deployment", "promotion", i, "people"))


def _check_people_at(value: Any, at: Path) -> Iterator[Finding]:
    """Either `roles` with a count, or `require` with a count for each role."""
    people = _at(value, at, dict)
    if people is None:
        return
    if ("roles" in people) == ("require" in people):
        yield at, "one_of", "give either 'roles', with 'count', or 'require', not both and not neither"
    elif "require" in people and "count" in people:
        yield (*at, "count"), "not_with", "has no meaning with 'require', where each role has a count of its own"
    elif "require" not in people and people.get("in_order") is True:
        yield (*at, "in_order"), "not_with", "has no meaning without 'require': there is one requirement alone"
    named: set[str] = set()
    asked = 0.0
    for i, item in _items(people, "require"):
        role = item.get("role")
        if isinstance(role, str) and role in named:
            yield (*at, "require", i, "role"), "unique", f"'{role}' is named twice; give it one count"
        named.add(str(role))
        asked += _number(item.get("count", 1))
    if asked > MAX_APPROVALS:
        yield (*at, "require"), "maximum", f"asks for {asked:.0f} approvals in all; at most {MAX_APPROVALS} are possible"


def _check_days(value: Any) -> Iterator[Finding]:
    """A day is one of the calendar."""
    promotions = [("deployment", "promotion", i, "until") for i, _ in _items(value, "deployment", "promotion")]
    for path in (("approval", "until"), ("deployment", "expires"), *promotions):
        text = _at(value, path, str)
        if text is not None and not is_day(text):
            yield path, "date", f"'{text:.20}' is no day of the calendar in the form YYYY-MM-DD"


def _check_deployment(value: Any) -> Iterator[Finding]:
    deployment = _at(value, ("deployment",), dict) or {}
    strategy = deployment.get("strategy", "all-at-once")
    for name in ("canary", "shadow"):
        if name in deployment and strategy != name:
            yield (
                ("deployment", name),
                "not_with",
                f"has no meaning with the strategy '{strategy}'; leave it out, or set 'strategy: {name}'",
            )
    steps = _at(value, ("deployment", "canary", "steps"), list) or []
    for i in range(1, len(steps)):
        if _is_number(steps[i - 1]) and _is_number(steps[i]) and _number(steps[i]) <= _number(steps[i - 1]):
            yield ("deployment", "canary", "steps", i), "order", f"the share {steps[i]} is not above {steps[i - 1]}: shares rise"
    first = deployment.get("environment", "production")
    for i, name in enumerate(_at(value, ("deployment", "promotes_to"), list) or []):
        if name == first:
            yield ("deployment", "promotes_to", i), "unique", f"'{name}' is the environment that the pipeline deploys to"
    yield from _check_promotion(value)


def _check_promotion(value: Any) -> Iterator[Finding]:
    """Each environment with an approval of its own is one that the version may be promoted to, and named once."""
    order = [name for name in _at(value, ("deployment", "promotes_to"), list) or [] if isinstance(name, str)]
    named: dict[str, int] = {}
    for i, item in _items(value, "deployment", "promotion"):
        to, at = item.get("to"), ("deployment", "promotion", i, "to")
        if not isinstance(to, str):
            continue
        if to not in order:
            hint = suggest(to, order)
            there = f"; there are: {', '.join(order)}" if order else "; there is none"
            yield at, "declared", f"'{to}' is not in deployment.promotes_to{hint or there}"
        elif named.setdefault(to, i) != i:
            yield at, "unique", f"'{to}' is the environment of deployment.promotion[{named[to]}] too"


def _check_reproduction(value: Any) -> Iterator[Finding]:
    reproduction = _at(value, ("reproduction",), dict) or {}
    if reproduction.get("bit_equal") is False and "tolerance" not in reproduction:
        yield (("reproduction", "tolerance"), "required", "is missing: where files may differ, say by how much metrics may")
    if reproduction.get("bit_equal") is True and "tolerance" in reproduction:
        yield ("reproduction", "tolerance"), "not_with", "has no meaning with 'bit_equal: true'; leave it out"


def _check_refresh(value: Any) -> Iterator[Finding]:
    refresh = _at(value, ("refresh",), dict)
    if refresh is None:
        return
    schedule = refresh.get("schedule")
    if isinstance(schedule, str):
        try:
            read_schedule(schedule)
        except InvalidInputError as error:
            yield ("refresh", "schedule"), "schedule", error.problems[0].message
    if refresh.get("data") is True and len(list(_items(value, "data", "source"))) > MAX_CHANGED:
        yield ("refresh", "data"), "few_sources", f"is for manifests with at most {MAX_CHANGED} source files"
    if _number(refresh.get("quiet_seconds")) and refresh.get("data") is not True:
        yield ("refresh", "quiet_seconds"), "not_with", "has no meaning without 'data: true'"
    if refresh.get("deploy") == "automatic":
        approval = _at(value, ("approval",), dict)
        if approval is not None and approval.get("automatic") is not True:
            yield (
                ("refresh", "deploy"),
                "automatic_approval",
                "'automatic' needs 'approval.automatic: true'; else people decide",
            )
        elif _at(value, ("gates",), dict) is not None and not list(_items(value, "gates", "no_worse_than_deployed")):
            yield (
                ("gates", "no_worse_than_deployed"),
                "automatic_needs_comparison",
                "refreshed versions that deploy themselves need at least one comparison with the deployed version",
            )


_RULES = (
    _check_paths,
    _check_repository,
    check_environments,
    check_executors,
    check_resources,
    _check_data_sources,
    _check_prepared_data,
    _check_metrics,
    _check_metric_parameters,
    _check_gates,
    _check_records,
    _check_approval,
    _check_people,
    _check_days,
    _check_deployment,
    check_target,
    _check_reproduction,
    _check_refresh,
)


def _at(value: Any, path: Path, kind: type) -> Any:
    """Return what lies at the path if it is of the kind, else None."""
    for part in path:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, kind) else None


def _items(value: Any, *path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield index and item of the mappings in a list."""
    for index, item in enumerate(_at(value, path, list) or []):
        if isinstance(item, Mapping):
            yield index, item


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else 0.0
