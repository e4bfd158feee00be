"""MLflow's own client against the deployed registry, in a governed and in an open model; tracking is on sqlite, elsewhere."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from attestry.local.stack import LocalStack
from tests.mlflow_environment import mlflow_python, run

pytestmark = [pytest.mark.embedded, pytest.mark.long, pytest.mark.xdist_group("embedded")]

FUNCTION = "attestry-mlflow"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where runs and logged models are: a database of MLflow's own."""
    mlflow_python()
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/runs.db"


@pytest.fixture
def client(stack: LocalStack, tracking: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run acts of `tests/mlflow/client.py` as somebody, through the plugin or with MLflow's client as it comes."""

    def act(profile: str, name: str, *acts: str, plain: bool = False) -> dict[str, Any]:
        environment = {**stack.environment(profile), "TRACKING": tracking, "HOME": str(tmp_path), "ATTESTRY_API_URL": stack.api_url}
        if plain:
            environment |= {"MLFLOW_REGISTRY_URI": stack.api_url, "MLFLOW_TRACKING_AUTH": "attestry"}
        else:
            environment |= {"MLFLOW_REGISTRY_URI": "attestry://"}
        told: dict[str, Any] = json.loads(run("client.py", name, *acts, environment=environment).splitlines()[-1])
        return told

    return act


@pytest.fixture
def policy(stack: LocalStack, session_for: Callable[[str], boto3.Session]) -> Callable[[str], None]:
    """Deploy with another `--mlflow-policy`: what the template would give the function."""
    functions = session_for("root").client("lambda") if "root" in stack.profiles else _root(stack)

    def change(value: str) -> None:
        found = functions.get_function_configuration(FunctionName=FUNCTION)["Environment"]["Variables"]
        functions.update_function_configuration(
            FunctionName=FUNCTION, Environment={"Variables": {**found, "ATTESTRY_MLFLOW_POLICY": value}}
        )

    return change


def _root(stack: LocalStack) -> Any:
    from attestry.local.stack import _services

    return _services(stack.endpoint_url, stack.data.prepare()).client("lambda")


def test_mlflow_registers_finds_and_loads_versions_of_a_governed_model_and_promotes_nothing(client: Callable[..., dict[str, Any]]) -> None:
    name = f"Iris_{uuid.uuid4().hex[:8]}"
    by_plugin = client("dana", name, "register", "move")
    made = by_plugin["register"]
    assert (made["numbers"], made["status"], made["loaded"]) == ([1, 2, 3], ["READY"] * 3, True)
    assert made["stages"] == ["None"] * 3
    assert made["runs"][1] == made["run"]
    assert all(made["logged"] in source for source in made["sources"])
    assert made["tags"] == {"from": "run"}
    moved = by_plugin["move"]
    assert moved["moved"][0] == "None"
    assert "governed, so nothing was moved" in moved["moved"][1]
    assert (moved["archived"], moved["deleted"]) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert (moved["renamed"], moved["gone"]) == ("RESOURCE_CONFLICT", "RESOURCE_CONFLICT")
    assert moved["stages"] == {"1": "None", "2": "None", "3": "None"}

    by_itself = client("dana", name, "use", "steal", plain=True)
    assert set(by_itself["steal"]) == {"INVALID_PARAMETER_VALUE"}
    used = by_itself["use"]
    assert used["alias"] == ["1", ["champion"], "the first", {"reviewed": "yes & no = maybe"}]
    assert used["model"] == ["sorts irises", {"team": "bio"}, {"champion": "1"}]
    assert (used["found"], used["tagged"], used["paged"]) == ([2, 1], [name], [1, 2, 3])
    assert (used["loaded"], used["uri"]) == (True, "http:")
    assert used["again"] == "RESOURCE_ALREADY_EXISTS"
    assert (used["missing"], used["unknown"]) == ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")

    retired = client("frank", name, "retire", plain=True)["retire"]
    assert retired["stage"] == "Archived"
    assert "retired at" in retired["message"]
    assert retired["load"]


def test_an_open_model_has_mlflows_own_semantics(client: Callable[..., dict[str, Any]], policy: Callable[[str], None]) -> None:
    name = f"open-{uuid.uuid4().hex[:8]}"
    policy("open")
    try:
        told = client("dana", name, "register", "free")
    finally:
        policy("governed")
    assert told["register"]["numbers"] == [1, 2, 3]
    free = told["free"]
    assert free["stages"] == {"1": "Archived", "2": "Archived", "3": "Production"}
    assert free["latest"] == {"Archived": "2", "Production": "3"}
    assert (free["versions"], free["loaded"]) == ([1, 3], True)
    assert (free["alias"], free["taken"]) == ("INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE")
    # A name that is the model's identity leads to it after a renaming as well.
    assert (free["old"], free["gone"]) == ("", "RESOURCE_DOES_NOT_EXIST")
