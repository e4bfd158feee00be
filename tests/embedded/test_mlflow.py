"""MLflow's own client against the deployed registry, in a governed and in an open model; tracking is a server of MLflow's own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from attestry.local.issuer import issue
from tests.embedded.flows import Registry, until
from tests.mlflow_environment import run, tracking_server

pytest_plugins = ("tests.embedded.flows",)
pytestmark = [pytest.mark.embedded, pytest.mark.xdist_group("embedded")]

FUNCTION = "attestry-mlflow"
SECONDS = 240


@dataclass(frozen=True)
class Story:
    """What MLflow's code saw.

    Attributes:
        governed, open: names of the two models; each was made through MLflow while the deployment said so.
        by_token: name of the model that was made with a bearer token.
        seen: what each act of `tests/mlflow/client.py` returned, by `ACT:MODEL`.
    """

    governed: str
    open: str
    by_token: str
    seen: dict[str, dict[str, Any]]

    def of(self, act: str, name: str) -> dict[str, Any]:
        """What an act saw of a model."""
        return self.seen[f"{act}:{name}"]


@pytest.fixture(scope="module")
def story(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """MLflow's code as a data scientist runs it, through the plugin and then as it comes, and then as a deployer runs it."""
    suffix = uuid.uuid4().hex[:8]
    governed, free = f"Iris_{suffix}", f"open-{suffix}"
    with tracking_server(tmp_path_factory.mktemp("tracking")) as tracking:
        with _policy(registry, "open"):
            made = registry.call("dana", "POST", "/api/2.0/mlflow/registered-models/create", {"name": free})
            assert made.status == 200, made.raw
        shared = {"TRACKING": tracking, "HOME": str(registry.folder), "ATTESTRY_API_URL": registry.stack.api_url}
        shared["MLFLOW_REGISTRY_URI"] = "attestry://"
        acts = {
            "dana": (
                f"register:{governed}",
                f"move:{governed}",
                f"register:{free}",
                f"free:{free}",
                "plain",
                f"use:{governed}",
                f"steal:{governed}",
            ),
            "frank": ("plain", f"retire:{governed}"),
        }
        seen: dict[str, dict[str, Any]] = {}
        for profile, words in acts.items():
            printed = run("client.py", *words, environment={**registry.stack.environment(profile), **shared}, seconds=SECONDS)
            seen |= json.loads(printed.splitlines()[-1])
        # A process without any AWS credentials: the plugin with its token, and then MLflow's client as it comes, with its own variable.
        data = registry.stack.data
        tokens = {"ATTESTRY_TOKEN": issue(data, "olga", ["scientist"]), "FORGED": issue(data, "olga", ["scientist"], aud="payroll")}
        words = (f"bring:by-token-{suffix}", "bearer", f"hold:by-token-{suffix}", f"others:{governed}")
        printed = run("client.py", *words, environment={**tokens, **shared}, seconds=SECONDS)
        seen |= json.loads(printed.splitlines()[-1])
    return Story(governed, free, f"by-token-{suffix}", seen)


@contextmanager
def _policy(registry: Registry, value: str) -> Iterator[None]:
    """Deploy with another `--mlflow-policy` for a while: what the template would give the function."""
    functions = registry.aws("lambda")
    before = functions.get_function_configuration(FunctionName=FUNCTION)["Environment"]["Variables"]

    def configure(variables: dict[str, str]) -> None:
        functions.update_function_configuration(FunctionName=FUNCTION, Environment={"Variables": variables})
        until(lambda: functions.get_function_configuration(FunctionName=FUNCTION)["LastUpdateStatus"] == "Successful", "it was updated", 60)

    configure({**before, "ATTESTRY_MLFLOW_POLICY": value})
    try:
        yield
    finally:
        configure(before)


def test_mlflow_registers_in_each_of_its_ways_and_loads_what_it_registered(story: Story) -> None:
    made = story.of("register", story.governed)
    assert (made["numbers"], made["status"], made["loaded"]) == ([1, 2, 3], ["READY"] * 3, True)
    assert made["stages"] == ["None"] * 3
    assert made["runs"][1] == made["run"]
    assert all(made["logged"] in source for source in made["sources"])
    assert made["tags"] == {"from": "run"}


def test_mlflow_promotes_and_deletes_nothing_of_a_governed_model(story: Story) -> None:
    moved = story.of("move", story.governed)
    assert moved["moved"][0] == "None"
    assert "governed, so nothing was moved" in moved["moved"][1]
    assert (moved["archived"], moved["deleted"]) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert (moved["renamed"], moved["gone"]) == ("RESOURCE_CONFLICT", "RESOURCE_CONFLICT")
    assert moved["stages"] == {"1": "None", "2": "None", "3": "None"}


def test_mlflows_client_as_it_comes_finds_describes_and_loads_and_registers_what_is_its_callers_own_alone(story: Story) -> None:
    assert set(story.of("steal", story.governed)) == {"INVALID_PARAMETER_VALUE"}
    used = story.of("use", story.governed)
    assert used["alias"] == ["1", ["champion"], "the first", {"reviewed": "yes & no = maybe"}]
    assert used["model"] == ["sorts irises", {"team": "bio"}, {"champion": "1"}]
    assert (used["found"], used["tagged"], used["paged"]) == ([2, 1], [story.governed], [1, 2, 3])
    assert (used["loaded"], used["uri"]) == (True, "http:")
    assert used["again"] == "RESOURCE_ALREADY_EXISTS"
    assert (used["missing"], used["unknown"]) == ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def test_who_may_retire_deletes_a_version_of_a_governed_model_and_it_is_retired_and_loaded_no_more(story: Story) -> None:
    retired = story.of("retire", story.governed)
    assert retired["stage"] == "Archived"
    assert "retired at" in retired["message"]
    assert retired["load"]


def test_an_open_model_has_mlflows_own_semantics(story: Story) -> None:
    assert story.of("register", story.open)["numbers"] == [1, 2, 3]
    free = story.of("free", story.open)
    assert free["stages"] == {"1": "Archived", "2": "Archived", "3": "Production"}
    assert free["latest"] == {"Archived": "2", "Production": "3"}
    assert (free["versions"], free["loaded"]) == ([1, 3], True)
    assert (free["alias"], free["taken"]) == ("INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE")
    # A name that is the model's identity leads to it after a renaming as well.
    assert (free["old"], free["gone"]) == ("", "RESOURCE_DOES_NOT_EXIST")


def test_mlflow_s_client_as_it_comes_does_all_of_it_with_a_bearer_token_and_no_aws_credentials(story: Story) -> None:
    assert story.of("bring", story.by_token) == {"number": 1, "status": "READY", "loaded": True}
    held = story.of("hold", story.by_token)
    assert held["version"] == ["1", ["champion"], {"reviewed": "yes & no = maybe"}, "oidc:local:olga"]
    assert (held["found"], held["stage"], held["loaded"]) == ([1], "None", True)
    assert held["uri"].endswith(f"/oidc/api/2.0/mlflow-artifacts/artifacts/models/{story.by_token}/1")
    assert (held["missing"], held["denied"], held["webhook"]) == ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "PERMISSION_DENIED")
    assert held["forged"]


def test_the_token_shows_what_others_made_with_signatures(story: Story) -> None:
    assert story.of("others", story.governed) == {"alias": "1", "loaded": True}
