"""Who may do what: every action by every role, with and without scope, decided by the real policies."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestry.access.actions import ACTIONS, FIND, REGISTER, Resource
from attestry.access.engine import MAX_POLICY_BYTES, Engine, OnModel, OnRegistry, Target, check_policies, default_policies, schema_text
from attestry.access.reader import STALE_SECONDS, AccessReader
from attestry.access.rows import POLICIES_KEY, access_policy_key, grant_key, placement_key
from attestry.access.scopes import Placement, read_scope
from attestry.access.standing import Caller, Standing, standing_of
from attestry.access.warrant import Warrant
from attestry.api.operations import BY_ROUTE, OPERATIONS
from attestry.aws.guard import Guard
from attestry.aws.http import serve
from attestry.domain.catalogue import identity_of
from attestry.domain.errors import ForbiddenError, IntegrityError, InvalidInputError
from attestry.domain.principal import ROLES, Principal
from attestry.evidence.digests import sha256_hex
from attestry.ports import Put, When
from attestry.usecases.records import login_key
from tests.fakes import Faults, FixedClock, MemoryMetaStore

ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BY = {"method": "AWS_IAM SigV4"}
MODEL = "tumour-diagnosis"
PLACED = Placement({"tier": "low"}, "onco", "diagnostics")
HERE = ("registry", f"model/{MODEL}", "tag/tier=low", "project/onco", "unit/diagnostics")
ELSEWHERE = ("model/tumour", f"model/{MODEL}-2", "tag/tier=high", "tag/low=tier", "project/diagnostics", "unit/onco", "project/tier=low")

READERS = ("scientist", "validator", "approver", "deployer", "auditor", "admin")
EVERY = ROLES
OVERSEERS = ("auditor", "admin")
MAY: Mapping[str, tuple[str, ...]] = {
    "models.read": EVERY,
    "predictions.trace": EVERY,
    **dict.fromkeys(("rollouts.read", "versions.list", "versions.read", "versions.diff", "versions.log", "versions.data"), READERS),
    **dict.fromkeys(
        ("versions.files", "versions.packet", "versions.bundle", "refreshes.read", "conflicts.list", "predictions.bundle"), READERS
    ),
    "findings.list": READERS,
    "versions.load": EVERY,
    **dict.fromkeys(("aliases.list", "labels.read", "annotations.list", "models.search", "versions.search"), READERS),
    **dict.fromkeys(("models.create", "models.change", "models.delete", "models.tag", "models.untag"), ("scientist", "admin")),
    **dict.fromkeys(("versions.label", "versions.delete", "versions.tag", "versions.untag"), ("scientist", "admin")),
    **dict.fromkeys(("aliases.set", "aliases.delete"), ("scientist", "approver", "deployer", "admin")),
    "annotations.add": READERS,
    **dict.fromkeys(("runs.list", "runs.read", "runs.metrics"), ("scientist", "validator", "approver", "auditor", "admin")),
    **dict.fromkeys(("runs.start", "runs.change", "runs.log"), ("scientist",)),
    "versions.register": ("scientist",),
    "versions.import": ("scientist",),
    "versions.claim": ("scientist",),
    "versions.decide": ("validator", "approver"),
    "versions.validate": ("validator",),
    "versions.deploy": ("deployer",),
    "versions.promote": ("deployer",),
    "versions.retry": ("scientist", "deployer"),
    "versions.kill": ("approver", "deployer", "admin"),
    "versions.retire": ("deployer", "admin"),
    "versions.hold": ("validator", "approver", "deployer", "admin"),
    "versions.release": ("validator", "approver", "deployer", "admin"),
    "versions.redo": ("scientist", "validator", "admin"),
    "versions.preserve": ("validator", "approver", "auditor", "admin"),
    "versions.dispose": ("approver", "admin"),
    "versions.transition": ("scientist", "validator", "approver", "deployer", "admin"),
    "versions.reproduce": ("scientist", "validator", "deployer", "auditor"),
    "models.refresh": ("scientist", "deployer"),
    "models.rollback": ("deployer",),
    "models.capture": ("deployer", "admin"),
    "rollouts.change": ("deployer",),
    "conflicts.declare": ("validator", "approver", "admin"),
    "predictions.make": ("consumer",),
    "scorings.make": ("consumer",),
    **dict.fromkeys(("models.list", "ledger.read", "root.read", "predictions.find", "api.describe"), EVERY),
    **dict.fromkeys(("submissions.read", "policies.list", "policies.read"), READERS),
    "uploads.create": ("scientist",),
    "imports.create": ("scientist",),
    **dict.fromkeys(("lineage.walk", "compliance.review"), READERS),
    "policies.replay": ("validator", "approver", "auditor", "admin"),
    **dict.fromkeys(
        ("people.list", "audit.list", "audit.read", "access.list", "access.review", "access.policies", "access.placement"), OVERSEERS
    ),
    **dict.fromkeys(("people.add", "policies.publish", "root.keys", "root.publish"), ("admin",)),
    "webhooks.list": OVERSEERS,
    **dict.fromkeys(("webhooks.add", "webhooks.remove", "webhooks.rotate", "webhooks.ping"), ("admin",)),
    **dict.fromkeys(("access.grant", "access.withdraw", "access.place", "access.publish"), ("admin",)),
}
"""Action to the roles that may do it."""

ANYBODY = ("me.read", "access.check")
ANYWHERE = ("models.list", "ledger.read", "root.read", "predictions.find", "api.describe", "submissions.read", "policies.list")
ANYWHERE += ("policies.read", "uploads.create", "imports.create", "models.create", "models.search", "versions.search", "runs.list")
"""What a role may do wherever it counts."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


def schema_actions() -> dict[str, set[str]]:
    """Action to the kinds of resource that the schema lets it act on."""
    found: dict[str, set[str]] = {}
    for line in schema_text().replace("\n    ", " ").splitlines():
        if line.strip().startswith("action") and "appliesTo" in line:
            names = line.partition(" in [")[0].partition("appliesTo")[0].replace("action", "", 1)
            kinds = line.partition("resource: [")[2].partition("]")[0]
            found |= {name.strip(' "'): {kind.strip() for kind in kinds.split(",")} for name in names.split(",")}
    return found


ACTS = schema_actions()
ON_MODELS = sorted(name for name, kinds in ACTS.items() if "Model" in kinds)
ON_REGISTRY = sorted(name for name, kinds in ACTS.items() if "Registry" in kinds)


def holding(role: str, *places: str) -> Standing:
    return Standing("dana", "dana", {role: frozenset(places)}, governed=True)


PLACES = st.frozensets(st.sampled_from(("registry", "project/onco", "unit/lab", "tag/tier=low", f"model/{MODEL}")), min_size=1)
STANDINGS = st.builds(
    Standing,
    st.sampled_from(("dana", "erin")),
    st.sampled_from((None, "dana", "erin")),
    st.dictionaries(st.sampled_from(ROLES), PLACES, max_size=3),
)
TARGETS = st.one_of(
    st.just(OnRegistry()),
    st.builds(
        OnModel,
        st.sampled_from((MODEL, "tumour", "registry")),
        st.builds(Placement, st.sampled_from(({}, {"tier": "low"})), st.sampled_from(("", "onco")), st.sampled_from(("", "lab"))),
    ),
)
ADDED = """forbid (principal, action == Attestry::Action::"models.read", resource) when { principal.login == "erin" };
forbid (principal, action == Attestry::Action::"aliases.set", resource) when { context has alias && context.alias == "champion" };"""
KEPT = Engine((ADDED,))


@settings(max_examples=60)
@given(STANDINGS, st.sampled_from(("models.read", "aliases.set", "models.create")), TARGETS, st.sampled_from(("champion", "other", "")))
def test_a_decision_that_is_kept_is_the_one_that_the_same_facts_give_anew(
    standing: Standing, action: str, target: Target, alias: str
) -> None:
    context = {**BY, **({"alias": alias} if alias and action == "aliases.set" else {})}
    assert KEPT.decide(standing, action, target, context) == Engine((ADDED,)).decide(standing, action, target, context)


def test_whoever_differs_in_any_fact_is_decided_on_by_themselves() -> None:
    engine = Engine((ADDED,))
    held = {"scientist": frozenset({"registry"})}
    assert engine.decide(Standing("dana", "dana", held), "models.read", OnModel(MODEL), BY).allowed
    assert not engine.decide(Standing("erin", "dana", held), "models.read", OnModel(MODEL), BY).allowed
    for alias, may in (("champion", False), ("other", True)):
        assert engine.decide(Standing("dana", "dana", held), "aliases.set", OnModel(MODEL), {**BY, "alias": alias}).allowed is may
    inside = Standing("dana", "dana", {"scientist": frozenset({"project/onco"})}, governed=True)
    for project, may in (("onco", True), ("cardio", False)):
        assert engine.decide(inside, "models.read", OnModel(MODEL, Placement({}, project)), BY).allowed is may


def test_the_tables_name_the_same_actions() -> None:
    assert set(ACTS) == MAY.keys() | set(ANYBODY)
    native = {route: action.name for route, action in ACTIONS.items() if "/api/2.0/mlflow" not in route}
    assert {route: operation.id for route, operation in BY_ROUTE.items()} == native
    at_the_gateway = {o.id: set(o.roles) for o in OPERATIONS if o.id not in ANYBODY}
    # Who may not see audited acts is refused here and not by the gateway, so that the attempt is an audited act itself.
    assert at_the_gateway == {id_: set(EVERY if id_.startswith("audit.") else MAY[id_]) for id_ in at_the_gateway}
    assert {action.name for action in ACTIONS.values()} | {FIND, REGISTER} <= set(ACTS)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_acts_on_a_model_wherever_it_counts_for_it_and_nowhere_else(engine: Engine, role: str) -> None:
    model = OnModel(MODEL, PLACED)
    for action in ON_MODELS:
        may = role in MAY[action]
        assert {engine.decide(holding(role, place), action, model, BY).allowed for place in HERE} == {may}, action
        assert not engine.decide(holding(role, *ELSEWHERE), action, model, BY).allowed, action
        assert engine.decide(holding(role, *ELSEWHERE, HERE[1]), action, model, BY).allowed == may, action


@pytest.mark.parametrize("role", ROLES)
def test_a_role_acts_on_the_registry_where_it_counts_for_all_of_it(engine: Engine, role: str) -> None:
    for action in ON_REGISTRY:
        may = action in ANYBODY or role in MAY[action]
        assert engine.decide(holding(role, "registry"), action, OnRegistry(), BY).allowed == may, action
        scoped = engine.decide(holding(role, *HERE[1:]), action, OnRegistry(), BY).allowed
        assert scoped == (action in ANYBODY or (may and action in ANYWHERE)), action


def test_who_holds_no_role_may_ask_who_they_are_and_nothing_else(engine: Engine) -> None:
    targets: list[Target] = [OnModel(MODEL, PLACED), OnRegistry()]
    allowed = {action for action in ACTS for target in targets if engine.decide(Standing("nobody"), action, target, BY).allowed}
    assert allowed == set(ANYBODY)


def test_several_roles_may_together_what_each_may_where_it_counts(engine: Engine) -> None:
    standing = Standing("dana", "dana", {"scientist": frozenset({"project/onco"}), "approver": frozenset({"project/cardio"})})
    here, there = OnModel(MODEL, PLACED), OnModel("heart", Placement({}, "cardio"))
    for action in ON_MODELS:
        assert engine.decide(standing, action, here, BY).allowed == ("scientist" in MAY[action]), action
        assert engine.decide(standing, action, there, BY).allowed == ("approver" in MAY[action]), action


def test_the_default_policies_fit_the_schema_and_what_verified_permissions_takes_of_one_policy() -> None:
    text = "\n".join(default_policies().values())
    result = cedarpy.validate_policies(text, schema_text())
    assert result.validation_passed, result.errors
    parsed = json.loads(cedarpy.policies_to_json_str(text))
    assert not parsed["templates"]
    assert all(len(json.dumps(policy)) < MAX_POLICY_BYTES for policy in parsed["staticPolicies"].values())
    identifiers = [policy["annotations"]["id"] for policy in parsed["staticPolicies"].values()]
    assert len(set(identifiers)) == len(identifiers)


class TestAddedPolicies:
    """What an admin adds."""

    LOW_ALONE = """
    @id("capture-on-low-tiers-alone")
    forbid (principal, action == Attestry::Action::"models.capture", resource)
    unless { resource in Attestry::Scope::"tag/tier=low" };
    """

    def test_a_condition_on_a_tag_narrows_what_a_role_may(self) -> None:
        engine = Engine([check_policies(self.LOW_ALONE).text])
        deployer = holding("deployer", "registry")
        assert engine.decide(deployer, "models.capture", OnModel(MODEL, PLACED), BY).allowed
        refused = engine.decide(deployer, "models.capture", OnModel(MODEL, Placement({"tier": "high"})), BY)
        assert (refused.allowed, refused.policies) == (False, ("capture-on-low-tiers-alone",))

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            ("permit (principal, action, resource", "cedar"),
            ("", "required"),
            ('permit (principal == ?principal, action == Attestry::Action::"me.read", resource);', "no_templates"),
            ('permit (principal, action == Attestry::Action::"no.such", resource);', "schema"),
            ("permit (principal, action, resource) when { principal.roles.contains(1) };", "schema"),
            ('forbid (principal, action == Attestry::Action::"models.capture", resource) when { context.alias == "x" };', "schema"),
            ("permit (principal, action, resource);" + "// " + "x" * MAX_POLICY_BYTES, "size"),
        ],
    )
    def test_what_is_no_policy_of_the_schema_is_refused(self, text: str, rule: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            check_policies(text)
        assert caught.value.problems[0].rule == rule

    def test_a_policy_that_fails_while_it_is_evaluated_denies(self) -> None:
        failing = "forbid (principal, action, resource) when { 9223372036854775807 + 1 == 0 };"
        ruling = Engine([failing]).decide(holding("admin", "registry"), "people.list", OnRegistry(), BY)
        assert not ruling.allowed
        assert ruling.errors


class TestStanding:
    """What somebody holds."""

    ERIN = Principal("arn", "AROA:erin", "aws:123456789012", "AWS_IAM SigV4", "", "erin", ("approver",))

    def row(self, *grants: tuple[str, str, str]) -> dict[str, Any]:
        return {"grants": [{"role": role, "scope": scope, "until": until} for role, scope, until in grants]}

    def test_without_any_grant_the_iam_role_counts_everywhere(self) -> None:
        standing = standing_of(Caller(self.ERIN), "erin", (None, None), AT)
        assert (standing.scopes, standing.governed) == ({"approver": frozenset({"registry"})}, False)

    def test_grants_narrow_the_iam_role(self) -> None:
        rows = (self.row(("approver", "model/a", "")), self.row(("approver", "tag/tier=low", "")))
        assert standing_of(Caller(self.ERIN), "erin", rows, AT).scopes == {"approver": frozenset({"model/a", "tag/tier=low"})}

    def test_a_grant_of_another_role_than_the_sessions_does_not_count_in_it(self) -> None:
        assert standing_of(Caller(self.ERIN), "erin", (self.row(("admin", "registry", "")), None), AT).roles == ()

    def test_where_the_platform_says_nothing_of_roles_all_that_is_granted_counts(self) -> None:
        granted = self.row(("admin", "registry", ""), ("scientist", "model/a", ""))
        assert standing_of(Caller(self.ERIN, walled=False), "erin", (granted,), AT).roles == ("scientist", "admin")

    @pytest.mark.parametrize(
        "row", [{"grants": []}, {"grants": [{"role": "approver", "scope": "registry", "until": "2026-01-02T03:04:05.000000Z"}]}]
    )
    def test_a_grant_that_has_ended_leaves_nothing_and_not_the_whole_role(self, row: dict[str, Any]) -> None:
        assert standing_of(Caller(self.ERIN), "erin", (row, None), AT).scopes == {}

    def test_roles_count_where_they_were_granted(self) -> None:
        standing = Standing("erin", "erin", {"approver": frozenset({"model/a"}), "validator": frozenset({"model/b"})})
        assert standing.roles_in(OnModel("a").places) == ("approver",)


@pytest.mark.parametrize("scope", ["registry", "model/a", "tag/tier=low", "project/onco.1", "unit/diagnostics_eu"])
def test_a_scope_is_one_of_five_forms(scope: str) -> None:
    assert read_scope(scope) == scope


def test_the_scope_of_a_model_is_kept_by_its_identity_whichever_of_its_names_is_said() -> None:
    assert read_scope("model/Iris_v2") == f"model/{identity_of('Iris_v2')}" != "model/Iris_v2"


@pytest.mark.parametrize(
    "scope", ["", None, "Registry", "model/", "model/a/b", "tag/low", "tag/=low", "tag/a=", "role/admin", 'model/"a', "*"]
)
def test_what_is_no_scope_is_refused(scope: object) -> None:
    with pytest.raises(InvalidInputError):
        read_scope(scope)


class Scene:
    """A table, and a caller at its gate."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.meta = MemoryMetaStore(self.faults)
        self.now = 1000.0
        self.reader = AccessReader(self.meta, lambda: self.now)

    def put(self, key: Any, item: dict[str, Any]) -> None:
        self.meta.transact([Put(key, item, When())])

    def grant(self, subject: str, *grants: tuple[str, str]) -> None:
        self.put(grant_key(subject), {"grants": [{"role": role, "scope": scope, "until": ""} for role, scope in grants]})

    def ask(self, route: str, model: str | None = MODEL, role: str = "approver", login: str = "erin") -> Principal:
        by = Principal("arn", f"AROA:{login}", "aws:123456789012", "AWS_IAM SigV4", "", login, (role,))
        return Warrant.for_route(self.reader, Caller(by), route, AT).admit(model)


DECIDE = "POST /v1/models/{model}/versions/{number}/decision"
SHOW = "GET /v1/models/{model}"


class TestTheGate:
    """What is read for a decision, and what follows from it."""

    def test_a_scoped_approver_decides_on_no_other_model(self) -> None:
        scene = Scene()
        scene.grant("login/erin", ("approver", f"model/{MODEL}"))
        assert scene.ask(DECIDE).roles == ("approver",)
        with pytest.raises(ForbiddenError) as caught:
            scene.ask(DECIDE, "another")
        assert "versions.decide on the model another takes the role validator or approver" in caught.value.message
        assert caught.value.details["login"] == "erin"

    def test_what_is_granted_to_the_person_counts_for_every_login_of_theirs(self) -> None:
        scene = Scene()
        scene.put(login_key("erin@work"), {"person": "erin"})
        scene.grant("person/erin", ("approver", "model/a"))
        assert scene.ask(DECIDE, "a", login="erin@work").person == "erin"
        with pytest.raises(ForbiddenError):
            scene.ask(DECIDE, "b", login="erin@work")

    def test_what_is_granted_to_a_person_of_the_same_name_is_not_that_of_a_login_which_is_not_theirs(self) -> None:
        scene = Scene()
        scene.grant("person/erin", ("approver", "model/a"))
        assert scene.ask(DECIDE, "b").person is None

    def test_a_model_counts_as_tagged_only_where_it_was_placed(self) -> None:
        scene = Scene()
        scene.grant("login/erin", ("approver", "tag/tier=low"))
        scene.put(login_key("none"), {"person": "none"})
        scene.put(grant_key("x"), {"grants": []})
        with pytest.raises(ForbiddenError):
            scene.ask(DECIDE)
        # What the model's own row says of it is written by those who make versions.
        from attestry.usecases.records import model_key

        scene.put(model_key(MODEL), {"model": MODEL, "tags": {"tier": "low"}, "labels": {"tier": "low"}, "risk_tier": "low"})
        with pytest.raises(ForbiddenError):
            scene.ask(DECIDE)
        scene.put(placement_key(MODEL), PLACED.to_item())
        assert scene.ask(DECIDE).roles == ("approver",)

    def test_an_act_is_decided_on_the_rows_of_now_and_a_read_on_those_of_a_moment_ago(self) -> None:
        scene = Scene()
        scene.ask(SHOW)
        scene.grant("login/erin", ("approver", "model/a"))
        scene.ask(SHOW)
        with pytest.raises(ForbiddenError):
            scene.ask(DECIDE)

    @pytest.mark.parametrize("route", [SHOW, "POST /v1/models/{model}/predictions"])
    def test_a_withdrawn_grant_counts_for_as_long_as_is_said_and_no_longer(self, route: str) -> None:
        scene = Scene()
        scene.grant("login/gil", ("consumer", f"model/{MODEL}"))
        scene.ask(route, role="consumer", login="gil")
        scene.grant("login/gil")
        scene.now += STALE_SECONDS - 0.1
        scene.ask(route, role="consumer", login="gil")
        scene.now += 0.2
        with pytest.raises(ForbiddenError):
            scene.ask(route, role="consumer", login="gil")

    def test_a_warm_prediction_reads_nothing(self) -> None:
        scene = Scene()
        scene.put(login_key("gil"), {"person": "gil"})
        ask = "POST /v1/models/{model}/predictions"
        scene.ask(ask, role="consumer", login="gil")
        first = len(scene.faults.calls)
        scene.ask(ask, role="consumer", login="gil")
        assert len(scene.faults.calls) == first

    def test_an_act_takes_one_round_trip(self) -> None:
        scene = Scene()
        scene.put(login_key("erin"), {"person": "erin"})
        scene.faults.calls.clear()
        scene.ask(DECIDE)
        assert scene.faults.calls == ["MemoryMetaStore.get_many"]

    def test_an_added_policy_that_is_not_what_was_published_lets_nobody_through(self) -> None:
        scene, text = Scene(), TestAddedPolicies.LOW_ALONE
        scene.put(POLICIES_KEY, {"policies": {"low": {"number": 1, "sha256": sha256_hex(text.encode())}}})
        with pytest.raises(IntegrityError):
            scene.ask(SHOW)
        scene.put(access_policy_key("low", 1), {"text": text.replace("unless", "when")})
        with pytest.raises(IntegrityError):
            scene.ask(DECIDE)
        scene.put(access_policy_key("low", 1), {"text": text})
        scene.ask(DECIDE)
        with pytest.raises(ForbiddenError) as caught:
            scene.ask("POST /v1/models/{model}/capture", role="deployer")
        assert "forbidden by the policy capture-on-low-tiers-alone" in caught.value.message

    def test_a_route_that_is_no_action_is_let_to_nobody(self) -> None:
        with pytest.raises(ForbiddenError):
            Scene().ask("POST /v1/models/{model}/everything", role="admin")

    def test_what_is_answered_about_a_model_that_nobody_asked_for_does_not_leave(self) -> None:
        scene = Scene()
        by = Principal("arn", "AROA:erin", "aws:123456789012", "AWS_IAM SigV4", "", "erin", ("approver",))
        warrant = Warrant.for_route(scene.reader, Caller(by), "GET /v1/predictions/{id}/trace", AT)
        warrant.admit(None)
        with pytest.raises(RuntimeError, match="without a decision"):
            warrant.require_settled()
        warrant.require(MODEL)
        warrant.require_settled()

    def test_a_scoped_reader_finds_no_prediction_of_another_model(self) -> None:
        scene = Scene()
        scene.grant("login/erin", ("approver", "model/a"))
        by = Principal("arn", "AROA:erin", "aws:123456789012", "AWS_IAM SigV4", "", "erin", ("approver",))
        warrant = Warrant.for_route(scene.reader, Caller(by), "GET /v1/predictions/{id}/trace", AT)
        warrant.admit(None)
        with pytest.raises(ForbiddenError):
            warrant.require(MODEL)
        assert warrant.require("a").roles == ("approver",)

    def test_a_list_shows_a_scoped_reader_their_models_alone(self) -> None:
        scene = Scene()
        scene.grant("login/erin", ("approver", "model/a"), ("approver", "project/onco"))
        scene.put(placement_key(MODEL), PLACED.to_item())
        by = Principal("arn", "AROA:erin", "aws:123456789012", "AWS_IAM SigV4", "", "erin", ("approver",))
        warrant = Warrant.for_route(scene.reader, Caller(by), "GET /v1/models", AT)
        warrant.admit(None)
        assert warrant.may("models.read", ["a", "b", MODEL]) == ["a", MODEL]


UNGUARDED = ("describe",)
"""Serves one text that is the same for everybody, and has no rights."""

SERVING = sorted(path for path in (ROOT / "lambdas").glob("*.py") if "return serve(" in path.read_text())


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.stem)
def test_every_function_that_serves_routes_has_the_gate_before_them_and_every_route_is_an_action(path: Path) -> None:
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "serve"]
    assert calls
    for call in calls:
        guards = [keyword.value for keyword in call.keywords if keyword.arg == "guard"]
        assert [ast.unparse(guard) for guard in guards] == ["None" if path.stem in UNGUARDED else "world.guard"]
        served: Mapping[str, Any] = getattr(importlib.import_module(f"lambdas.{path.stem}"), ast.unparse(call.args[2]))
        assert served.keys() <= ACTIONS.keys()


def test_a_route_that_the_gate_refuses_never_reaches_its_function() -> None:
    scene, reached = Scene(), list[str]()
    guard = Guard(scene.meta, FixedClock(AT), account="123456789012", prefix="attestry")
    for route, action in ACTIONS.items():
        if action.name in ANYBODY:
            continue
        identity = {"userArn": "arn:aws:iam::123456789012:user/erin", "userId": "AIDA"}
        event = {
            "routeKey": route,
            "pathParameters": {"model": MODEL, "number": "1", "id": "x"},
            "requestContext": {"requestId": "r", "authorizer": {"iam": identity}},
        }
        answer = serve(event, None, {route: lambda request: reached.append(request.route)}, guard=guard)
        assert answer["statusCode"] == 403, route
    assert not reached


def test_an_action_on_a_model_has_a_path_that_names_it() -> None:
    for route, action in ACTIONS.items():
        assert ("{model}" in route) == (action.resource is Resource.MODEL), route
        kinds = ACTS[action.name]
        wanted = {
            Resource.MODEL: {"Model"},
            Resource.REGISTRY: {"Registry"},
            Resource.NAMED: {"Model", "Registry"},
            Resource.LATER: {"Model"},
        }
        assert kinds == wanted[action.resource], route
