"""Runs go from their folders to the registry: by the command line and by themselves, through the client and the real handlers."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import boto3
import pytest
from click.testing import Result
from typer.testing import CliRunner

import attestry
from attestry.access.rows import grant_key
from attestry.cli.main import make_app
from attestry.client import runs_push
from attestry.client.api import RegistryClient
from attestry.client.errors import ApiError
from attestry.client.runs_compare import compare_runs
from attestry.client.runs_push import RunPusher
from attestry.domain.errors import InvalidInputError, NotFoundError
from attestry.domain.search_index import CREATED, VERSIONS, Lane
from attestry.ports import Key, Put, When
from attestry.sdk import run_sender
from attestry.sdk.runs import Run, RunWarning
from tests.api_world import ApiWorld

EXPERIMENT = "tumour-diagnosis"
Verb = Callable[..., Result]


class Quiet(WSGIRequestHandler):
    """Says nothing of each request."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Served:
    """The registry on a port of this machine, for one login; so many requests as `down` says get no answer after they were done."""

    def __init__(self, world: ApiWorld) -> None:
        self.world, self.who, self.down = world, "scientist/dana", 0
        self.asked: list[str] = []
        self.server: WSGIServer = make_server("127.0.0.1", 0, self.application, handler_class=Quiet)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ = {**environ, "HTTP_X_WHO": self.who, "wsgi.input": _Body(environ["wsgi.input"].read(length))}
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        answer = self.world.application(environ, start_response if not self.down else lambda *_: None)
        if self.down:
            self.down -= 1
            start_response("504 Gateway Timeout", [("Content-Type", "application/json")])
            return [b'{"message": "no answer"}']
        return answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def client(self, url: str = "") -> RegistryClient:
        session = boto3.Session(aws_access_key_id="AKIAX", aws_secret_access_key="x", region_name="eu-central-1")
        return RegistryClient(session, url or self.url, patience_seconds=0)


class _Body:
    def __init__(self, raw: bytes) -> None:
        self.read = lambda: raw


@pytest.fixture(scope="module")
def made() -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        served = Served(ApiWorld.install(patch))
        # The handlers' log begins here, on the output of this moment, and not on that of a command.
        served.world.call("GET", "/v1/me")
        yield served
        served.server.shutdown()


@pytest.fixture
def served(made: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    made.who, made.down, made.asked = "scientist/dana", 0, []
    given = {"ACCESS_KEY_ID": "AKIAX", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "eu-central-1", "EC2_METADATA_DISABLED": "true"}
    for name, value in {**{f"AWS_{name}": value for name, value in given.items()}, "ATTESTRY_API_URL": made.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return made


@pytest.fixture
def run(served: Served) -> Verb:
    return lambda *words: CliRunner().invoke(make_app(), ["runs", *map(str, words)])


def train(tmp_path: Path, points: int = 3, **said: Any) -> Run:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "model.txt").write_text("weights")
    with attestry.start_run(EXPERIMENT, folder=tmp_path / "runs", **said) as run:
        for step in range(points):
            run.log_metric("loss", 1 / (step + 1), step=step)
        run.log_file(tmp_path / "model.txt")
    return run


def test_a_run_is_pushed_listed_shown_and_its_metric_read(run: Verb, tmp_path: Path) -> None:
    trained = train(tmp_path, parameters={"C": 0.1}, tags={"team": "oncology"})
    pushed = run("push", trained.folder, "--json")
    assert pushed.exit_code == 0, pushed.output
    assert json.loads(pushed.stdout) == {"run": trained.id, "state": "FINISHED", "points": 3, "sent": 3}
    assert json.loads(run("push", trained.folder, "--json").stdout)["sent"] == 0
    assert trained.id in run("list", "--experiment", EXPERIMENT).stdout
    shown = json.loads(run("show", trained.id, "--json").stdout)
    assert (shown["parameters"], shown["tags"], shown["graded"]) == ({"C": "0.1"}, {"team": "oncology"}, "claimed")
    assert shown["files"]["model.txt"]["size"] == 7
    assert shown["environment"]["packages"]["pytest"] == pytest.__version__
    assert "claimed by dana" in run("show", trained.id).stdout
    history = json.loads(run("metrics", trained.id, "loss", "--json").stdout)
    assert [(p["step"], p["value"]) for p in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]


def test_a_push_that_was_cut_off_goes_on_where_the_registry_stands(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_push, "BATCH_POINTS", 4)
    trained, client = train(tmp_path, 10), served.client()
    whole = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    cut = RunPusher(trained.folder)
    (trained.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in [*whole[:6], {"name": "loss"}]))
    with pytest.raises(InvalidInputError):
        cut.push(client)
    (trained.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in whole))
    assert (client.run(trained.id)["points"], RunPusher(trained.folder).push(client).sent) == (4, 6)
    shown = client.run(trained.id)
    assert (shown["points"], shown["batches"], shown["state"]) == (10, 3, "FINISHED")
    assert [p["step"] for p in client.run_metric(trained.id, "loss")] == list(range(10))


@pytest.mark.parametrize("lost", range(4))
def test_whichever_answer_is_lost_each_point_counts_once(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(runs_push, "BATCH_POINTS", 2)
    monkeypatch.setattr("attestry.client.connection._CONNECTION_TRIES", 1)
    trained, client = train(tmp_path, 4), served.client()
    whole = served.world.application

    def losing(environ: Any, start_response: Any) -> list[bytes]:
        served.down = int(len(served.asked) == lost + 1)
        return whole(environ, start_response if not served.down else lambda *_: None)

    monkeypatch.setattr(served.world, "application", losing)
    with pytest.raises(ApiError):
        RunPusher(trained.folder).push(client)
    RunPusher(trained.folder).push(client)
    shown = client.run(trained.id)
    assert (shown["points"], shown["batches"], shown["state"]) == (4, 2, "FINISHED")


def test_two_who_push_the_same_folder_send_each_point_once(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_push, "BATCH_POINTS", 3)
    running = attestry.start_run(EXPERIMENT, folder=tmp_path)
    for step in range(9):
        running.log_metric("loss", step, step=step)
    first, second, client = RunPusher(running.folder), RunPusher(running.folder), served.client()
    first.push(client)
    running.log_metric("loss", 9, step=9)
    second.push(client)
    running.log_metric("loss", 10, step=10)
    assert first.push(client).sent == 1, "the first finds out that the second was faster"
    running.end()
    first.push(client)
    assert [p["step"] for p in client.run_metric(running.id, "loss")] == list(range(11))


def test_what_was_killed_keeps_its_points_and_is_ended_by_who_says_why(run: Verb, served: Served, tmp_path: Path) -> None:
    killed = attestry.start_run(EXPERIMENT, folder=tmp_path)
    killed.log_metric("loss", float("nan"))
    with (killed.folder / "metrics.jsonl").open("a") as file:
        file.write('{"name": "loss", "val')
    assert json.loads(run("push", killed.folder, "--json").stdout)["state"] == "RUNNING"
    assert json.loads(run("push", killed.folder, "--failed", "power cut", "--json").stdout)["state"] == "FAILED"
    shown = served.client().run(killed.id)
    assert (shown["points"], shown["metrics"]["loss"]["value"], shown["error"]) == (1, "NaN", "power cut")


def test_a_long_reason_of_a_failure_keeps_no_run_from_its_end(served: Served, tmp_path: Path) -> None:
    run = attestry.start_run(EXPERIMENT, folder=tmp_path)
    run.end("out of memory: " + "x" * 9000)
    record = run.folder / "record.json"
    # As a run was written down while the folder kept more than a registry does.
    record.write_text(json.dumps({**json.loads(record.read_text()), "error": "out of memory: " + "x" * 7000}))
    assert RunPusher(run.folder).push(served.client()).state == "FAILED"
    assert served.client().run(run.id)["error"].startswith("out of memory")


def test_a_run_of_somebody_else_is_not_pushed(run: Verb, served: Served, tmp_path: Path) -> None:
    trained = train(tmp_path)
    assert run("push", trained.folder).exit_code == 0
    served.who = "scientist/frank"
    refused = run("push", trained.folder)
    assert refused.exit_code == 1
    assert "an ID of its own" in refused.output


def test_what_is_no_run_is_named(run: Verb, served: Served, tmp_path: Path) -> None:
    assert run("push", tmp_path).exit_code == 3
    trained = train(tmp_path)
    (trained.folder / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(InvalidInputError, match="no point of a metric"):
        RunPusher(trained.folder).push(served.client())
    (trained.folder / "record.json").write_text("[]")
    with pytest.raises(InvalidInputError, match="no JSON object"):
        RunPusher(trained.folder).push(served.client())
    with pytest.raises(NotFoundError):
        RunPusher(tmp_path / "nowhere").push(served.client())


def test_runs_are_compared_by_what_differs(run: Verb, tmp_path: Path) -> None:
    some = [train(tmp_path / name, n, parameters={"C": name, "n": 5}) for n, name in ((2, "a"), (4, "b"))]
    for one in some:
        assert run("push", one.folder).exit_code == 0
    compared = json.loads(run("compare", *(one.id for one in some), "--json").stdout)
    assert compared["differences"] == [
        {"part": "parameters", "name": "C", "values": ["a", "b"]},
        {"part": "metrics", "name": "loss", "values": [0.5, 0.25]},
    ]
    assert "parameters C: a | b" in run("compare", *(one.id for one in some)).stdout
    assert run("compare", some[0].id).exit_code == 2
    assert compare_runs([]) == []


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


class TestWhileItGoesOn:
    def test_a_run_is_sent_before_it_ends_and_ends_in_the_registry_as_it_ends_here(
        self, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_sender, "EVERY", 0.05)
        client = served.client()
        run = attestry.start_run(EXPERIMENT, folder=tmp_path, client=client, parameters={"C": 1})
        run.log_metric("loss", 0.5, step=0)
        wait_until(lambda: not run.unsent and client.run(run.id)["points"] == 1)
        assert client.run(run.id)["state"] == "RUNNING"
        run.log_metric("loss", 0.25, step=1)
        run.log_parameter("late", "x")
        run.end("stopped early")
        shown = client.run(run.id)
        assert (shown["state"], shown["error"], shown["points"]) == ("FAILED", "stopped early", 2)
        assert (shown["parameters"], run.unsent) == ({"C": "1", "late": "x"}, "")

    def test_what_cannot_be_sent_stays_in_the_folder_and_training_goes_on(
        self, run: Verb, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_sender, "EVERY", 0.05)
        lost = attestry.start_run(EXPERIMENT, folder=tmp_path, client=served.client("http://127.0.0.1:9"))
        lost.log_metric("loss", 0.5)
        wait_until(lambda: "UnavailableError" in lost.unsent)
        lost.log_metric("loss", 0.25)
        with pytest.warns(RunWarning, match="attestry runs push"):
            lost.end()
        assert lost.state == "FINISHED"
        assert json.loads(run("push", lost.folder, "--json").stdout) == {"run": lost.id, "state": "FINISHED", "points": 2, "sent": 2}

    def test_what_the_guide_shows_goes_to_the_registry(self, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ATTESTRY_RUNS", str(tmp_path))
        page = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text()
        names: dict[str, Any] = {"attestry": attestry}
        exec(compile(page.split("### In the registry")[1].split("```python\n")[1].split("```")[0], "sdk.md", "exec"), names)
        assert names["run"].unsent == ""
        assert [p["value"] for p in served.client().run_metric(names["run"].id, "loss")] == [0.9, 0.5, 0.4]

    def test_a_client_that_cannot_be_made_is_a_warning_too(self, tmp_path: Path) -> None:
        def refuse() -> RegistryClient:
            raise RuntimeError("no credentials")

        sent = Run("x", tmp_path, {}, {}, refuse)
        with pytest.warns(RunWarning, match="no credentials"):
            sent.end()
        assert json.loads((sent.folder / "record.json").read_text())["state"] == "FINISHED"


class TestImports:
    def bring(self, served: Served, run: str, who: str = "scientist/dana") -> int:
        """Import a file that claims a run, and return the version's number."""
        world, body = served.world, b"weights"
        file = {"name": "model.bin", "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        grant = world.call("POST", "/v1/imports", {"files": [file]}, who=who).body
        world.store.put_new(grant["uploads"][0]["key"], body)
        said = {"submission": grant["submission"], "run": {"id": run, "experiment": EXPERIMENT}}
        made = world.call("POST", "/v1/models/brought/versions", said, who=who)
        assert made.status == 202, made.raw
        return int(made.body["version"])

    def test_an_import_leads_to_its_run_and_the_run_to_the_import(self, served: Served, run: Verb, tmp_path: Path) -> None:
        trained = train(tmp_path)
        assert run("push", trained.folder).exit_code == 0
        number = self.bring(served, trained.id)
        assert served.world.call("GET", f"/v1/models/brought/versions/{number}").body["import"]["run"] == trained.id
        assert served.client().run(trained.id)["versions"] == [{"model": "brought", "number": number}]
        assert f"brought@{number}" in run("show", trained.id).stdout
        found = served.world.call("POST", "/v1/search/versions", {"filter": [{"field": "run", "is": trained.id}]}).body["results"]
        assert [(v["model"], v["number"]) for v in found] == [("brought", number)]

    def test_a_run_that_is_not_there_or_may_not_be_read_stays_a_claim(self, served: Served, run: Verb, tmp_path: Path) -> None:
        trained = train(tmp_path)
        assert run("push", trained.folder).exit_code == 0
        row = {"subject": "login/lee", "grants": [{"role": "scientist", "scope": "model/brought", "until": ""}]}
        served.world.meta.transact([Put(grant_key("login/lee"), row, When())])
        for claimed, who in (("0" * 32, "scientist/dana"), ("some-mlflow-run", "scientist/dana"), (trained.id, "scientist/lee")):
            number = self.bring(served, claimed, who)
            shown = served.world.call("GET", f"/v1/models/brought/versions/{number}").body["import"]
            assert ("run" in shown, shown["claimed"]["run"]["id"]) == (False, claimed)
        assert served.client().run(trained.id)["versions"] == []

    def test_a_link_that_was_planted_in_the_index_leads_nowhere(self, served: Served, run: Verb, tmp_path: Path) -> None:
        trained = train(tmp_path)
        assert run("push", trained.folder).exit_code == 0
        number = self.bring(served, "")
        (partition,) = Lane(VERSIONS, "run", trained.id, CREATED).partitions()
        served.world.meta.transact([Put(Key(partition, "x"), {"model": "brought", "number": number})])
        assert served.client().run(trained.id)["versions"] == []
