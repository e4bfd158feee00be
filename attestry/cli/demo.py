"""The demo: the main job from an uploaded manifest to a traced prediction, on the embedded AWS, as different people.

Every step checks what it shows; the first that is not as it should be ends the demo with an error.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from attestry.cli.demo_evidence import flip_bytes, prove
from attestry.cli.demo_parts import MODEL, Answers, DemoError, expect, free_port, run, seconds_of, short, signed_version
from attestry.cli.demo_rollouts import ask_for_canary, ask_for_shadow, await_comparison, await_halt, use_canary
from attestry.client.api import RegistryClient
from attestry.client.errors import ApiError
from attestry.client.submit import submit
from attestry.client.wait import Rest, wait_for_version
from attestry.domain.errors import AttestryError
from attestry.local.people import Person
from attestry.local.stack import LocalStack, down, up

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "manifests" / "tumour-diagnosis"
PREDICTIONS = 25
SHADOWED = 3
LABEL = "malignant"
STEP_SECONDS = 300


class Demo:
    """The story, a method each chapter."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._started = time.monotonic()
        self._rows: list[dict[str, float]] = []
        self._summary: list[tuple[str, str, float]] = []

    def run(self) -> None:
        """Tell it.

        Raises:
            DemoError: a step is not as it should be.
            AttestryError: a step failed.
        """
        self._chapter("Start the registry on the embedded AWS", self._start)
        try:
            self._chapter("Introduce the people", self._introduce)
            self._chapter("Develop a model in a git repository", self._develop)
            self._chapter("dana submits the manifest; the pipeline makes version 1", lambda: self._make_version(1))
            self._chapter("dana tries to approve her own candidate", self._approve_own)
            self._chapter("erin approves; version 1 is deployed", self._approve)
            self._chapter(f"frank asks for {PREDICTIONS} predictions", self._predict)
            self._chapter("grace traces one of them", self._trace)
            self._chapter("dana submits two changes; the pipeline makes versions 2 and 3", self._change)
            self._chapter("What differs between versions 1 and 2", self._diff)
            self._chapter(
                "erin approves version 2 in the AWS console's way, and version 3; they come as shadow and canary", self._approve_both
            )
            self._chapter("Callers meet the canary, which fails some of their requests", self._canary)
            self._chapter("grace takes a bundle of a prediction, and an auditor verifies it offline", self._prove)
            self._chapter("Somebody changes one byte of it, in five places", self._forge)
            self._chapter("The canary has halted by itself, and the shadow was compared", self._watch)
            self._chapter("frank puts version 2 in place, while predictions go on", self._cut_over)
            self._chapter("frank rolls back to version 1", self._roll_back)
            self._chapter("frank kills version 1; version 2 takes its place", self._kill)
        finally:
            down(self._folder / "registry")
        self._close()

    def _start(self) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._stack: LocalStack = up(self._folder / "registry", free_port(), self._say)
        return f"API at {self._stack.api_url}"

    def _introduce(self) -> str:
        self._stack = self._stack.add_people(Person("dana", ("scientist", "approver")))
        admin = self._client("admin")
        for person in ("dana", "erin", "frank", "grace"):
            admin.add_person(person, [person])
        return "dana (scientist), erin (approver), frank (deployer and consumer), grace (auditor): four IAM users, four persons"

    def _develop(self) -> str:
        project = self._folder / MODEL
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("data", "__pycache__"))
        run([sys.executable, "get_data.py"], project)
        (project / ".gitignore").write_text("data/\n")
        run(["git", "init", "--quiet", "--initial-branch=main"], project)
        run(["git", "remote", "add", "origin", "https://git.example.com/models/tumour-diagnosis.git"], project)
        self._commit("A first model")
        with (project / "data" / "breast_cancer.csv").open(newline="") as stream:
            self._rows = [{k: float(v) for k, v in row.items() if k != LABEL} for row in csv.DictReader(stream)]
        return f"{len(self._rows)} rows, {len(self._rows[0])} features"

    def _make_version(self, number: int) -> str:
        self._submit(number)
        return self._await_approval(number)

    def _submit(self, number: int) -> None:
        submitted = submit(self._client("dana"), self._folder / MODEL, say=self._say)
        expect(submitted.version == number and not submitted.unproven, f"the submission became {submitted.model}@{submitted.version}")

    def _await_approval(self, number: int) -> str:
        dana = self._client("dana")
        followed = wait_for_version(dana, MODEL, number, moved=lambda *state: self._say(" ".join(state)), timeout_seconds=STEP_SECONDS)
        expect(
            followed.rest is Rest.WAITING,
            f"version {number} does not wait for approval but is {followed.rest}: {followed.version['error']}",
        )
        self._show_stages(followed.version)
        metrics = ", ".join(f"{name} {float(value):.4f}" for name, value in followed.version["metrics"].items())
        return f"{MODEL}@{number} waits for approval: {metrics}"

    def _approve_own(self) -> str:
        try:
            self._client("dana-approver").decide(MODEL, 1, "approve", "looks good to me")
        except ApiError as error:
            expect(error.code == "self_approval", f"refused for another reason: {error.code}")
            return f"refused: {error.message}"
        raise DemoError("the submitter could approve her own candidate")

    def _approve(self) -> str:
        erin = self._client("erin")
        decision = erin.decide(MODEL, 1, "approve", "all gates hold; reviewed the preparation steps")
        expect(decision["complete"] and decision["person"] == "erin", "the approval did not end the stage")
        self._await_deployed(1)
        return f"{MODEL}@1 stands DEPLOYED, approved by {decision['person']}"

    def _predict(self) -> str:
        frank = self._client("frank-consumer")
        answers = [frank.predict(MODEL, [row]) for row in self._rows[:PREDICTIONS]]
        expect(len({a["prediction_id"] for a in answers}) == PREDICTIONS, "two predictions share an ID")
        expect(all(a["version"] == 1 == signed_version(a) for a in answers), "a prediction was signed with another version")
        self._prediction = str(answers[-1]["prediction_id"])
        self._show("An answer", {"prediction": self._prediction, "version": f"{MODEL}@1", "output": json.dumps(answers[-1]["output"])})
        return f"{PREDICTIONS} answers, each with a receipt signed for {MODEL}@1"

    def _trace(self) -> str:
        trace = self._client("grace").trace(self._prediction, deep=True)
        failed = [s for s in trace["steps"] if s["outcome"] != "passed"]
        proof = trace["proof"]
        expect(not failed and trace["verdict"] in ("SIGNED-UNANCHORED", "PROVEN"), f"{trace['verdict']}: {failed or proof['reason']}")
        self._show_trace(trace)
        return f"{len(trace['steps'])} steps passed, every file re-read: {trace['verdict']} ({proof['reason']})"

    def _change(self) -> str:
        project = self._folder / MODEL
        ask_for_shadow(project)
        self._commit("Regularise less; to be compared in the shadow")
        self._submit(2)
        ask_for_canary(project)
        self._commit("Refuse measurements out of range; to be tried as a canary")
        self._submit(3)
        return f"{self._await_approval(2)}; {self._await_approval(3)}"

    def _diff(self) -> str:
        rows = self._client("grace").diff(MODEL, 1, 2)
        table = Table("section", "field", "version 1", "version 2", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(short(row[k]) for k in ("section", "field", "before", "after")))
        self._console.print(table)
        expect(
            any(r["section"] == "hyperparameters" and r["field"] == "C" for r in rows),
            "the changed hyperparameter is not among the differences",
        )
        return f"{len(rows)} fields differ"

    def _approve_both(self) -> str:
        self._client("erin").decide(MODEL, 3, "approve", "to be tried on half of the requests")
        states = self._stack.session("erin").client("stepfunctions")
        start = {"action": "approve", "model": MODEL, "version": 2, "reason": "better on every metric; decided in the console"}
        execution = states.start_execution(stateMachineArn=self._decision_arn(), input=json.dumps(start))["executionArn"]
        self._await(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING", "RegistryDecision has not ended")
        described = states.describe_execution(executionArn=execution)
        expect(described["status"] == "SUCCEEDED", f"RegistryDecision ended {described['status']}: {described.get('cause')}")
        self._await_standing(2, "SHADOW")
        # It is asked once a minute what callers have asked since, so they ask while the canary is still being put in place.
        for row in self._rows[:SHADOWED]:
            self._client("frank-consumer").predict(MODEL, [row])
        self._await_standing(3, "CANARY")
        approval = self._client("grace").version(MODEL, 2)["approvals"][0]
        expect(
            approval["person"] == "erin" and "CloudTrail" in approval["principal"]["method"], f"the approval names {approval['principal']}"
        )
        event = approval["console"]["event_sha256"]
        expect(approval["principal"]["method"].endswith(event), "the approval does not name CloudTrail's event by its digest")
        told = f"approved by {approval['person']} (CloudTrail event {event[:12]}…)"
        return f"version 2 {told}: it is asked what version 1 is asked, and answers nobody; version 3: half of the requests go to it"

    def _canary(self) -> str:
        answered, failed = use_canary(self._client("frank-consumer"), self._client("frank"), self._rows)
        expect(set(answered) == {1, 3}, f"versions that answered callers: {dict(answered)}")
        told = ", ".join(f"{count} by version {number}" for number, count in sorted(answered.items()))
        return f"{told}; {failed} requests that version 3 failed were answered by version 1 in the same call"

    def _watch(self) -> str:
        frank = self._client("frank")
        why = await_halt(frank, 3, self._await)
        compared = await_comparison(frank, 2, self._await)
        agreed, instances = int(compared["agreed"]), int(compared["instances"])
        return f"version 3 is out: {why}; version 2 agreed with the answers given in {agreed} of {instances} instances"

    def _cut_over(self) -> str:
        with Answers(self._client("frank-consumer"), self._rows) as answers:
            self._await(lambda: len(answers.versions) >= 5 or answers.error is not None, "predictions have not begun")
            self._client("frank").change_rollout(MODEL, "finish", "the shadow agreed")
            self._await_standing(2, "DEPLOYED")
            done = len(answers.versions)
            self._await(lambda: len(answers.versions) >= done + 5 or answers.error is not None, "predictions have stopped")
        expect(answers.error is None, f"a prediction failed during the deployment: {answers.error}")
        expect(
            answers.versions == sorted(answers.versions) and set(answers.versions) == {1, 2},
            f"versions across the cut-over: {answers.versions}",
        )
        before, after = answers.versions.count(1), answers.versions.count(2)
        return f"{before} predictions by version 1, then {after} by version 2"

    def _roll_back(self) -> str:
        frank = self._client("frank")
        begun = time.monotonic()
        frank.rollback(MODEL, "version 2 is being looked at", to=1)
        took = time.monotonic() - begun
        answer = self._client("frank-consumer").predict(MODEL, [self._rows[0]])
        expect(answer["version"] == 1 == signed_version(answer), "after the rollback another version than 1 answers")
        standings = {v["number"]: v["standing"] for v in frank.versions(MODEL)}
        expect(standings == {1: "DEPLOYED", 2: "ROLLBACK", 3: "APPROVED"}, f"standings after the rollback: {standings}")
        return f"{took:.1f} s after the command version 1 answers again; version 2 is kept ready"

    def _prove(self) -> str:
        self._bundle = self._folder / "bundle.zip"
        verification = prove(self._client("grace"), self._prediction, self._bundle, self._stack.root_pin, say=self._say)
        for step in verification.steps:
            self._console.print(f"   [green]{step.outcome}[/green]  {step.name}: [dim]{step.detail}[/dim]")
        for note in verification.notes:
            self._console.print(f"   [yellow]{note}[/yellow]")
        return f"{verification.verdict}, {verification.reason}: {self._bundle.stat().st_size} bytes, no credentials, no network"

    def _forge(self) -> str:
        table = Table("a byte changed in", "verdict", "step that tells", "reason", box=None, pad_edge=False)
        forged = flip_bytes(self._bundle, self._stack.root_pin)
        for place, verification in forged:
            told = next(s for s in verification.steps if s.outcome == "failed")
            table.add_row(place, f"[red]{verification.verdict}[/red]", told.name, short(told.detail))
        self._console.print(table)
        return f"{len(forged)} of {len(forged)} found"

    def _kill(self) -> str:
        frank, consumer = self._client("frank"), self._client("frank-consumer")
        frank.kill(MODEL, 1, "wrong answers were reported")
        try:
            answer = consumer.predict(MODEL, [self._rows[0]])
        except ApiError as error:
            expect(error.status in (404, 409), f"refused for another reason: {error.code}")
            refused = error.message
        else:
            raise DemoError(f"{MODEL}@{answer['version']} answered after version 1 was killed")
        frank.rollback(MODEL, "version 1 was killed", to=2)
        answer = consumer.predict(MODEL, [self._rows[0]])
        expect(answer["version"] == 2 == signed_version(answer), "after the kill another version than 2 answers")
        return f"refused: {refused}; then version 2 answers"

    def _close(self) -> None:
        table = Table("step", "outcome", "seconds", title="What happened", title_justify="left", box=None, pad_edge=False)
        for name, outcome, seconds in self._summary:
            table.add_row(name, outcome, f"{seconds:.1f}")
        self._console.print()
        self._console.print(table)
        where = self._folder.relative_to(Path.cwd()) if self._folder.is_relative_to(Path.cwd()) else self._folder
        self._console.print(
            f"\nDone in {time.monotonic() - self._started:.0f} s. Look around: attestry up --data {where / 'registry'}", style="bold green"
        )

    def _chapter(self, name: str, act: Callable[[], str]) -> None:
        self._console.print(f"\n[bold]{len(self._summary) + 1}. {name}[/bold]")
        begun = time.monotonic()
        if self._console.is_terminal:
            with self._console.status("working ...") as status:
                self._status = status
                outcome = act()
        else:
            outcome = act()
        seconds = time.monotonic() - begun
        self._summary.append((name, outcome, seconds))
        self._console.print(f"   [green]ok[/green] {outcome} [dim]({seconds:.1f} s)[/dim]")

    def _say(self, text: str) -> None:
        if self._console.is_terminal:
            self._status.update(text)
        self._console.print(f"   [dim]{time.monotonic() - self._started:6.1f} s  {text}[/dim]")

    def _show(self, title: str, rows: Mapping[str, str]) -> None:
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        for name, value in rows.items():
            table.add_row(f"[dim]{name}[/dim]", value)
        self._console.print(table)

    def _show_stages(self, version: Mapping[str, Any]) -> None:
        table = Table("stage", "status", "seconds", "record", box=None, pad_edge=False)
        for stage in version["stages"]:
            record = json.loads(stage["record"]) if stage.get("record") else {}
            table.add_row(stage["stage"], stage["status"], seconds_of(record), str(stage.get("record_sha256", ""))[:16])
        self._console.print(table)

    def _show_trace(self, trace: Mapping[str, Any]) -> None:
        value: Callable[[Any], str] = lambda fact: f"{short(fact['value'])} [dim]({fact['grade']})[/dim]"  # noqa: E731 - a local shorthand
        self._show(
            "The trace",
            {
                "prediction": value(trace["prediction"]["prediction_id"]),
                "version digest": value(trace["version"]["digest"]),
                "code revision": value(trace["code"]["revision"]),
                "training data": value(trace["data"]["training"]["digest"]),
                "hold-out data": value(trace["data"]["holdout"]["digest"]),
                "hyperparameters": value(trace["settings"]["hyperparameters"]),
                "framework": value(trace["environment"]["framework"]),
                "environment": value(trace["environment"]["archive_sha256"]),
                "metrics": value(trace["validation"]["metrics"]),
                "ran by": f"{trace['people']['ran_by']['value']['person']} [dim]({trace['people']['ran_by']['grade']})[/dim]",
                "approved by": value(trace["people"]["approved_by"]),
            },
        )
        for step in trace["steps"]:
            self._console.print(f"   [green]{step['outcome']}[/green]  {step['step']}: [dim]{step['detail']}[/dim]")

    def _await_deployed(self, number: int) -> None:
        self._await_standing(number, "DEPLOYED")

    def _await_standing(self, number: int, standing: str) -> None:
        followed = wait_for_version(
            self._client("frank"),
            MODEL,
            number,
            moved=lambda *state: self._say(" ".join(state)),
            through_approval=True,
            timeout_seconds=STEP_SECONDS,
        )
        expect(followed.version["standing"] == standing, f"version {number} is {followed.rest}: {followed.version['error']}")

    def _await(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        while not done():
            expect(time.monotonic() < deadline, otherwise)
            time.sleep(0.2)

    def _client(self, profile: str) -> RegistryClient:
        return RegistryClient(
            self._stack.session(profile), self._stack.api_url, on_wait=lambda why, seconds: self._say(f"{why}; again in {seconds:.0f} s")
        )

    def _decision_arn(self) -> str:
        return self._stack.outputs["DecisionArn"]

    def _commit(self, message: str) -> None:
        run(["git", "add", "--all"], self._folder / MODEL)
        author = ["-c", "user.name=dana", "-c", "user.email=dana@example.com", "-c", "commit.gpgsign=false"]
        run(["git", *author, "commit", "--quiet", "--message", message], self._folder / MODEL)


def run_demo(folder: Path, console: Console) -> None:
    """Run the demo in a folder that it empties first.

    Raises:
        AttestryError: a step is not as it should be.
    """
    Demo(folder, console).run()


def main() -> int:
    """Run the demo below `build/` of the working directory."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    try:
        run_demo(Path.cwd() / "build" / "demo", console)
    except AttestryError as error:
        console.print(f"\nThe demo failed: {error.message}", style="bold red", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
